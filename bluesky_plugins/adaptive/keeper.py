"""The batches that a service has in memory, and what each message does to them.

It knows no Kafka client and no thread: what it wants done it puts into its `Hands`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, assert_never

import structlog

from bluesky_plugins.adaptive.asking import Asked, Failed, Reply
from bluesky_plugins.adaptive.configuration import Rules
from bluesky_plugins.adaptive.intake import Entry, Garbage, Intake, read_suggestion
from bluesky_plugins.adaptive.log import BatchLog, Cause, Unloggable
from bluesky_plugins.adaptive.machine import step
from bluesky_plugins.adaptive.model import Suggestion, Waiting
from bluesky_plugins.adaptive.projection import batch_record, log_record
from bluesky_plugins.adaptive.registry import Registry
from bluesky_plugins.adaptive.renewing import Progress, awaiting, computing
from bluesky_plugins.adaptive.state import (
    Batch,
    Close,
    Compute,
    Computed,
    Event,
    Instruction,
    Order,
    Phase,
    Publish,
    Published,
    Tick,
    Wait,
    begin,
)
from bluesky_plugins.adaptive.writer import Write
from bluesky_plugins.messaging import DecodingError, Message, decode

__all__ = ["Hands", "Keeper", "Limits", "Loaded", "OpenBatch"]

log = structlog.get_logger(__name__)


class Loaded(NamedTuple):
    """What a batch's log held before the entry by which it was met.

    `ended_at`: the batch had ended with the entry of this offset; None if it had not.
    """

    batch_id: str
    entries: list[Entry]
    suggestions: list[Suggestion]
    ended_at: int | None


class Hands(Protocol):
    """What the keeper has others do."""

    def send(self, topic: str, key: str, name: str, doc: Mapping[str, Any]) -> None:
        """Send a message; `topic` is a short name."""

    def bury(self, message: Message, reason: str) -> None:
        """Send a message to the dead letters."""

    def write(self, write: Write) -> None:
        """Have a record stored."""

    def compute(self, batch: OpenBatch, compute: Compute) -> None:
        """Have the batch's recommender reply; `Keeper.replied` is told."""

    def load(self, batch_id: str, met: Cause) -> None:
        """Read the batch's log up to `met`; `Keeper.loaded` is told."""


@dataclass(frozen=True)
class Limits:
    """How long things may take, s, and how much is remembered."""

    compute: float = 600.0
    waiting_every: float = 1.0
    waiting_for: float = 60.0
    renew_every: float = 5.0
    linger: float = 60.0
    suggestions: int = 100_000
    ended: int = 10_000


@dataclass(eq=False)
class OpenBatch:
    """One batch in memory."""

    batch_id: str
    met: Cause
    state: Batch
    recommender: Asked | None = None
    log: BatchLog = field(default_factory=BatchLog)
    first: Cause | None = None
    last: Cause | None = None
    pending: list[Entry] | None = None
    computing: Compute | None = None
    computing_since: float = 0.0
    waiting_sent: float = 0.0
    waiting_told: str = ""
    ended_since: float | None = None

    @property
    def blocks(self) -> bool:
        """Whether the log must be read again from `met` after a restart."""
        return self.pending is not None or self.state.phase is Phase.OPEN


