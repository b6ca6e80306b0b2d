"""The nouns of an adaptive batch, as they travel over Kafka and rest in MongoDB.

A batch is a log on the `adaptive` topic: documents of its runs, `batch_event`s of its plan,
`command`s of people, `result`s of processing. Its answers are `suggestion`s on the
`suggestions` topic. Everything here is data; what decides is in `machine`.
"""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

__all__ = [
    "Action",
    "BatchEvent",
    "BatchMode",
    "Command",
    "CommandKind",
    "Ended",
    "Opened",
    "Outcome",
    "RecommenderInfo",
    "RecommenderRequest",
    "Refused",
    "Result",
    "Suggestion",
    "Taken",
    "TimedOut",
    "Waiting",
    "derived_uid",
    "parse_batch_event",
    "suggestion_uid",
]

# Fixed for ever: every derived id is a uuid5 under it.
NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")


def derived_uid(*parts: str | int) -> str:
    """A uuid5 that depends on nothing but `parts`."""
    return str(uuid.uuid5(NAMESPACE, "\x1f".join(map(str, ("bluesky-plugins", *parts)))))


def suggestion_uid(batch_id: str, batch_count: int, revision: int) -> str:
    """The uid of the suggestion that answers `batch_count` of a batch in this revision."""
    return derived_uid("suggestion", batch_id, batch_count, revision)


class Noun(BaseModel):
    """Base of all: an unknown field is an error, an instance does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BatchMode(StrEnum):
    """What one `batch_count` is: a run, or an event of a run."""

    RUN = "run"
    EVENT = "event"


class Action(StrEnum):
    """What a suggestion asks the plan to do."""

    MOVE = "move"
    STOP = "stop"
    PAUSE = "pause"


class Outcome(StrEnum):
    """How a plan of a batch ended."""

    DONE = "done"  # the recommender said stop
    STOPPED = "stopped"  # on_timeout="stop"
    FAILED = "failed"  # an exception, on_timeout="fail"
    ABORTED = "aborted"  # a person's abort, halt or stop
    SILENT = "silent"  # closed by the service: no news for adaptive.close_after_seconds
    CLOSED = "closed"  # closed by a person's stop while no plan was there


class CommandKind(StrEnum):
    """What a person can ask of a batch."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"
    VETO = "veto"
    POINT = "point"


class RecommenderRequest(Noun):
    """Who shall recommend: the start document's `recommender`.

    What is None comes from the settings of the service.
    """

    name: str = Field(description="registered name (entry point `bluesky_plugins.recommenders`)")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="checked against the recommender's own schema"
    )
    max_count: int | None = Field(None, ge=0, description="counts up to this one are answered")
    independent_keys: list[str] | None = Field(None, min_length=1)
    dependent_keys: list[str] | None = Field(None, min_length=1)


class RecommenderInfo(Noun):
    """Who recommended: enough to compute the suggestion again."""

    name: str
    version: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    seed: int


class Suggestion(Noun):
    """The answer to one `batch_count` of a batch."""

    uid: str = Field(description="`suggestion_uid(batch_id, batch_count, revision)`")
    batch_id: str
    batch_count: int = Field(ge=0, description="of the run or event that it answers")
    revision: int = Field(ge=0, description="0, then 1... when one was refused or vetoed")
    action: Action
    point: dict[str, Any] = Field(
        default_factory=dict,
        description="data key -> position in the motor's units; hostile until the gate has seen it",
    )
    reason: str
    recommender: RecommenderInfo
    inputs: str = Field(description="sha256 (hex) of the batch's log up to it")
    jobs: tuple[str, ...] = Field((), description="keys of the jobs whose results it came from")
    time: float = Field(description="seconds since the epoch")

    @model_validator(mode="after")
    def _uid_is_derived(self) -> Self:
        # A forged one must not stand for the answer that it keeps from being published.
        if self.uid != suggestion_uid(self.batch_id, self.batch_count, self.revision):
            raise ValueError("uid is not the one of this batch, count and revision")
        return self


class Waiting(Noun):
    """Renews the deadline of a plan that waits for the answer to `batch_count`."""

    batch_id: str
    batch_count: int = Field(ge=0)
    reason: str
    until: float = Field(description="seconds since the epoch")


class _Event(Noun):
    uid: str = Field(description="`derived_uid` of the batch, the plan's own id and a number")
    batch_id: str
    time: float = Field(description="seconds since the epoch")
    reason: str = ""


class Opened(_Event):
    """A plan took up the batch, for the first time or again (`resume`)."""

    event: Literal["opened"] = "opened"
    batch_mode: BatchMode
    batch_count: int = Field(0, ge=0, description="count of the first run or event to come")
    resume: bool = False
    motors: list[str] = Field(description="data keys that are moved")
    limits: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="limits of the motors that have some"
    )
    bounds: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="the batch's own bounds, low and high included"
    )
    first_point: dict[str, float]
    recommender: RecommenderRequest | None = None


class Taken(_Event):
    """The plan took a suggestion and acts on it now."""

    event: Literal["taken"] = "taken"
    batch_count: int = Field(ge=0)
    revision: int = Field(ge=0)
    suggestion: str = Field(description="uid of the suggestion")
    action: Action


class Refused(_Event):
    """The gate refused a suggestion; no motor moved. `reason` says why."""

    event: Literal["refused"] = "refused"
    batch_count: int = Field(ge=0)
    revision: int = Field(ge=0)
    suggestion: str = Field(description="uid of the suggestion")


class TimedOut(_Event):
    """No answer in time; `reason` says after how long and what was done."""

    event: Literal["timed_out"] = "timed_out"
    batch_count: int = Field(ge=0)


class Ended(_Event):
    """The plan left the batch."""

    event: Literal["ended"] = "ended"
    outcome: Outcome


BatchEvent = Annotated[Opened | Taken | Refused | TimedOut | Ended, Field(discriminator="event")]
_BATCH_EVENT: TypeAdapter[BatchEvent] = TypeAdapter(BatchEvent)


def parse_batch_event(doc: Any) -> BatchEvent:
    """A `batch_event` from its document.

    :raises pydantic.ValidationError: if it is none.
    """
    return _BATCH_EVENT.validate_python(doc)


class Command(Noun):
    """What a person asked of a batch, through any instance's HTTP door."""

    uid: str
    batch_id: str
    command: CommandKind
    time: float = Field(description="seconds since the epoch")
    by: str = Field("", description="who asked, as far as is known")
    reason: str = ""
    batch_count: int | None = Field(
        None,
        ge=0,
        description="veto: the count whose answer it is; stop: only while the results of this "
        "count are awaited",
    )
    point: dict[str, float] | None = Field(None, description="point: where to measure")


class Result(Noun):
    """How a job for a run of the batch ended; with values if it found them."""

    uid: str
    batch_id: str
    run: str = Field(description="uid of the run that was processed")
    batch_count: int | None = Field(
        None, ge=0, description="of the run, or of the event that was processed"
    )
    key: str = Field(description="key of the job")
    recipe: str = ""
    state: str = Field("succeeded", description="final state of the job")
    reason: str = Field("", description="why it is in that state")
    values: dict[str, float] = Field(
        description="`processing.<recipe>.<number>` -> value; empty if the job did not succeed"
    )
    time: float = Field(description="seconds since the epoch")
