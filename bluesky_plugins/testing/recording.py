"""Fakes of the recorder's ports: the store of documents, the log and the dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bluesky_plugins.messaging import Message
from bluesky_plugins.recording import (
    COLLECTIONS,
    Record,
    Refused,
    StoreDownError,
    Written,
    same_content,
)

__all__ = ["MemoryDocumentStore", "MemoryLetterBox", "MemoryLog", "MemorySource"]

Step = Callable[[str], None]


def _no_step(_name: str) -> None:
    """Nothing happens between two steps."""


class MemoryDocumentStore:
    """A store of documents in memory, with the unique keys of the real one.

    :param step: called with a name before each effect, so that a test can fail there.
    """

    def __init__(self, step: Step = _no_step) -> None:
        self.step = step
        self.down = False
        self.documents: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in COLLECTIONS}

    def prepare(self) -> None:
        """Nothing to make. :raises StoreDownError: when `down` is set."""
        self._check_up()

    def write(self, records: Sequence[Record]) -> Written:
        """Store each record once. :raises StoreDownError: when `down` is set."""
        total = Written()
        for name in COLLECTIONS:
            for record in (r for r in records if r.name == name):
                self.step(f"write {name}")
                self._check_up()
                total += self._write(record)
        return total

    def close(self) -> None:
        """Nothing to let go of."""

    def _write(self, record: Record) -> Written:
        stored = self.documents[record.name]
        doc = record.content()
        if record.key in stored:
            if same_content(stored[record.key], doc):
                return Written(repeated=1)
            reason = f"{COLLECTIONS[record.name].key} {record.key} is stored with other content"
            return Written(refused=(Refused(record, reason),))
        if record.name == "stop" and doc["run_start"] in {s["run_start"] for s in stored.values()}:
            reason = "another stop document takes its place in the run"
            return Written(refused=(Refused(record, reason),))
        stored[record.key] = doc
        return Written(stored=1)

    def _check_up(self) -> None:
        if self.down:
            raise StoreDownError("the store is down, as the test wants")


class MemoryLog:
    """What outlives a process: messages by partition, and the offsets of one group."""

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self.messages: dict[tuple[str, int], list[Message]] = {}
        self.committed: dict[tuple[str, int], int] = {}
        for message in messages:
            self.append(message.topic, message.value, message.key, message.partition)

    def append(
        self, topic: str, value: bytes | None, key: bytes | None = None, partition: int = 0
    ) -> Message:
        """Add a message at the end of a partition."""
        log = self.messages.setdefault((topic, partition), [])
        log.append(Message(topic, partition, len(log), key, value, 0.0))
        return log[-1]


class MemorySource:
    """A consumer of all partitions of a `MemoryLog`.

    :param on_empty: called when a poll finds nothing left.
    """

    def __init__(
        self,
        log: MemoryLog,
        step: Step = _no_step,
        on_empty: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = log
        self._step = step
        self._on_empty = on_empty
        self._next = {place: log.committed.get(place, 0) for place in log.messages}
        self._paused = False
        self.assigned = [(topic, number, at) for (topic, number), at in self._next.items()]

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        """The next messages, partition by partition."""
        self._step("poll")
        found: list[Message] = []
        for place, messages in self._log.messages.items():
            if not self._paused:
                start = self._next.get(place, 0)
                taken = messages[start : start + max_messages - len(found)]
                self._next[place] = start + len(taken)
                found += taken
        if not found and not self._paused:
            self._on_empty()
        return found

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Store the offsets in the log."""
        self._step("commit")
        self._log.committed.update(offsets)

    def pause(self) -> None:
        """Give nothing until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Give messages again."""
        self._paused = False

    def close(self) -> None:
        """Nothing to let go of."""


class MemoryLetterBox:
    """Keeps what is delivered, as `(topic, key, name, document)`."""

    def __init__(self, step: Step = _no_step) -> None:
        self._step = step
        self.letters: list[tuple[str, str, str, Mapping[str, Any]]] = []

    def deliver(
        self, messages: Iterable[tuple[str, str, str, Mapping[str, Any]]], timeout: float
    ) -> None:
        """Keep the messages."""
        for message in messages:
            self._step("deliver")
            self.letters.append(message)

    def close(self, timeout: float) -> int:
        """Nothing to let go of."""
        return 0

    @property
    def reasons(self) -> list[str]:
        """The reasons, each message once."""
        return list({doc["uid"]: doc["reason"] for _, _, _, doc in self.letters}.values())
