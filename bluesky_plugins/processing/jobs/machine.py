"""The life of a job as a pure machine: `step(rules, job, event) -> (job, commands)`.

No clock, no I/O. The shell stores the job that comes out, if its revision rose, before it
carries the commands out, and tells what came of them as events; after a crash `Recovered`
brings up what was under way.
Events may come twice, late, in any order, or never. What holds in all of that:

- a submission is written down before it is done, and one with an unknown outcome is looked
  for before it is repeated;
- the number of the attempt rises only when the last one has certainly ended;
- states never go back, and a poll that failed changes nothing but a counter;
- the record of the job wrapper, not the queue, says how an attempt ended; one that comes after
  the end is kept and shown and changes nothing;
- a job has one published result.
"""

from __future__ import annotations

from typing import assert_never

from bluesky_plugins.processing.jobs.attempts import (
    NOTHING,
    WAITING,
    Rules,
    Step,
    adopt,
    begin,
    cancel,
    changed,
    defer,
    doubt,
    end,
    moved_on,
    next_place,
    order_stop,
    refused_for_good,
    submit,
    tell,
    to,
)
from bluesky_plugins.processing.jobs.events import (
    Admitted,
    Announce,
    Announced,
    Cancel,
    CancelRequested,
    Command,
    Doubtful,
    Event,
    Expected,
    Find,
    Held,
    NotSent,
    Observed,
    PollFailed,
    Publish,
    Published,
    Recovered,
    Refused,
    RetryRequested,
    Searched,
    Submitted,
    Tick,
)
from bluesky_plugins.processing.jobs.job import (
    Asked,
    Attempt,
    Change,
    JobRecord,
    StopReason,
    lasting,
)
from bluesky_plugins.processing.jobs.observing import kept_late, observed
from bluesky_plugins.processing.model import Found, JobState

__all__ = ["Rules", "accept", "outstanding", "step", "story"]

UNDER_WAY = frozenset({JobState.QUEUED, JobState.RUNNING})


def accept(job: JobRecord, cause: str = "") -> JobRecord:
    """A job as it is first stored: with its first attempt, or failed where no place takes it.

    :param job: without attempts.
    :raises ValueError: if it has some, or if its key is not the one of what it is.
    """
    if job.attempts:
        raise ValueError("the job has attempts already")
    if job.key != job.derived_key():
        raise ValueError("the key of the job is not the one of what it is")
    event = Tick(time=job.accepted, cause=cause)
    place = next_place(job, 0)
    if place is not None:
        job = begin(job, event, place, job.because)
        for skipped in job.places[:place]:
            job = tell(job, event, f"{skipped.target} cannot take it: {skipped.fault}")
        return job
    job = begin(job, event, 0, job.because)
    return to(job, event, JobState.FAILED, _faults(job))


def _faults(job: JobRecord) -> str:
    if len({place.fault for place in job.places}) == 1:
        return job.places[0].fault  # not the targets' fault
    return "; ".join(f"{place.target} cannot take it: {place.fault}" for place in job.places)


def story(job: JobRecord) -> list[Change]:
    """What happened to the job, in order."""
    return list(job.history)


def step(rules: Rules, job: JobRecord, event: Event) -> Step:
    """What a job becomes by an event, and what is to be done about it."""
    new, commands = _step(rules, job, event)
    if len(new.history) > len(job.history):
        commands = (*commands, Announce(new.announced))
    if new is not job and lasting(new) != lasting(job):
        new = new.model_copy(update={"revision": job.revision + 1})
    return new, commands


def outstanding(job: JobRecord) -> Step:
    """What is still to be done, as far as the stored job alone can tell.

    For a process that takes the job up: it can neither know what the last one still did, nor
    forget what that did not do.
    """
    attempt = job.attempt
    commands: list[Command] = []
    if attempt.stop is not None and attempt.state in UNDER_WAY:
        commands.append(Cancel(attempt.number, job.place.target))
    if attempt.doubt is not None or job.retry is not None:
        commands.append(Find(attempt.number, job.place.target))
    if attempt.state is JobState.SUCCEEDED and job.result and job.published is None:
        commands.append(Publish(attempt.number, job.numbers))
    if job.announced < len(job.history):
        commands.append(Announce(job.announced))
    return job, tuple(commands)


