"""Jobs for tests: made from little, and a bench that feeds the machine and keeps its commands."""

from __future__ import annotations

from typing import Any

from bluesky_plugins.processing.jobs.events import Announce, Command, Event
from bluesky_plugins.processing.jobs.job import JobRecord, Place, Subject
from bluesky_plugins.processing.jobs.machine import Rules, accept, outstanding, step
from bluesky_plugins.processing.model import (
    EndReason,
    Found,
    JobState,
    Observation,
    ResultRecord,
    ResultSpec,
)

__all__ = ["JobBench", "found", "observation", "record", "unaccepted"]

RESULT = ResultSpec(numbers=("peak",))


def unaccepted(
    targets: tuple[str, ...] = ("slurm",), *, time: float = 1000.0, **changes: Any
) -> JobRecord:
    """A job without attempts; `changes` are its fields."""
    values: dict[str, Any] = {
        "key": "0" * 64,
        "recipe": "focus",
        "version": "1",
        "subject": Subject(run="run-uid"),
        "because": "its start document says so",
        "places": tuple(Place(target=name, argv=("/bin/true",)) for name in targets),
        "result": RESULT,
        "accepted": time,
        **changes,
    }
    job = JobRecord(**values)
    return job.model_copy(update={"key": job.derived_key()})


def found(state: str = "queued", native_id: str = "17", **changes: Any) -> Found:
    """An entry of a scheduler's queue."""
    return Found(native_id=native_id, state=JobState(state), **changes)


def record(job: JobRecord, attempt: int | None = None, **changes: Any) -> ResultRecord:
    """The wrapper's record of a job that succeeded, unless `changes` say otherwise."""
    values: dict[str, Any] = {
        "key": job.key,
        "attempt": attempt or job.attempt.number,
        "reason": EndReason.EXITED,
        "exit_code": 0,
        "started": 1000.0,
        "ended": 1002.5,
        "numbers": {"peak": 3.25},
        **changes,
    }
    return ResultRecord(**values)


def observation(state: str | None = None, *, native_id: str = "17", **changes: Any) -> Observation:
    """What a poll saw: an entry in this state, or what `changes` say."""
    entry = found(state, native_id) if state else None
    return Observation(found=entry, **changes)


class JobBench:
    """One job, fed with events; `commands` are what the last one asked for."""

    def __init__(self, job: JobRecord | None = None, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        job = job or unaccepted()
        self.job = job if job.attempts else accept(job)
        self.commands: list[Command] = []

    def tell(self, *events: Event) -> list[Command]:
        """Feed events; what they ask for, announcements left out."""
        self.commands = []
        for event in events:
            self.job, commands = step(self.rules, self.job, event)
            self.commands += [one for one in commands if not isinstance(one, Announce)]
        return self.commands

    def outstanding(self) -> list[Command]:
        """What a process that takes the job up has to do, announcements left out."""
        _, commands = outstanding(self.job)
        return [one for one in commands if not isinstance(one, Announce)]
