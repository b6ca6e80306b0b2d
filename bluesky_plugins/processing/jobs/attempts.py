"""How an attempt of a job begins, goes on and ends. Pure steps that `machine` is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bluesky_plugins.processing.jobs.events import Cancel, Command, Event, Find, Publish, Submit
from bluesky_plugins.processing.jobs.job import Attempt, Change, JobRecord, Stop, StopReason
from bluesky_plugins.processing.model import EndReason, Found, JobState, ResultRecord

__all__ = [
    "NOTHING",
    "RANK",
    "WAITING",
    "Rules",
    "Step",
    "adopt",
    "begin",
    "cancel",
    "changed",
    "defer",
    "doubt",
    "end",
    "end_by",
    "may_move",
    "moved_on",
    "next_place",
    "order_stop",
    "refused_for_good",
    "submit",
    "tell",
    "to",
]

Step = tuple[JobRecord, tuple[Command, ...]]
NOTHING: tuple[Command, ...] = ()
WAITING = frozenset({JobState.ACCEPTED, JobState.DEFERRED})

# An attempt never comes into a state of a lower rank. The two of rank 1 take turns: a target
# that is full says so only when it is asked.
RANK = {
    JobState.ACCEPTED: 0,
    JobState.DEFERRED: 1,
    JobState.SUBMITTING: 1,
    JobState.QUEUED: 2,
    JobState.RUNNING: 3,
    JobState.SUCCEEDED: 4,
    JobState.FAILED: 4,
    JobState.TIMED_OUT: 4,
    JobState.CANCELLED: 4,
    JobState.LOST: 4,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Deadlines of every wait in a job's life; times in seconds."""

    submit_s: float = 120.0  # a submission without an answer for this long is doubtful
    search_s: float = 5.0  # between two searches for a doubtful one
    doubt_s: float = 20.0  # found by nobody for this long: submitted again
    doubt_searches: int = 2  # and by at least so many searches
    gone_s: float = 30.0  # without any sign for this long: at its end
    gone_polls: int = 3  # and in at least so many polls in a row
    beat_s: float = 30.0  # a heartbeat younger than this is a sign of life, whatever the queue says
    heartbeat_s: float = 300.0  # its wrapper is silent for this long: stopped
    stop_s: float = 15.0  # between two tries to stop it
    give_up_s: float = 3600.0  # told to stop for so long, silent, and still in the queue: lost
    late_s: float = 86_400.0  # a record that comes later than this after an end is not seen
    backoff_s: float = 2.0  # pause after the first refusal, doubled by each further one
    backoff_most_s: float = 60.0


def changed(job: JobRecord, **updates: Any) -> JobRecord:
    """The job with its newest attempt changed."""
    attempt = job.attempt.model_copy(update=updates)
    return job.model_copy(update={"attempts": (*job.attempts[:-1], attempt)})


def tell(job: JobRecord, event: Event, text: str) -> JobRecord:
    """The job with one more line in its story, unless that only repeats the last one."""
    attempt = job.attempt
    line = Change(
        number=len(job.history),
        time=event.time,
        attempt=attempt.number,
        state=attempt.state,
        text=text,
        cause=event.cause,
    )
    last = job.history[-1] if job.history else None
    if last and (last.attempt, last.state, last.text) == (line.attempt, line.state, line.text):
        return job
    return job.model_copy(update={"history": (*job.history, line)})


def to(job: JobRecord, event: Event, state: JobState, reason: str, **updates: Any) -> JobRecord:
    """The job with its newest attempt in this state, for this reason."""
    since = job.attempt.since if state is job.state else event.time
    job = changed(job, state=state, reason=reason, since=since, **updates)
    return tell(job, event, reason)


# ---- places


def next_place(job: JobRecord, first: int) -> int | None:
    """The first place from `first` on that can take the job at all."""
    usable = (n for n, place in enumerate(job.places) if n >= first and not place.fault)
    return next(usable, None)


