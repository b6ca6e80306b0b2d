"""Writes into MongoDB behind the service's back, in order, for as long as it takes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import structlog
from pymongo.errors import PyMongoError

from bluesky_plugins.adaptive.store import BatchStore, UnstorableError

__all__ = ["Mark", "Write", "Writer"]

log = structlog.get_logger(__name__)
AT_ONCE = 500
# What comes within this time is written at once: storing is not what a plan waits for, s.
GATHER_SECONDS = 0.03
Kind = Literal["log", "suggestion", "batch"]


@dataclass(frozen=True, slots=True)
class Write:
    """One record to store."""

    kind: Kind
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Mark:
    """Reported when all that was put before it is stored."""

    offsets: Mapping[tuple[str, int], int]
    generation: int


class Writer:
    """A thread that stores what it is given, and tries again while MongoDB does not answer.

    :param reached: called from the thread with each mark that was reached.
    :param unstorable: called from the thread with what can never be stored, and why.
    """

    def __init__(
        self,
        store: BatchStore,
        *,
        reached: Callable[[Mark], None],
        unstorable: Callable[[Write, str], None],
        retry_seconds: float = 0.5,
    ) -> None:
        self._store = store
        self._reached = reached
        self._unstorable = unstorable
        self._retry_seconds = retry_seconds
        self._queue: queue.SimpleQueue[Write | Mark | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._indexed = False
        self.healthy = True
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, item: Write | Mark) -> None:
        """Have it stored some time after all that was put before."""
        self._queue.put(item)

    @property
    def backlog(self) -> int:
        """How many records wait."""
        return self._queue.qsize()

    def stop(self, timeout: float) -> bool:
        """Store what waits, but no longer than `timeout` s; whether all is stored."""
        self._queue.put(None)
        self._thread.join(timeout)
        self._stopping.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            items = self._take()
            ends = items[-1] is None
            self._store_all([item for item in items if isinstance(item, Write)])
            if self._stopping.is_set():
                return
            for item in items:
                if isinstance(item, Mark):
                    self._reached(item)
            if ends:
                return

    def _take(self) -> list[Write | Mark | None]:
        """What waits, in order; a None ends it."""
        items = [self._queue.get()]
        if items[0] is not None:
            self._stopping.wait(GATHER_SECONDS)
        while len(items) < AT_ONCE and items[-1] is not None:
            try:
                items.append(self._queue.get_nowait())
            except queue.Empty:
                break
        return items

    def _store_all(self, writes: list[Write]) -> None:
        while writes and not self._stopping.is_set():
            try:
                self._store_once(writes)
            except UnstorableError:
                writes = self._one_by_one(writes)
            except PyMongoError as error:
                if self.healthy:
                    log.warning("MongoDB does not answer; it is tried again", error=str(error))
                self.healthy = False
                self._stopping.wait(self._retry_seconds)
            else:
                self.healthy = True
                return

    def _store_once(self, writes: list[Write]) -> None:
        if not self._indexed:
            self._store.make_indexes()
            self._indexed = True
        # The log before the record that counts its entries, so that no record promises more.
        self._store.write_log(write.record for write in writes if write.kind == "log")
        self._store.write_suggestions(w.record for w in writes if w.kind == "suggestion")
        newest = {w.record["batch_id"]: w.record for w in writes if w.kind == "batch"}
        self._store.write_batches(newest.values())

    def _one_by_one(self, writes: list[Write]) -> list[Write]:
        """Store each alone, so that one that cannot be stored stops no other; what is left."""
        left: list[Write] = []
        for write in writes:
            try:
                self._store_once([write])
            except UnstorableError as error:
                self._unstorable(write, str(error))
            except PyMongoError:
                left.append(write)
        return left


def kind_of(write: Write) -> str:
    """What a write is called where people read it."""
    match write.kind:
        case "log":
            return f"entry {write.record.get('n')} of the log"
        case "suggestion":
            return "suggestion"
        case "batch":
            return "record"
        case _:
            assert_never(write.kind)
