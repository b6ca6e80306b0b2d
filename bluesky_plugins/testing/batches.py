"""Batches without servers: their documents, their plan's events, and a machine to feed.

With a `Bench` a recommender is tried on a whole batch inside one test.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from bluesky_plugins.adaptive.asking import Asked
from bluesky_plugins.adaptive.configuration import Rules
from bluesky_plugins.adaptive.log import BatchLog, Cause
from bluesky_plugins.adaptive.machine import step
from bluesky_plugins.adaptive.model import RecommenderRequest, Suggestion
from bluesky_plugins.adaptive.registry import Registry
from bluesky_plugins.adaptive.state import (
    Batch,
    Close,
    Compute,
    Computed,
    Instruction,
    Order,
    Publish,
    Published,
    Tick,
    Wait,
    begin,
    violations,
)

BATCH = "b0"


def rules(registry: Registry | None = None, **changes: Any) -> Rules:
    """Rules of a service with these defaults; what is not a default is a field of `Rules`.

    Any `processing.<recipe>.<number>` may be a dependent key, unless `unknown` is given.
    """
    changes.setdefault("unknown", lambda key, mode: None)
    defaults = RecommenderRequest(
        name=changes.pop("name", "step"),
        parameters=changes.pop("parameters", {"step": 1.5}),
        max_count=changes.pop("max_count", 15),
        independent_keys=changes.pop("independent_keys", ["motor"]),
        dependent_keys=changes.pop("dependent_keys", ["det"]),
    )
    return Rules(defaults, (registry or Registry()).describe, **changes)


def start(count: int, uid: str | None = None, **md: Any) -> tuple[str, dict[str, Any]]:
    """A start document of the batch."""
    uid = uid or f"run{count}"
    doc = {"uid": uid, "time": 1.0, "scan_id": 1, "batch_id": BATCH, "batch_count": count, **md}
    return "start", doc


def descriptor(run: str, stream: str = "primary", keys: Any = ("motor", "det")) -> Any:
    """A descriptor of a run's stream."""
    data_keys = {k: {"dtype": "number", "shape": [], "source": "s"} for k in keys}
    doc = {
        "uid": f"{run}-{stream}",
        "run_start": run,
        "time": 1.0,
        "name": stream,
        "data_keys": data_keys,
    }
    return "descriptor", doc


def event(run: str, data: dict[str, Any], number: int = 1, stream: str = "primary") -> Any:
    """One event of a run's stream."""
    doc = {
        "uid": f"{run}-{stream}-{number}",
        "descriptor": f"{run}-{stream}",
        "time": 1.0,
        "seq_num": number,
        "data": data,
        "timestamps": dict.fromkeys(data, 1.0),
        "filled": {},
    }
    return "event", doc


def stop(run: str, status: str = "success") -> tuple[str, dict[str, Any]]:
    """A run's stop document."""
    return "stop", {"uid": f"{run}-stop", "run_start": run, "time": 2.0, "exit_status": status}


def run(
    count: int, *rows: dict[str, Any], uid: str | None = None, status: str = "success", **md: Any
) -> list[Any]:
    """The documents of one run."""
    uid = uid or f"run{count}"
    events = [event(uid, row, n) for n, row in enumerate(rows, 1)]
    return [start(count, uid, **md), descriptor(uid), *events, stop(uid, status)]


_numbers = itertools.count()


def batch_event(kind: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """Something that the batch's plan did."""
    doc = {"event": kind, "uid": f"event{next(_numbers)}", "batch_id": BATCH, "time": 1.0}
    return "batch_event", {**doc, **fields}


def opened(**fields: Any) -> tuple[str, dict[str, Any]]:
    """The plan took up the batch."""
    given = {"batch_mode": "run", "motors": ["motor"], "first_point": {"motor": 0.0}}
    return batch_event("opened", **{**given, **fields})


def refused(suggestion: Suggestion, reason: str = "outside the limits") -> Any:
    """The plan's gate refused a suggestion."""
    return batch_event(
        "refused",
        batch_count=suggestion.batch_count,
        revision=suggestion.revision,
        suggestion=suggestion.uid,
        reason=reason,
    )


def command(kind: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """Something that a person asked for."""
    doc = {"uid": f"command{next(_numbers)}", "batch_id": BATCH, "command": kind, "time": 1.0}
    return "command", {**doc, **fields}


def result(
    run: str, recipe: str = "fit", count: int | None = None, **fields: Any
) -> tuple[str, dict[str, Any]]:
    """How a job for a run ended; the number `peak` of its recipe is given by that name."""
    number = next(_numbers)
    peak = fields.pop("peak", None)
    values = {} if peak is None else {f"processing.{recipe}.peak": peak}
    doc = {
        "uid": f"result{number}",
        "batch_id": BATCH,
        "run": run,
        "batch_count": count,
        "key": f"{number:064x}",
        "recipe": recipe,
        "values": values,
        "time": 3.0,
    }
    return "result", {**doc, **fields}


@dataclass
class Bench:
    """A batch whose commands are carried out at once, on topics that are lists.

    :param known: suggestions that stand from before.
    :param hold: keep commands until `release`.
    """

    rules: Rules = field(default_factory=rules)
    registry: Registry = field(default_factory=Registry)
    known: list[Suggestion] = field(default_factory=list)
    hold: bool = False
    log: BatchLog = field(default_factory=BatchLog)
    topic: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    suggestions: list[Suggestion] = field(default_factory=list)
    state: Batch = field(default_factory=lambda: begin(BATCH))
    asked: Asked | None = None
    kept: list[Instruction] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    time: float = 100.0
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for suggestion in self.known:
            self.tell(Published(suggestion, Cause("suggestions", 0, 0)))

    def feed(self, *documents: tuple[str, dict[str, Any]]) -> list[Suggestion]:
        """Append to the log; what was published because of it."""
        before = len(self.suggestions)
        for name, doc in documents:
            cause = Cause("adaptive", 0, len(self.topic))
            self.topic.append((name, doc))
            entry = self.log.append(name, doc["uid"], doc, cause, self.time)
            if entry is not None:
                self.tell(entry)
        return self.suggestions[before:]

    def tick(self, now: float) -> None:
        """Let time go by, to `now`, seconds since the epoch."""
        self.tell(Tick(now))

    def tell(self, event: Any) -> None:
        """Tell the machine, and carry out what it says (or keep it, while `hold` is set)."""
        self.state, commands = step(self.rules, self.state, event)
        self.violations += violations(self.state)
        for one in commands:
            if self.hold:
                self.kept.append(one)
            else:
                self.carry_out(one)

    def carry_out(self, one: Instruction) -> None:
        """Carry out one command."""
        match one:
            case Compute(_, count, revision, config, calls, length):
                info = config.recommender
                if self.asked is None:
                    self.asked = Asked(
                        info.name,
                        lambda: self.registry.make(info.name, info.parameters, info.seed),
                        config.independent_keys,
                    )
                self.tell(Computed(count, revision, self.asked.reply(calls, length)))
            case Publish(suggestion):
                self.suggestions.append(suggestion)
                cause = Cause("suggestions", 0, len(self.suggestions))
                self.tell(Published(suggestion, cause))
            case Close(ended):
                self.feed(("batch_event", ended.model_dump(mode="json")))
            case Order(order):
                self.feed(("command", order.model_dump(mode="json")))
            case Wait():
                self.waits.append(one)

    def release(self) -> None:
        """Carry out what was held, and what comes of it."""
        self.hold = False
        while self.kept:
            self.carry_out(self.kept.pop(0))