def begin(job: JobRecord, event: Event, place: int, reason: str) -> JobRecord:
    """The job with a new attempt at this place."""
    attempt = Attempt(
        number=len(job.attempts) + 1,
        place=place,
        state=JobState.ACCEPTED,
        reason=reason,
        since=event.time,
        created=event.time,
    )
    job = job.model_copy(update={"attempts": (*job.attempts, attempt), "retry": None})
    job, note = tell(job, event, reason), job.places[place].note
    return tell(job, event, note) if note else job


# ---- submission


def submit(job: JobRecord, event: Event, reason: str) -> Step:
    """Give it to its scheduler: stored as submitting before that is done."""
    attempt, target = job.attempt, job.place.target
    number = attempt.submissions + 1
    # The deadline of the answer counts from here, also when it was submitting already.
    job = changed(
        job,
        state=JobState.SUBMITTING,
        reason=reason,
        since=event.time,
        submissions=number,
        doubt=None,
        searches=0,
    )
    # A target that is down for days is asked again every minute: told once.
    if attempt.refusals == 0:
        job = tell(job, event, reason)
    return job, (Submit(attempt.number, number, target),)


def defer(rules: Rules, job: JobRecord, event: Event, reason: str) -> JobRecord:
    """Its target did not take it and may later: it waits in the line, longer each time."""
    refusals = job.attempt.refusals + 1
    # The exponent is bounded, for a target that is down for days.
    pause = min(rules.backoff_most_s, rules.backoff_s * 2.0 ** min(refusals - 1, 30))
    return to(
        job,
        event,
        JobState.DEFERRED,
        reason,
        refusals=refusals,
        not_before=event.time + pause,
    )


def doubt(job: JobRecord, event: Event, reason: str) -> Step:
    """Nobody knows whether the scheduler has it: look before anything else."""
    job = changed(job, doubt=event.time, sought=event.time, searches=0, reason=reason)
    return tell(job, event, reason), (Find(job.attempt.number, job.place.target),)


def adopt(job: JobRecord, event: Event, found: Found) -> Step:
    """The scheduler has it: as this id, unless one is known already."""
    attempt = job.attempt
    native_id = attempt.native_id or found.native_id or None
    running = found.state is JobState.RUNNING
    state = JobState.RUNNING if running else JobState.QUEUED
    updates: dict[str, Any] = {"native_id": native_id, "doubt": None, "refusals": 0}
    if running and attempt.started is None:
        updates["started"] = event.time
    if RANK[state] <= RANK[attempt.state]:
        return changed(job, **updates), NOTHING
    what = f"running on {job.place.target}" if running else f"in the queue of {job.place.target}"
    named = f" as {native_id}" if native_id else ""
    reason = f"{what}{named}" + (f": {found.reason}" if found.reason else "")
    job = to(job, event, state, reason, **updates)
    if attempt.stop is not None and RANK[attempt.state] < RANK[JobState.QUEUED]:
        return _send_stop(job, event)  # the first one may not have arrived
    return job, NOTHING


# ---- stopping


def order_stop(job: JobRecord, event: Event, why: StopReason, text: str) -> Step:
    """Have it stopped; a person's order stands over ours."""
    if job.attempt.stop is not None and why is not StopReason.CANCEL:
        return job, NOTHING
    job = changed(job, stop=Stop(reason=why, text=text, since=event.time, sent=event.time))
    job = tell(job, event, text)
    return _send_stop(job, event)


def _send_stop(job: JobRecord, event: Event) -> Step:
    stop = job.attempt.stop
    if stop is None or job.attempt.submissions == 0:
        return job, NOTHING
    job = changed(job, stop=stop.model_copy(update={"sent": event.time}))
    return job, cancel(job)


def cancel(job: JobRecord) -> tuple[Command, ...]:
    """Have what may be there of the newest attempt stopped."""
    attempt = job.attempt
    return (Cancel(attempt.number, job.place.target),) if attempt.submissions else NOTHING


# ---- waits


