"""What a poll says about an attempt: that it lives, that it ended, or nothing yet."""

from __future__ import annotations

from bluesky_plugins.processing.jobs.attempts import (
    NOTHING,
    RANK,
    Rules,
    Step,
    adopt,
    changed,
    end,
    end_by,
    moved_on,
    order_stop,
    tell,
)
from bluesky_plugins.processing.jobs.events import Event
from bluesky_plugins.processing.jobs.job import JobRecord, StopReason
from bluesky_plugins.processing.model import Found, JobState, Observation, ResultRecord
from bluesky_plugins.processing.targets.ports import AttemptRef

__all__ = ["kept_late", "observed", "to_poll"]


def observed(rules: Rules, job: JobRecord, event: Event, seen: Observation) -> Step:
    """What the newest attempt, which has not ended, becomes by what a poll saw of it."""
    attempt, record = job.attempt, seen.record
    if record is not None:
        if (record.key, record.attempt) == (job.key, attempt.number):
            return end_by(job, event, record)
        job = tell(job, event, "its folder holds the record of another attempt: not used")
    if event.time <= max(attempt.since, attempt.polled or 0.0):
        return job, NOTHING  # asked before it came here, or told already
    job = changed(job, polled=event.time)
    found = _ours(job, seen.found)
    if found is not None and not found.state.final:
        return _alive(rules, job, event, seen.heartbeat, found)
    if seen.heartbeat is not None and seen.heartbeat < rules.beat_s:
        lives = Found(native_id=found.native_id if found else "", state=JobState.RUNNING)
        return _alive(rules, job, event, seen.heartbeat, lives)
    if found is not None and _cancelled_in_the_queue(job, seen, found):
        return end(job, event, *concluded(job, found))
    if seen.found is not None or seen.gone:
        return _silent(rules, job, event, found)
    return job, NOTHING


def _cancelled_in_the_queue(job: JobRecord, seen: Observation, found: Found) -> bool:
    """Whether it certainly never started, so that nothing needs to be waited for."""
    attempt = job.attempt
    stopped = attempt.stop is not None and attempt.state is JobState.QUEUED
    return stopped and seen.heartbeat is None and found.state is JobState.CANCELLED


def _ours(job: JobRecord, found: Found | None) -> Found | None:
    attempt = job.attempt
    if found is None or attempt.submissions == 0:
        return None
    if found.attempt not in (None, attempt.number):
        return None
    older = {one.native_id for one in job.attempts[:-1]}
    return None if found.native_id in older else found


def _alive(
    rules: Rules, job: JobRecord, event: Event, heartbeat: float | None, found: Found
) -> Step:
    if job.attempt.silent_polls:
        job = changed(job, silent_polls=0, silent_since=None)
    if job.state is JobState.RUNNING and found.state is JobState.QUEUED:
        text = f"put back into the queue of {job.place.target}; its claim keeps it from starting"
        job = tell(job, event, text)
    job, commands = adopt(job, event, found)
    if not commands and found.expected is not None:
        job, commands = moved_on(job, event, found.expected - event.time)
    if commands or job.state is not JobState.RUNNING:
        return job, commands
    if found.suspended:
        return _suspended(job, event), NOTHING
    age = _silence(job, event, heartbeat)
    if age < rules.heartbeat_s:
        return job, NOTHING
    text = f"no sign from its wrapper for {age:.0f} s"
    stop = job.attempt.stop
    if stop is not None and event.time - stop.since >= rules.give_up_s:
        said = f"{text}; {job.place.target} was told to stop it and says that it runs"
        return end(job, event, JobState.LOST, said)
    return order_stop(job, event, StopReason.HEARTBEAT, text)


def _suspended(job: JobRecord, event: Event) -> JobRecord:
    """It stands still by an order of its cluster: its wrapper gives no sign, and none is due."""
    if job.attempt.suspended is None:
        job = tell(job, event, f"suspended on {job.place.target}")
    return changed(job, suspended=event.time)


def _silence(job: JobRecord, event: Event, heartbeat: float | None) -> float:
    """For how long its wrapper could have given a sign and has not, s."""
    started, suspended = job.attempt.started, job.attempt.suspended
    age = heartbeat if heartbeat is not None else event.time - (started or event.time)
    return age if suspended is None else min(age, event.time - suspended)


def _silent(rules: Rules, job: JobRecord, event: Event, found: Found | None) -> Step:
    attempt = job.attempt
    if RANK[attempt.state] < RANK[JobState.QUEUED]:
        # Only a search decides about what may not have arrived yet.
        return (job, NOTHING) if found is None else adopt(job, event, found)
    since = attempt.silent_since if attempt.silent_since is not None else event.time
    polls = attempt.silent_polls + 1
    job = changed(job, silent_polls=polls, silent_since=since)
    if polls < rules.gone_polls or event.time - since < rules.gone_s:
        return job, NOTHING
    return end(job, event, *concluded(job, found))


def concluded(job: JobRecord, found: Found | None) -> tuple[JobState, str]:
    """How an attempt ended that left no record, and the sentence for it."""
    stop, target = job.attempt.stop, job.place.target
    if stop is not None and stop.reason is not StopReason.HEARTBEAT:
        return JobState.CANCELLED, stop.text
    if stop is not None:
        return JobState.LOST, f"{stop.text}; stopped, and no record of its end"
    if found is None:
        return JobState.LOST, f"{target} does not know it any more, and there is no record"
    said = f": {found.reason}" if found.reason else ""
    if found.state in (JobState.SUCCEEDED, JobState.LOST):
        return JobState.LOST, f"{target} says it ended, but there is no record{said}"
    return found.state, f"{target} says {found.state.value}{said}"


def to_poll(rules: Rules, job: JobRecord, now: float) -> list[tuple[str, AttemptRef]]:
    """The attempts to ask about, each with its target.

    The newest one as soon as it may be there, and for a while those that ended without a
    record, which may still come.
    """
    asked: list[tuple[str, AttemptRef]] = []
    for attempt in job.attempts:
        if attempt.state.final:
            known = attempt.record is not None or attempt.late_record is not None
            wanted = not known and attempt.submissions > 0 and now - attempt.since < rules.late_s
        else:
            wanted = attempt.submissions > 0
        if wanted:
            target = job.places[attempt.place].target
            asked.append((target, (job.key, attempt.number, attempt.watched)))
    return asked


def kept_late(job: JobRecord, event: Event, number: int, record: ResultRecord) -> JobRecord:
    """The job with a record that came after the end of an attempt: kept, and nothing more."""
    attempt = job.attempts[number - 1]
    if (record.key, record.attempt) != (job.key, number):
        return job
    if attempt.record is not None or attempt.late_record is not None:
        return job
    attempts = list(job.attempts)
    attempts[number - 1] = attempt.model_copy(update={"late_record": record})
    job = job.model_copy(update={"attempts": tuple(attempts)})
    text = f"a record of attempt {number} came after its end: {record.state.value}"
    return tell(job, event, text)
