"""A job as it is stored: what shall be done where, what was tried, and what happened.

`machine` makes each next job out of the last one; nothing else changes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import Field, JsonValue

from bluesky_plugins.processing.model import (
    Argv,
    Environment,
    JobKey,
    JobKind,
    JobState,
    Login,
    Name,
    Noun,
    RelativePath,
    Resources,
    ResultRecord,
    ResultSpec,
    SafeText,
    Submission,
    job_key,
)
from bluesky_plugins.processing.recipes.paths import PathError, PathMapper, PathRule

__all__ = [
    "Asked",
    "Attempt",
    "Change",
    "JobRecord",
    "Place",
    "Stop",
    "StopReason",
    "Subject",
    "key_of",
    "lasting",
    "submission_of",
]


class Subject(Noun):
    """What is processed: a run, a point of a batch, or a batch as a whole.

    A job that a person asks for at a prompt may have none of these.
    """

    run: str | None = Field(None, description="uid of the run")
    batch_id: str | None = None
    batch_count: int | None = Field(None, ge=0, description="of the run or event")

    @property
    def uid(self) -> str:
        """Uid of the run, else of the batch, else empty."""
        return self.run or self.batch_id or ""


class Place(Noun):
    """One target that may carry the job out, with all that depends on it."""

    target: Name
    argv: Argv = Field(description="with this target's own paths")
    environment: Environment = Field(default_factory=dict)
    directory: SafeText | None = None
    resources: Resources = Field(default_factory=Resources)
    here: bool = Field(False, description="whether it is this host, with this host's paths")
    paths: tuple[PathRule, ...] = Field((), description="by which its paths were mapped")
    login: Login | None = Field(None, description="the account, if not the target's own")
    note: str = Field("", description="where resources and login come from, for the story")
    fault: str = Field("", description="why this target cannot take the job at all")

    def seen_here(self, path: str) -> str | None:
        """A path of the target as this host sees it; None: it does not, as far as is known."""
        try:
            mapped = PathMapper(self.paths).unmap(path)
        except PathError:
            return None
        return path if mapped is None and self.here else mapped


class StopReason(StrEnum):
    """Why an attempt is being stopped from here."""

    CANCEL = "cancel"  # a person asked for it
    MOVE = "move"  # it waits longer than its recipe allows
    HEARTBEAT = "heartbeat"  # its queue says running, its wrapper says nothing


class Stop(Noun):
    """The order to stop an attempt. It stands until its end is confirmed."""

    reason: StopReason
    text: str
    since: float = Field(description="when it was given, seconds since the epoch")
    sent: float = Field(description="when the scheduler was last told")


class Asked(Noun):
    """What a person asked of the job."""

    by: str = ""
    reason: str = ""
    time: float = Field(description="seconds since the epoch")


class Attempt(Noun):
    """One try on one target. Its state never goes back; times in seconds since the epoch."""

    number: int = Field(ge=1)
    place: int = Field(ge=0, description="index into the job's places")
    state: JobState
    reason: str = Field(description="why it is in this state")
    since: float = Field(description="when it came into this state")
    created: float
    native_id: str | None = None
    submissions: int = Field(0, ge=0, description="how often the scheduler was asked to take it")
    doubt: float | None = Field(None, description="since when a submission's outcome is unknown")
    sought: float | None = Field(None, description="when a search for it was last asked for")
    searched: float | None = Field(None, description="time of the last search that counted")
    searches: int = Field(0, ge=0, description="searches that found nothing since the doubt")
    refusals: int = Field(0, ge=0, description="times in a row that the target took nothing")
    not_before: float = Field(0.0, description="it is not submitted before this time")
    failed_polls: int = Field(0, ge=0)
    polled: float | None = Field(None, description="time of the last poll that counted")
    silent_polls: int = Field(0, ge=0, description="polls in a row without any sign of it")
    silent_since: float | None = None
    suspended: float | None = Field(None, description="when it was last seen suspended")
    started: float | None = Field(None, description="when it was first seen running")
    stop: Stop | None = None
    record: ResultRecord | None = Field(None, description="what decided its end")
    late_record: ResultRecord | None = Field(None, description="came after its end; kept, shown")

    @property
    def watched(self) -> str | None:
        """The scheduler's id to poll; None: whatever of this attempt has the job's name.

        What was submitted more than once may be there more than once.
        """
        return self.native_id if self.submissions == 1 else None


class Change(Noun):
    """One line of a job's story."""

    number: int = Field(ge=0)
    time: float = Field(description="seconds since the epoch")
    attempt: int
    state: JobState
    text: str
    cause: str = Field("", description="the message, poll or person that made it happen")


