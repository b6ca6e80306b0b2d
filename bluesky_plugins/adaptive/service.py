"""The recommender service: reads the logs of batches, answers their plans.

The order of its effects: a suggestion is published, then stored, then the offset moves on.
Offsets move on only up to the oldest open batch, so that after a restart every open batch is
read again from its beginning.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, assert_never

import structlog

from bluesky_plugins.adaptive.configuration import rules_of
from bluesky_plugins.adaptive.dependence import Dependence
from bluesky_plugins.adaptive.http import HttpDoor
from bluesky_plugins.adaptive.keeper import Keeper, Limits, Loaded, OpenBatch
from bluesky_plugins.adaptive.loading import Loader
from bluesky_plugins.adaptive.log import Cause
from bluesky_plugins.adaptive.metrics import Metrics
from bluesky_plugins.adaptive.news import News, Replied, Unstorable
from bluesky_plugins.adaptive.outgoing import Outgoing
from bluesky_plugins.adaptive.registry import Registry
from bluesky_plugins.adaptive.state import Compute
from bluesky_plugins.adaptive.store import BatchStore
from bluesky_plugins.adaptive.suggested import Caught, SuggestionsReader
from bluesky_plugins.adaptive.topics import make_topics_when_up
from bluesky_plugins.adaptive.workers import Workers
from bluesky_plugins.adaptive.writer import Mark, Write, Writer
from bluesky_plugins.messaging import CommitFailed, Consumer, Message, Producer
from bluesky_plugins.processing import Processor
from bluesky_plugins.settings import Settings

__all__ = ["RecommenderService"]

log = structlog.get_logger(__name__)
SERVICE = "recommender"
AT_ONCE = 500
IDLE_SECONDS = 0.05
BUSY_SECONDS = 0.001
TICK_SECONDS = 0.5
STOP_SECONDS = 2.0
# A turn of the loop waits for a server this long at most; after it the loop hangs by itself.
STUCK_SECONDS = 30.0
# Records that wait for MongoDB, and messages read before it is known what stands.
BACKLOG = 20_000
EARLY = 5_000


@dataclass
class _Partition:
    """Where the service stands on a partition. `position`: the offset to read next."""

    position: int
    committed: int


class RecommenderService:
    """Answers the batches of the partitions that it was given.

    :param registry: the recommenders there are; those that are installed unless given.
    :param limits: how long computations and the like may take.
    :param ready: called once, when it begins to answer.
    :param processor: processes runs beside it, in threads of its own.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        registry: Registry | None = None,
        limits: Limits | None = None,
        ready: Callable[[str], None] | None = None,
        processor: Processor | None = None,
    ) -> None:
        self.settings = settings
        self._processor = processor
        self._ready: Callable[[str], None] | None = ready
        registry = registry or Registry()
        self._stopping = threading.Event()
        self._inbox: queue.SimpleQueue[News] = queue.SimpleQueue()
        self.metrics = Metrics()
        self.store = BatchStore.from_settings(settings)
        self.writer = Writer(
            self.store,
            reached=self._inbox.put,
            unstorable=lambda write, reason: self._inbox.put(Unstorable(write, reason)),
        )
        self.loader = Loader(settings, self.store, self._inbox.put, self._stopping)
        self._outgoing = Outgoing(self.metrics)
        dependence = Dependence(processor)
        rules = rules_of(settings.adaptive, registry.describe, dependence.unknown)
        limits = limits or Limits(compute=settings.adaptive.compute_seconds)
        self.keeper = Keeper(rules, registry, self, limits=limits, progress=dependence.progress)
        self._workers = Workers()
        self._suggested = SuggestionsReader(settings, self._inbox.put, self._stopping)
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._generation = 0
        self._caught_up = False
        self._early: list[Message] = []
        self._writes: list[Write] = []
        self._ticked = 0.0
        self._turned = time.monotonic()
        self._marked = False
        self._paused = False
        self._failure: BaseException | None = None
        self._door: HttpDoor | None = None

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Host and port of the HTTP API, while it is served."""
        return self._door.address if self._door else None

    def stop(self) -> None:
        """Have `run` return; may be called from any thread or a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Serve until `stop`, whatever the servers do.

        When stopped while a server hangs, it returns without saying goodbye to it; what was
        not committed is read again by the next service.

        :raises bluesky_plugins.settings.ConfigurationError: if the HTTP API must not, or
            cannot, be bound to its address.
        :raises bluesky_plugins.messaging.MessagingError: if Kafka refuses this service.
        """
        producer = Producer(
            self.settings, client_id=f"{SERVICE}-{self.settings.adaptive.instance}", spool=False
        )
        self._producer = producer
        # A thread, because a last commit to a Kafka that is away cannot be broken off.
        work = threading.Thread(target=self._work, name=SERVICE, daemon=True)
        with self._http():
            work.start()
            if self._processor is not None:
                self._processor.start()
            self._stopping.wait()
            # Both end at the same time; a server that hangs must not be waited for twice.
            deadline = time.monotonic() + STOP_SECONDS
            if self._processor is not None:
                self._processor.stop(1.0)
        work.join(max(0.0, deadline - time.monotonic()))
        if work.is_alive():
            log.warning("a server does not answer; left without goodbye")
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            self.writer.start()
            if self._make_topics():
                self._serve()
        except BaseException as error:  # noqa: BLE001 (`run` raises it)
            self._failure = error
        finally:
            self._stopping.set()
            self._producer.close(0.5)
            self.store.close()

    @contextmanager
    def _http(self) -> Iterator[None]:
        parts = (self.settings, self.store, self._producer, self.metrics, self._health)
        self._door = HttpDoor(*parts, processor=self._processor)
        self._door.start()
        try:
            yield
        finally:
            self._door.stop(1.0)

    def _health(self) -> dict[str, Any]:
        processor = self._processor
        return {
            "kafka": self._producer.healthy,
            "mongo": self.writer.healthy,
            "ready": self._ready is None,
            "backlog": self.writer.backlog,
            # Said only: the recommender answers, whatever becomes of processing.
            **({} if processor is None else {"processing": processor.health()}),
            "alive": time.monotonic() - self._turned < STUCK_SECONDS,
        }

    def _make_topics(self) -> bool:
        return make_topics_when_up(self.settings, self._stopping, self._at_turn)

    def _at_turn(self) -> None:
        self._turned = time.monotonic()

    def _serve(self) -> None:
        adaptive = self.settings.adaptive
        consumer = Consumer(
            self.settings,
            [self.settings.topic("adaptive")],
            group_id=f"{self.settings.beamline}.{adaptive.group_id}",
            instance=adaptive.instance,
            on_assign=self._assigned,
            on_revoke=self._revoked,
        )
        self._consumer = consumer
        self._suggested.start()
        try:
            while not self._stopping.is_set():
                self._turn()
            self._finish()
        finally:
            consumer.close()
            self._suggested.join(2.0)

    # ---- one turn of the loop

    def _turn(self) -> None:
        self._at_turn()
        busy = self.keeper.busy or self._outgoing.waiting or not self._caught_up
        self._hear(BUSY_SECONDS if busy else 0.0)
        messages = self._consumer.poll(AT_ONCE, 0.0 if busy else IDLE_SECONDS)
        if self._caught_up:
            for message in messages:
                self._read(message)
        else:
            self._early += messages
        now = time.monotonic()
        if now - self._ticked > TICK_SECONDS:
            self._ticked = now
            self.keeper.tick()
            self._keep_pace()
            self._mark()
        if self._deliver() and not messages and not busy:
            self.keeper.project()
        self._hand_on()

    def _read(self, message: Message) -> None:
        key = (message.topic, message.partition)
        if key not in self._partitions:
            return
        self.keeper.message(message)
        self.metrics.messages.inc()
        self._partitions[key].position = message.offset + 1
        self._hear(0.0)
        self._deliver()

    def _hear(self, timeout: float) -> None:
        """Handle what the threads report; wait up to `timeout` s for the first of it."""
        try:
            self._handle(self._inbox.get(timeout=timeout) if timeout else self._inbox.get_nowait())
            while True:
                self._handle(self._inbox.get_nowait())
        except queue.Empty:
            return

    def _handle(self, news: News) -> None:
        match news:
            case Message():
                self.keeper.suggestion(news)
            case Caught(generation):
                self._caught(generation)
            case Loaded():
                self.keeper.loaded(news)
            case Mark():
                self._commit(news)
            case Replied(batch, compute, reply, seconds):
                self.metrics.computing.observe(seconds)
                self.keeper.replied(batch, compute.count, compute.revision, reply)
                self._deliver()
            case Unstorable(write, reason):
                log.error("a record cannot be stored", kind=write.kind, reason=reason)
                self.metrics.unstorable.inc()
            case _:
                assert_never(news)

    def _deliver(self) -> bool:
        """Send what waits to be sent; whether all of it is acknowledged."""
        return self._outgoing.deliver(self._producer)

    # ---- what the keeper wants done

    def send(self, topic: str, key: str, name: str, doc: Mapping[str, Any]) -> None:
        """Send a message; `topic` is a short name."""
        self._outgoing.put(self.settings.topic(topic), key, name, doc)

    def bury(self, message: Message, reason: str) -> None:
        """Send a message to the dead letters."""
        self._outgoing.bury(message, reason, SERVICE)

    def write(self, write: Write) -> None:
        """Have a record stored, when what is to be sent is sent."""
        self._writes.append(write)

    def _hand_on(self) -> None:
        writes, self._writes = self._writes, []
        for write in writes:
            self.writer.put(write)

    def load(self, batch_id: str, met: Cause) -> None:
        """Read the log of a batch up to where it was met."""
        self.loader.load(batch_id, met)

    def compute(self, batch: OpenBatch, compute: Compute) -> None:
        """Have a recommender reply; where it may take long, in a thread of its own."""
        asked = batch.recommender
        if asked is None:
            raise RuntimeError(f"batch {batch.batch_id} has no recommender")

        def work() -> None:
            begun = time.monotonic()
            reply = asked.reply(compute.calls, compute.length)
            self._inbox.put(Replied(batch, compute, reply, time.monotonic() - begun))

        if asked.immediate:
            work()
        else:
            self._workers.run(work)

    # ---- partitions

    def _assigned(self, partitions: list[tuple[str, int, int]]) -> None:
        for topic, partition, offset in partitions:
            self._partitions[topic, partition] = _Partition(offset, offset)
        self._generation += 1
        self._caught_up = False
        self._suggested.catch_up(self._generation)
        log.info("partitions assigned", partitions=[p for _, p, _ in partitions])

    def _revoked(self, partitions: list[tuple[str, int]]) -> None:
        self._generation += 1
        self._early.clear()
        for key in partitions:
            self._partitions.pop(key, None)
        self.keeper.revoked(partitions)
        log.info("partitions revoked", partitions=[p for _, p in partitions])

    def _caught(self, generation: int) -> None:
        if generation != self._generation:
            self._suggested.catch_up(self._generation)
            return
        self._caught_up = True
        early, self._early = self._early, []
        for message in early:
            self._read(message)
        self._keep_pace()
        if self._ready is not None:
            ready, self._ready = self._ready, None
            host, port = self.http_address or ("", 0)
            ready(f"recommender ready: http://{host}:{port}")

    def _keep_pace(self) -> None:
        """Read on only while what was read can be answered and stored."""
        hold = len(self._early) > EARLY or self.writer.backlog > BACKLOG
        if hold != self._paused:
            (self._consumer.pause if hold else self._consumer.resume)()
        self._paused = hold
        self.metrics.backlog.set(self.writer.backlog)
        self.metrics.batches.set(len(self.keeper.batches))

    def _mark(self) -> None:
        """Have the offsets committed up to which all is done, when that is stored."""
        if self._outgoing.waiting or self._marked or not self._caught_up:
            return
        self.keeper.project()
        offsets: dict[tuple[str, int], int] = {}
        for (topic, partition), place in self._partitions.items():
            oldest = self.keeper.oldest(topic, partition)
            offset = place.position if oldest is None else min(oldest, place.position)
            if offset != place.committed:
                offsets[topic, partition] = offset
        if offsets:
            self._hand_on()
            self._marked = True
            self.writer.put(Mark(offsets, self._generation))

    def _commit(self, mark: Mark) -> None:
        self._marked = False
        if mark.generation != self._generation:
            return
        try:
            self._consumer.commit(mark.offsets)
        except CommitFailed as error:
            log.warning("offsets are not committed yet", error=str(error))
            return
        for key, offset in mark.offsets.items():
            self._partitions[key].committed = offset

    # ---- the end

    def _finish(self) -> None:
        """Store and commit what is done."""
        self._hear(0.0)
        delivered = self._deliver()
        self._marked = False
        if delivered:
            self._mark()
        self._hand_on()
        if self.writer.stop(1.0):
            self._hear(0.0)