def may_move(job: JobRecord) -> bool:
    """Whether its recipe has it go on to another place that there is when it waits too long."""
    further = next_place(job, job.attempt.place + 1)
    return job.wait_s is not None and further is not None and job.attempt.stop is None


def moved_on(job: JobRecord, event: Event, seconds: float) -> Step:
    """Move it to the next place where the wait gets longer than its recipe allows.

    :param seconds: until it starts, as far as its target can tell, s.
    """
    attempt, limit = job.attempt, job.wait_s
    wait = event.time - attempt.created + max(0.0, seconds)
    if limit is None or not wait > limit or not may_move(job):
        return job, NOTHING
    told = f" ({seconds:.0f} s more, as {job.place.target} expects)" if seconds > 0 else ""
    text = f"its wait of {wait:.0f} s{told} is longer than the {limit:.0f} s that its recipe allows"
    if attempt.state in WAITING:
        # Its target has not taken it, so there is no end to be confirmed.
        job, commands = order_stop(job, event, StopReason.MOVE, text)
        job, _ = end(job, event, JobState.CANCELLED, text)
        return job, commands
    if attempt.state is JobState.QUEUED:
        return order_stop(job, event, StopReason.MOVE, text)
    return job, NOTHING


# ---- ends


def end(
    job: JobRecord, event: Event, state: JobState, reason: str, record: ResultRecord | None = None
) -> Step:
    """The attempt is over; where it was stopped to be moved, the next place begins."""
    stop = job.attempt.stop
    updates: dict[str, Any] = {"record": record, "doubt": None}
    if record is not None and record.native_id and job.attempt.native_id is None:
        updates["native_id"] = record.native_id
    job = to(job, event, state, reason, **updates)
    if state is JobState.SUCCEEDED and job.result is not None:
        return job, (Publish(job.attempt.number, job.numbers),)
    if state is JobState.CANCELLED and stop is not None and stop.reason is StopReason.MOVE:
        return _onward(job, event), NOTHING
    return job, NOTHING


def _onward(job: JobRecord, event: Event) -> JobRecord:
    place = next_place(job, job.attempt.place + 1)
    if place is None:
        return job
    reason = f"goes on to {job.places[place].target}: {job.reason}"
    return begin(job, event, place, reason)


def refused_for_good(job: JobRecord, event: Event, reason: str) -> Step:
    """Its target never takes it: the next one does, or the job has failed."""
    # An earlier submission that was not found must not start after all.
    commands = cancel(job) if job.attempt.submissions > 1 else NOTHING
    job, _ = end(job, event, JobState.FAILED, reason)
    return _onward(job, event), commands


def end_by(job: JobRecord, event: Event, record: ResultRecord) -> Step:
    """The wrapper's record decides how it ended."""
    state, reason = _meaning(job, record)
    stop = job.attempt.stop
    if state is JobState.CANCELLED and stop is not None:
        reason = stop.text
    return end(job, event, state, reason, record)


def _meaning(job: JobRecord, record: ResultRecord) -> tuple[JobState, str]:
    state = record.state
    if state is JobState.SUCCEEDED:
        wanted = job.result.numbers if job.result else ()
        lacking = [name for name in wanted if name not in record.numbers]
        if lacking:
            return JobState.FAILED, f"its result lacks the number {lacking[0]}"
    return state, _sentence(record)


def _sentence(record: ResultRecord) -> str:
    took = f"after {max(0.0, record.ended - record.started):.1f} s"
    reason = record.reason.value.replace("_", " ")
    if record.exit_code is not None:
        how = f"exited with {record.exit_code} {took}"
    elif record.signal is not None:
        how = f"ended by signal {record.signal} {took}"
    else:
        return f"{reason} {took}" + (f": {record.detail}" if record.detail else "")
    if record.reason not in (EndReason.EXITED, EndReason.SIGNALLED):
        how = f"{reason}: {how}"
    return f"{how}: {record.detail}" if record.detail else how