def _step(rules: Rules, job: JobRecord, event: Event) -> Step:
    match event:
        case Submitted() | Refused() | NotSent() | Doubtful() | Searched() | Observed():
            return _about_an_attempt(rules, job, event)
        case Expected(attempt=number, seconds=seconds):
            newest = _is_newest(job, number)
            return moved_on(job, event, seconds) if newest else (job, NOTHING)
        case Admitted():
            return _admitted(job, event)
        case Held(reason=reason):
            return _held(job, event, reason)
        case PollFailed():
            return _poll_failed(job)
        case Tick():
            return _tick(rules, job, event)
        case Recovered():
            return _recovered(job, event)
        case CancelRequested():
            return _cancel(job, event)
        case RetryRequested():
            return _retry(job, event)
        case Published(time=time):
            return _published(job, time)
        case Announced(changes=changes):
            changes = min(max(job.announced, changes), len(job.history))
            return job.model_copy(update={"announced": changes}), NOTHING
        case _:
            assert_never(event)


AboutAnAttempt = Submitted | Refused | NotSent | Doubtful | Searched | Observed


def _is_newest(job: JobRecord, number: int) -> bool:
    return number == job.attempt.number


def _about_an_attempt(rules: Rules, job: JobRecord, event: AboutAnAttempt) -> Step:
    if not 1 <= event.attempt <= job.attempt.number:
        return job, NOTHING
    if job.attempts[event.attempt - 1].state.final:
        return _after_its_end(rules, job, event)
    match event:
        case Submitted(native_id=native_id):
            return adopt(job, event, Found(native_id=native_id, state=JobState.QUEUED))
        case Refused() | NotSent() | Doubtful():
            return _not_taken(rules, job, event)
        case Searched(found=found):
            return _searched(rules, job, event, found)
        case Observed(observation=observation):
            return observed(rules, job, event, observation)
        case _:
            assert_never(event)


def _after_its_end(rules: Rules, job: JobRecord, event: AboutAnAttempt) -> Step:
    attempt = job.attempts[event.attempt - 1]
    target = job.places[attempt.place].target
    match event:
        case Submitted() if attempt.record is None:
            # It was given up as not there, and is there: it must not start now.
            job = tell(job, event, f"attempt {attempt.number} came late into the queue of {target}")
            return job, (Cancel(attempt.number, target),)
        case Observed(observation=observation) if observation.record is not None:
            return kept_late(job, event, event.attempt, observation.record), NOTHING
        case Searched(found=found) if job.retry is not None and _is_newest(job, event.attempt):
            return _searched_for_retry(job, event, found)
        case _:
            return job, NOTHING


# ---- on the way to the scheduler


def _admitted(job: JobRecord, event: Event) -> Step:
    attempt = job.attempt
    if attempt.state not in WAITING or event.time < attempt.not_before:
        return job, NOTHING
    return submit(job, event, f"given to {job.place.target}")


def _held(job: JobRecord, event: Event, reason: str) -> Step:
    if job.state not in WAITING or (job.state is JobState.DEFERRED and job.reason == reason):
        return job, NOTHING
    return to(job, event, JobState.DEFERRED, reason), NOTHING


def _not_taken(rules: Rules, job: JobRecord, event: Refused | NotSent | Doubtful) -> Step:
    attempt = job.attempt
    # What is doubtful is decided by a search alone; an earlier submission decides nothing.
    if attempt.state is not JobState.SUBMITTING or attempt.doubt is not None:
        return job, NOTHING
    if event.submission != attempt.submissions:
        return job, NOTHING
    if isinstance(event, Doubtful):
        return doubt(job, event, f"not known whether {job.place.target} took it: {event.reason}")
    if attempt.stop is not None:
        return end(job, event, JobState.CANCELLED, attempt.stop.text)
    if isinstance(event, Refused) and event.permanent:
        return refused_for_good(job, event, event.reason)
    return defer(rules, job, event, event.reason), NOTHING


def _searched(rules: Rules, job: JobRecord, event: Event, found: tuple[Found, ...]) -> Step:
    attempt = job.attempt
    if attempt.state is not JobState.SUBMITTING or attempt.doubt is None:
        return job, NOTHING
    if event.time <= max(attempt.doubt, attempt.searched or 0.0):
        return job, NOTHING  # asked before the doubt, or told already
    ours = _of_this_attempt(job, found)
    if ours is not None:
        return adopt(job, event, ours)
    searches = attempt.searches + 1
    job = changed(job, searches=searches, searched=event.time)
    if searches < rules.doubt_searches or event.time - attempt.doubt < rules.doubt_s:
        return job, NOTHING
    if attempt.stop is not None:
        job, _ = end(job, event, JobState.CANCELLED, attempt.stop.text)
        return job, cancel(job)
    waited = event.time - attempt.doubt
    target = job.place.target
    return submit(job, event, f"not found on {target} for {waited:.0f} s: given to it again")