class Keeper:
    """Batches by their ids.

    :param progress: where the job of a run is that a batch awaits.
    :param clock: monotonic, s; `wall`: seconds since the epoch.
    """

    def __init__(
        self,
        rules: Rules,
        registry: Registry,
        hands: Hands,
        *,
        limits: Limits | None = None,
        progress: Progress = lambda run, count, recipe: None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._registry = registry
        self._hands = hands
        self._limits = limits or Limits()
        self._progress = progress
        self._clock = clock
        self._wall = wall
        self._intake = Intake()
        self.batches: dict[str, OpenBatch] = {}
        self._suggested: OrderedDict[str, list[Message]] = OrderedDict()
        self._suggestions = 0
        self._forgotten = False
        self._ended: dict[str, int] = {}
        self._dirty: dict[str, OpenBatch] = {}
        self.repeats = 0

    # ---- what comes in

    def message(self, message: Message) -> None:
        """A message of the `adaptive` topic."""
        cause = Cause(message.topic, message.partition, message.offset)
        try:
            for routed in self._intake.read(*decode(message.value)):
                self._enter(Entry(routed, cause, message.timestamp))
        except (Garbage, DecodingError, Unloggable) as error:
            self._hands.bury(message, str(error))

    def suggestion(self, message: Message) -> None:
        """A message of the `suggestions` topic."""
        try:
            suggestion = read_suggestion(*decode(message.value))
        except (Garbage, DecodingError) as error:
            self._hands.bury(message, str(error))
            return
        if suggestion is None:
            return
        self._remember(suggestion.batch_id, message)
        batch = self.batches.get(suggestion.batch_id)
        if batch is not None and batch.pending is None:
            cause = Cause(message.topic, message.partition, message.offset)
            self._standing(batch, suggestion, cause)

    def replied(self, batch: OpenBatch, count: int, revision: int, reply: Reply) -> None:
        """A recommender replied."""
        computing = batch.computing
        if computing is None or self.batches.get(batch.batch_id) is not batch:
            return
        if (computing.count, computing.revision) != (count, revision):
            return
        batch.computing = None
        self._step(batch, Computed(count, revision, reply))

    def loaded(self, loaded: Loaded) -> None:
        """The log of a batch was read up to where the batch was met."""
        batch = self.batches.get(loaded.batch_id)
        if batch is None or batch.pending is None:
            return
        pending, batch.pending = batch.pending, None
        if loaded.ended_at is not None and loaded.ended_at >= batch.met.offset:
            self._drop(batch, loaded.ended_at)
            for entry in pending:
                self._enter(entry)
            return
        self._recall(batch, loaded.suggestions)
        for entry in (*loaded.entries, *pending):
            self._append(batch, entry)

    def tick(self) -> None:
        """Time went by."""
        now, clock = self._wall(), self._clock()
        for batch in list(self.batches.values()):
            if batch.pending is not None:
                continue
            if batch.computing is not None:
                self._overdue(batch, clock, now)
            self._step(batch, Tick(now))
            if batch.ended_since is not None and clock - batch.ended_since > self._limits.linger:
                self._drop(batch, batch.last.offset if batch.last else None)

    def revoked(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Partitions were taken from this service: their batches are another's now."""
        gone = set(partitions)
        for batch in list(self.batches.values()):
            if (batch.met.topic, batch.met.partition) in gone:
                self._drop(batch)

    # ---- what is known

    def oldest(self, topic: str, partition: int) -> int | None:
        """Offset from which a partition must be read again; None if no batch is open there."""
        return min(
            (
                batch.met.offset
                for batch in self.batches.values()
                if batch.blocks and (batch.met.topic, batch.met.partition) == (topic, partition)
            ),
            default=None,
        )

    @property
    def busy(self) -> bool:
        """Whether an answer, or a log, is on its way."""
        return any(b.pending is not None or b.state.asked for b in self.batches.values())

    @property
    def foreign(self) -> int:
        """Documents of runs that belong to no batch."""
        return self._intake.foreign

    def project(self) -> None:
        """Have the records of the batches that changed stored."""
        for batch in self._dirty.values():
            if batch.first and batch.last:
                record = batch_record(batch.state, batch.first, batch.last)
                self._hands.write(Write("batch", record))
        self._dirty.clear()

    # ---- entries

    def _enter(self, entry: Entry) -> None:
        batch = self.batches.get(entry.routed.batch_id) or self._meet(entry)
        if batch is None:
            return
        if batch.pending is not None:
            batch.pending.append(entry)
        else:
            self._append(batch, entry)

    def _meet(self, entry: Entry) -> OpenBatch | None:
        routed, cause = entry.routed, entry.cause
        opens = routed.name == "start" or routed.doc.get("event") == "opened"
        if not opens or cause.offset <= self._ended.get(routed.batch_id, -1):
            # What is left of a batch that ended before the committed offset.
            return None
        batch = OpenBatch(routed.batch_id, cause, begin(routed.batch_id))
        self.batches[routed.batch_id] = batch
        first = not routed.doc.get("resume") and routed.doc.get("batch_count", 0) == 0
        known = routed.batch_id in self._suggested or routed.batch_id in self._ended
        if not first or known or self._forgotten:
            batch.pending = []
            self._hands.load(routed.batch_id, cause)
        return batch

    def _append(self, batch: OpenBatch, entry: Entry) -> None:
        routed = entry.routed
        new = batch.log.append(routed.name, routed.uid, routed.doc, entry.cause, entry.time)
        if new is None:
            self.repeats += 1
            return
        batch.first = batch.first or entry.cause
        batch.last = entry.cause
        self._hands.write(Write("log", log_record(batch.batch_id, new)))
        self._step(batch, new)

    def _step(self, batch: OpenBatch, event: Event) -> None:
        before = batch.state
        batch.state, commands = step(self._rules, before, event)
        for command in commands:
            self._carry_out(batch, command)
        if batch.state is before:
            return
        self._dirty[batch.batch_id] = batch
        if batch.state.phase is Phase.OPEN:
            batch.ended_since = None
        elif batch.ended_since is None:
            batch.ended_since = self._clock()

    def _carry_out(self, batch: OpenBatch, command: Instruction) -> None:
        match command:
            case Compute():
                self._compute(batch, command)
            case Publish(suggestion):
                stands = (suggestion.batch_count, suggestion.revision) in batch.state.stands
                doc = suggestion.model_dump(mode="json")
                doc = doc if stands else {**doc, "time": self._wall()}
                self._hands.send("suggestions", batch.batch_id, "suggestion", doc)
            case Close(ended):
                doc = ended.model_dump(mode="json")
                self._hands.send("adaptive", batch.batch_id, "batch_event", doc)
            case Order(order):
                doc = order.model_dump(mode="json")
                self._hands.send("adaptive", batch.batch_id, "command", doc)
            case Wait():
                until = self._wall() + self._limits.waiting_for
                waiting = awaiting(command, self._progress, until)
                changed = waiting.reason != batch.waiting_told
                self._tell_to_wait(batch, waiting, 0.0 if changed else self._limits.renew_every)
            case _:
                assert_never(command)

    # ---- recommenders

    def _compute(self, batch: OpenBatch, compute: Compute) -> None:
        if batch.recommender is None:
            batch.recommender = self._asked(compute)
        batch.computing = compute
        batch.computing_since = batch.waiting_sent = self._clock()
        self._hands.compute(batch, compute)

    def _asked(self, compute: Compute) -> Asked:
        config = compute.configuration
        info = config.recommender
        return Asked(
            info.name,
            lambda: self._registry.make(info.name, info.parameters, info.seed),
            config.independent_keys,
            immediate=self._registry.immediate(info.name),
        )

    def _overdue(self, batch: OpenBatch, clock: float, now: float) -> None:
        compute = batch.computing
        if compute is None:
            return
        if clock - batch.computing_since > self._limits.compute:
            # Its thread cannot be ended; the recommender object goes with it.
            batch.recommender = None
            reason = f"recommender {compute.configuration.recommender.name}: no reply in "
            reply = Failed(f"{reason}{self._limits.compute:g} s")
            self.replied(batch, compute.count, compute.revision, reply)
        else:
            until = now + self._limits.waiting_for
            self._tell_to_wait(batch, computing(compute, until), self._limits.waiting_every)

    def _tell_to_wait(self, batch: OpenBatch, waiting: Waiting, every: float) -> None:
        clock = self._clock()
        if clock - batch.waiting_sent >= every:
            batch.waiting_sent, batch.waiting_told = clock, waiting.reason
            self._hands.send("suggestions", batch.batch_id, "waiting", waiting.model_dump())

    # ---- suggestions

    def _remember(self, batch_id: str, message: Message) -> None:
        self._suggested.setdefault(batch_id, []).append(message)
        self._suggested.move_to_end(batch_id)
        self._suggestions += 1
        while self._suggestions > self._limits.suggestions and len(self._suggested) > 1:
            _, dropped = self._suggested.popitem(last=False)
            self._suggestions -= len(dropped)
            self._forgotten = True

    def _recall(self, batch: OpenBatch, stored: Iterable[Suggestion]) -> None:
        """Tell a batch what stands: what MongoDB has of it, and what was read."""
        nowhere = Cause("mongodb", 0, 0)
        for suggestion in stored:
            self._standing(batch, suggestion, nowhere)
        for message in self._suggested.get(batch.batch_id, ()):
            read = read_suggestion(*decode(message.value))
            if read is not None:
                cause = Cause(message.topic, message.partition, message.offset)
                self._standing(batch, read, cause)

    def _standing(self, batch: OpenBatch, suggestion: Suggestion, cause: Cause) -> None:
        known = (suggestion.batch_count, suggestion.revision) in batch.state.stands
        if not known:
            self._hands.write(Write("suggestion", suggestion.model_dump(mode="json")))
            self._step(batch, Published(suggestion, cause))

    def _drop(self, batch: OpenBatch, ended_at: int | None = None) -> None:
        if ended_at is not None:
            self._ended[batch.batch_id] = ended_at
            if len(self._ended) > self._limits.ended:
                self._ended.pop(next(iter(self._ended)))
        self.batches.pop(batch.batch_id, None)
        self._dirty.pop(batch.batch_id, None)
        self._intake.forget(batch.batch_id)