class JobRecord(Noun):
    """All that is known of a job."""

    key: JobKey
    recipe: str = Field(description="name of the recipe; of a person's job: what it was called")
    version: str = ""
    subject: Subject = Field(default_factory=Subject)
    chain: tuple[str, ...] = Field(
        (), description="recipes whose results led to the run, the first one first"
    )
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    fresh: str = Field("", description="part of the key of a job that is new each time")
    because: str = Field(description="why the recipe fired, or who asked")
    kind: JobKind = "batch"
    places: tuple[Place, ...] = Field(min_length=1, description="in the order they are tried")
    outputs: tuple[RelativePath, ...] = ()
    result: ResultSpec | None = None
    wait_s: float | None = Field(None, description="longest wait before the next place, s")
    accepted: float = Field(description="seconds since the epoch")
    attempts: tuple[Attempt, ...] = ()
    history: tuple[Change, ...] = ()
    cancel: Asked | None = None
    retry: Asked | None = None
    published: float | None = Field(None, description="when its result went out")
    announced: int = Field(0, ge=0, description="changes that went out on the jobs topic")
    revision: int = Field(0, ge=0, description="rises with all that must be stored")

    @property
    def attempt(self) -> Attempt:
        """The newest attempt."""
        return self.attempts[-1]

    @property
    def place(self) -> Place:
        """Where the newest attempt is."""
        return self.places[self.attempt.place]

    @property
    def state(self) -> JobState:
        """The state of the newest attempt."""
        return self.attempt.state

    @property
    def reason(self) -> str:
        """Why it is in this state."""
        return self.attempt.reason

    @property
    def numbers(self) -> dict[str, float]:
        """What it found, of what its recipe names; empty if it did not succeed."""
        record = self.attempt.record
        if self.result is None or record is None or self.state is not JobState.SUCCEEDED:
            return {}
        return {name: record.numbers[name] for name in self.result.numbers}

    def derived_key(self) -> str:
        """What its key has to be."""
        return key_of(self.subject, self.recipe, self.version, self.parameters, self.fresh)


def key_of(
    subject: Subject, recipe: str, version: str, parameters: Mapping[str, Any], fresh: str = ""
) -> str:
    """The key of the job of a recipe for a subject; each event of a run is a job of its own.

    :param fresh: an id of its own, for a job that shall be a new one each time.
    :raises ValueError: if a parameter is no JSON value or not finite.
    """
    if subject.run and subject.batch_count is not None:
        parameters = {**parameters, "$batch_count": subject.batch_count}
    return job_key(subject.uid, recipe, version, parameters, fresh)


# What changes with every poll and search, and where it starts.
_COUNTERS: dict[str, Any] = {
    "failed_polls": 0,
    "polled": None,
    "silent_polls": 0,
    "silent_since": None,
    "suspended": None,
    "sought": None,
    "searched": None,
    "searches": 0,
}


def lasting(job: JobRecord) -> JobRecord:
    """The job without its counters of polls and searches, which a crash may set back."""
    stop = job.attempt.stop
    stop = None if stop is None else stop.model_copy(update={"sent": stop.since})
    attempt = job.attempt.model_copy(update={**_COUNTERS, "stop": stop})
    return job.model_copy(update={"attempts": (*job.attempts[:-1], attempt)})


def submission_of(job: JobRecord, attempt: int) -> Submission:
    """What the scheduler of an attempt gets.

    :raises IndexError: if the job has no such attempt.
    """
    place = job.places[job.attempts[attempt - 1].place]
    return Submission(
        key=job.key,
        attempt=attempt,
        argv=place.argv,
        environment=place.environment,
        directory=place.directory,
        resources=place.resources,
        kind=job.kind,
        outputs=job.outputs,
        result=job.result,
    )