def _of_this_attempt(job: JobRecord, found: tuple[Found, ...]) -> Found | None:
    """The entry to go by: one that runs before one that waits, before one that has ended."""
    older = {attempt.native_id for attempt in job.attempts[:-1]}
    number = job.attempt.number
    ours = [one for one in found if one.native_id not in older and one.attempt in (None, number)]
    order = {JobState.RUNNING: 0, JobState.QUEUED: 1}
    return min(ours, key=lambda one: (order.get(one.state, 2), one.native_id), default=None)


# ---- time


def _poll_failed(job: JobRecord) -> Step:
    if job.state.final:
        return job, NOTHING
    return changed(job, failed_polls=job.attempt.failed_polls + 1), NOTHING


def _tick(rules: Rules, job: JobRecord, event: Event) -> Step:
    attempt, now = job.attempt, event.time
    if job.retry is not None or attempt.doubt is not None:
        if attempt.sought is not None and now - attempt.sought < rules.search_s:
            return job, NOTHING
        return changed(job, sought=now), (Find(attempt.number, job.place.target),)
    if attempt.state is JobState.SUBMITTING:
        if now - attempt.since < rules.submit_s:
            return job, NOTHING
        return doubt(job, event, f"no answer from {job.place.target} for {rules.submit_s:.0f} s")
    if attempt.stop is not None and attempt.state in UNDER_WAY:
        if now - attempt.stop.sent < rules.stop_s:
            return job, NOTHING
        job = changed(job, stop=attempt.stop.model_copy(update={"sent": now}))
        return job, (Cancel(attempt.number, job.place.target),)
    return moved_on(job, event, 0.0)


def _recovered(job: JobRecord, event: Event) -> Step:
    attempt = job.attempt
    if attempt.state is JobState.SUBMITTING and attempt.doubt is None:
        text = f"taken up again: not known whether {job.place.target} took it"
        job, _ = doubt(job, event, text)
    return outstanding(job)


# ---- people


def _cancel(job: JobRecord, event: CancelRequested) -> Step:
    attempt = job.attempt
    if job.retry is not None:
        job = job.model_copy(update={"retry": None})
        return tell(job, event, "will not be tried again"), NOTHING
    if attempt.state.final or (attempt.stop and attempt.stop.reason is StopReason.CANCEL):
        return job, NOTHING
    job = job.model_copy(update={"cancel": _asked(event)})
    text = _sentence("cancelled", event)
    if attempt.state in WAITING:
        job, _ = end(job, event, JobState.CANCELLED, text)
        return job, cancel(job)
    return order_stop(job, event, StopReason.CANCEL, text)


def _retry(job: JobRecord, event: RetryRequested) -> Step:
    attempt, place = job.attempt, next_place(job, 0)
    if not attempt.state.final or attempt.state is JobState.SUCCEEDED:
        return job, NOTHING
    if place is None or job.retry is not None:
        return job, NOTHING
    text = _sentence("tried again", event)
    if _certainly_ended(attempt):
        return begin(job, event, place, text), NOTHING
    job = job.model_copy(update={"retry": _asked(event)})
    job = tell(changed(job, sought=event.time), event, f"{text}; looked for first")
    target = job.place.target
    return job, (
        Cancel(attempt.number, target),
        Find(attempt.number, target),
    )


def _certainly_ended(attempt: Attempt) -> bool:
    return attempt.state is not JobState.LOST or attempt.late_record is not None


def _searched_for_retry(job: JobRecord, event: Event, found: tuple[Found, ...]) -> Step:
    attempt = job.attempt
    if any(not one.state.final for one in found):
        job = tell(job, event, "to be tried again, but the lost attempt is still there")
        return job, (Cancel(attempt.number, job.place.target),)
    place = next_place(job, 0)
    if place is None or job.retry is None or event.time <= job.retry.time:
        return job, NOTHING
    return begin(job, event, place, f"tried again: {job.retry.reason}"), NOTHING


def _asked(event: CancelRequested | RetryRequested) -> Asked:
    return Asked(by=event.by, reason=event.reason, time=event.time)


def _sentence(what: str, event: CancelRequested | RetryRequested) -> str:
    by = f" by {event.by}" if event.by else ""
    return f"{what}{by}: {event.reason}" if event.reason else f"{what}{by}"


def _published(job: JobRecord, time: float) -> Step:
    if job.state is not JobState.SUCCEEDED or job.published is not None:
        return job, NOTHING
    return job.model_copy(update={"published": time}), NOTHING
