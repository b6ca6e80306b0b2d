"""What is known of a batch, what its machine is told, and what it has done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from bluesky_plugins.adaptive.asking import Calls, Reply
from bluesky_plugins.adaptive.configuration import Configuration
from bluesky_plugins.adaptive.log import Cause, LogEntry
from bluesky_plugins.adaptive.model import (
    Action,
    BatchMode,
    Command,
    Ended,
    Opened,
    Outcome,
    Result,
    Suggestion,
)
from bluesky_plugins.adaptive.readings import Row, Run

__all__ = [
    "NOTHING",
    "Ask",
    "Awaited",
    "Batch",
    "Close",
    "Compute",
    "Computed",
    "Decided",
    "Event",
    "Instruction",
    "Order",
    "Phase",
    "Publish",
    "Published",
    "Step",
    "Tick",
    "Told",
    "Verdict",
    "Wait",
    "begin",
    "missing",
    "story",
    "tell",
    "violations",
]


class Phase(StrEnum):
    """Whether a batch still asks."""

    OPEN = "open"
    ENDED = "ended"


# ---- events: what the shell tells the machine (beside a LogEntry)


@dataclass(frozen=True, slots=True)
class Published:
    """A suggestion was read from the `suggestions` topic."""

    suggestion: Suggestion
    cause: Cause


@dataclass(frozen=True, slots=True)
class Computed:
    """The recommender replied to what it was asked for this count and revision."""

    count: int
    revision: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by; `now` in seconds since the epoch."""

    now: float


Event = LogEntry | Published | Computed | Tick

# ---- commands: what the machine has the shell do


@dataclass(frozen=True, slots=True)
class Compute:
    """Have the recommender make these calls and reply to the last one."""

    batch_id: str
    count: int
    revision: int
    configuration: Configuration
    calls: Calls = field(repr=False)
    length: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish a suggestion. Its `time` is that of the entry it answers: replace it."""

    suggestion: Suggestion


@dataclass(frozen=True, slots=True)
class Close:
    """Put this `ended` into the batch's log."""

    ended: Ended


@dataclass(frozen=True, slots=True)
class Order:
    """Put this command into the batch's log."""

    command: Command


@dataclass(frozen=True, slots=True)
class Wait:
    """Tell the plan that the results of these recipes are awaited."""

    batch_id: str
    awaited: Awaited
    recipes: tuple[str, ...]


Instruction = Compute | Publish | Close | Order | Wait

# ---- state


class Verdict(NamedTuple):
    """An answer that needs no recommender."""

    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """The one answer that is due. `made` is what we would publish, `sent` when that was."""

    count: int
    revision: int
    inputs: str
    time: float
    verdict: Verdict | None
    jobs: tuple[str, ...] = ()
    made: Suggestion | None = None
    sent: float | None = None


@dataclass(frozen=True, slots=True)
class Awaited:
    """A count that was measured; its answer is due when the results of processing are there.

    `part`: the `batch_count` that its results carry; None: those of the run are its results.
    """

    count: int
    run: str
    part: int | None
    row: Row
    since: float


@dataclass(frozen=True, slots=True)
class Told:
    """One line of a batch's story."""

    text: str
    cause: Cause | None
    count: int | None
    time: float | None


@dataclass(frozen=True, slots=True)
class Decided:
    """The answer that was given last."""

    count: int
    revision: int
    action: Action


@dataclass(frozen=True, slots=True)
class Batch:
    """All that is known of a batch after some of its log."""

    batch_id: str
    phase: Phase = Phase.OPEN
    outcome: Outcome | None = None
    reason: str = ""
    mode: BatchMode | None = None
    configuration: Configuration | None = None
    opened: Opened | None = None
    openings: int = 0
    entries: int = 0
    first_time: float = 0.0
    last_time: float = 0.0
    runs: Mapping[str, Run] = field(default_factory=dict)
    measured: int = 0
    asked: Ask | None = None
    awaited: Awaited | None = None
    results: Mapping[tuple[str, int | None, str], Result] = field(default_factory=dict)
    held: tuple[LogEntry, ...] = ()
    stands: Mapping[tuple[int, int], Suggestion] = field(default_factory=dict)
    answered: Mapping[int, int] = field(default_factory=dict)
    last: Decided | None = None
    refusals: int = 0
    pause_requested: str | None = None
    stop_requested: str | None = None
    closing: float | None = None
    calls: Calls = field(default=None, repr=False)
    length: int = 0
    told: tuple[Told, Any] | None = field(default=None, repr=False)


Step = tuple[Batch, tuple[Instruction, ...]]
NOTHING: tuple[Instruction, ...] = ()


def begin(batch_id: str) -> Batch:
    """A batch of which nothing is known yet."""
    return Batch(batch_id)


def story(state: Batch, key: int | None = None, *, latest: int | None = None) -> list[Told]:
    """What happened to a batch, or to one count of it, in order; or the latest lines of it."""
    lines: list[Told] = []
    rest = state.told
    while rest is not None and (latest is None or len(lines) < latest):
        line, rest = rest
        if key is None or line.count == key:
            lines.append(line)
    return lines[::-1]


def tell(state: Batch, text: str, entry: LogEntry | None = None, count: int | None = None) -> Batch:
    """The state with one more line in its story."""
    cause, time = (entry.cause, entry.time) if entry else (None, None)
    return replace(state, told=(Told(text, cause, count, time), state.told))


def missing(state: Batch) -> tuple[str, ...]:
    """The recipes whose results are still awaited."""
    awaited, config = state.awaited, state.configuration
    if awaited is None or config is None:
        return ()
    run, part = awaited.run, awaited.part
    return tuple(name for name in config.recipes if (run, part, name) not in state.results)


# ---- invariants


def violations(state: Batch) -> list[str]:
    """What must never be; for tests."""
    wrong: list[str] = []
    if state.asked is None and state.held:
        wrong.append("entries are held although no answer is due")
    if state.asked and (state.asked.count, state.asked.revision) in state.stands:
        wrong.append("an answer is due that stands already")
    for (count, revision), suggestion in state.stands.items():
        if (suggestion.batch_count, suggestion.revision) != (count, revision):
            wrong.append(f"{suggestion.uid} stands for another count")
    for count, revision in state.answered.items():
        if any((count, older) not in state.stands for older in range(revision + 1)):
            wrong.append(f"count {count} has an answer without its earlier revisions")
    if state.last and state.answered.get(state.last.count) != state.last.revision:
        wrong.append("the last answer is not one of the answers")
    if state.phase is Phase.ENDED and (state.runs or state.awaited):
        wrong.append("an ended batch has open runs, or awaits results")
    if state.awaited and state.awaited.count in state.answered:
        wrong.append("results are awaited for a count that is answered")
    if state.awaited and state.asked is None and not missing(state):
        wrong.append("all that is awaited is there")
    return wrong
