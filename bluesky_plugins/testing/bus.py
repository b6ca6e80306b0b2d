"""A bus in memory, with the producer, the consumer and the reader of `messaging`."""

from __future__ import annotations

import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bluesky_plugins.messaging import (
    BrokerUnreachable,
    CommitFailed,
    EncodingError,
    Fenced,
    Message,
    MessagingError,
    NotDelivered,
    encode,
)

__all__ = ["FakeBus", "FakeConsumer", "FakeProducer", "FakeReader"]

Outgoing = tuple[str, str, str, Mapping[str, Any]]
Place = tuple[str, int]


@dataclass
class _Group:
    members: dict[str, FakeConsumer] = field(default_factory=dict)
    committed: dict[Place, int] = field(default_factory=dict)


class FakeBus:
    """Topics in memory. Set `down` to have nobody answer. Not thread-safe.

    :param topics: full names of the topics that are there.
    :param partitions: of each topic.
    """

    def __init__(self, topics: Iterable[str], partitions: int = 4) -> None:
        self.down = False
        self.partitions = partitions
        self._logs: dict[str, list[list[Message]]] = {
            topic: [[] for _ in range(partitions)] for topic in topics
        }
        self._groups: defaultdict[str, _Group] = defaultdict(_Group)

    def put(self, topic: str, key: bytes, value: bytes | None) -> Message:
        """Append anything, garbage too.

        :raises MessagingError: if the topic is not there.
        """
        partition = zlib.crc32(key) % self.partitions
        log = self.log(topic, partition)
        message = Message(topic, partition, len(log), key, value, time.time())
        log.append(message)
        return message

    def log(self, topic: str, partition: int) -> list[Message]:
        """The messages of a partition.

        :raises MessagingError: if the topic is not there.
        """
        if topic not in self._logs:
            raise MessagingError(f"there is no topic {topic}")
        return self._logs[topic][partition]

    def messages(self, topic: str) -> list[Message]:
        """The messages of a topic, partition by partition."""
        return [message for p in range(self.partitions) for message in self.log(topic, p)]

    def group(self, group_id: str) -> _Group:
        """Members and offsets of a consumer group."""
        return self._groups[group_id]


class FakeProducer:
    """The methods of `Producer`, into a `FakeBus`; what is sent while it is down is kept."""

    def __init__(self, bus: FakeBus) -> None:
        self._bus = bus
        self._kept: list[tuple[str, bytes, bytes]] = []
        self.lost = 0
        self.refused: list[str] = []

    @property
    def unsent(self) -> int:
        """Number of messages that the bus has not got yet."""
        self._pass_on()
        return len(self._kept)

    @property
    def healthy(self) -> bool:
        """Whether the bus answers."""
        return not self._bus.down

    def send(
        self, topic: str, key: str, name: str, doc: Mapping[str, Any], *, soon: bool = False
    ) -> None:
        """Send; what cannot be encoded stands in `refused`."""
        try:
            self._kept.append((topic, key.encode(), encode(name, doc)))
        except EncodingError as error:
            self.refused.append(str(error))
        self._pass_on()

    def flush(self, timeout: float) -> int:
        """Number of messages that are unsent; it never waits."""
        return self.unsent

    def deliver(self, messages: Iterable[Outgoing], timeout: float) -> None:
        """Send all, or none.

        :raises NotDelivered: while the bus is down.
        :raises Undeliverable: if one cannot be encoded.
        """
        encoded = [(t, k.encode(), encode(n, d)) for t, k, n, d in messages]
        if self._bus.down:
            raise NotDelivered(f"{len(encoded)} of {len(encoded)} messages after {timeout} s")
        for each in encoded:
            self._bus.put(*each)

    def close(self, timeout: float = 5.0) -> int:
        """Number of messages that are unsent."""
        return self.unsent

    def _pass_on(self) -> None:
        while self._kept and not self._bus.down:
            self._bus.put(*self._kept.pop(0))


class FakeConsumer:
    """The methods of `Consumer`, from a `FakeBus`. The group shares out at the next `poll`."""

    def __init__(
        self,
        bus: FakeBus,
        topics: Sequence[str],
        *,
        group_id: str,
        instance: str,
        on_assign: Callable[[list[tuple[str, int, int]]], None] | None = None,
        on_revoke: Callable[[list[Place]], None] | None = None,
        offset_reset: str = "earliest",
    ) -> None:
        self._bus = bus
        self._topics = list(topics)
        self._group = bus.group(group_id)
        self._instance = instance
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._from_start = offset_reset == "earliest"
        self._next: dict[Place, int] = {}
        self._paused = False
        self._group.members[instance] = self

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        """The next messages; it never waits.

        :raises Fenced: if another one took this instance id.
        """
        if self._group.members.get(self._instance) is not self:
            raise Fenced(f"another one is {self._instance}")
        if self._bus.down:
            return []
        self._share_out()
        found: list[Message] = []
        for place in [] if self._paused else list(self._next):
            begin = self._next[place]
            taken = self._bus.log(*place)[begin : begin + max_messages - len(found)]
            self._next[place] = begin + len(taken)
            found += taken
        return found

    def commit(self, offsets: Mapping[Place, int]) -> None:
        """Store where to go on.

        :raises CommitFailed: while the bus is down, or for a partition of another member.
        """
        if self._bus.down or not offsets.keys() <= self._next.keys():
            raise CommitFailed("the offsets are not stored")
        self._group.committed.update(offsets)

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Go on at `offset`."""
        self._next[topic, partition] = offset

    def pause(self) -> None:
        """Let `poll` return nothing."""
        self._paused = True

    def resume(self) -> None:
        """End a pause."""
        self._paused = False

    def close(self) -> None:
        """Leave the group."""
        if self._group.members.get(self._instance) is self:
            del self._group.members[self._instance]
        self._take(set())

    def _share_out(self) -> None:
        names = sorted(self._group.members)
        mine = range(names.index(self._instance), self._bus.partitions, len(names))
        wanted = {(topic, p) for topic in self._topics for p in mine}
        if wanted != self._next.keys():
            for other in self._group.members.values():
                other._leave(wanted if other is not self else set())  # noqa: SLF001 - own class
            self._take(wanted)

    def _leave(self, places: set[Place]) -> None:
        if places & self._next.keys():
            self._take(set())

    def _take(self, places: set[Place]) -> None:
        if self._next and self._on_revoke is not None:
            self._on_revoke(list(self._next))
        self._next = {place: self._start_of(place) for place in sorted(places)}
        if places and self._on_assign is not None:
            self._on_assign([(t, p, offset) for (t, p), offset in self._next.items()])

    def _start_of(self, place: Place) -> int:
        end = len(self._bus.log(*place))
        return self._group.committed.get(place, 0 if self._from_start else end)


class FakeReader:
    """The methods of `TopicReader`, from a `FakeBus`."""

    def __init__(self, bus: FakeBus, topic: str) -> None:
        self._bus = bus
        self.topic = topic
        self._next: dict[int, int] = {}

    def start(self, where: str | float | Mapping[int, int], timeout: float) -> dict[int, int]:
        """Stand at a place in every partition.

        :raises BrokerUnreachable: while the bus is down.
        """
        ends = self.ends(timeout)
        if where == "end":
            self._next = ends
        elif isinstance(where, Mapping):
            self._next = {p: where.get(p, 0) for p in ends}
        elif isinstance(where, float):
            self._next = {p: self._first_after(p, where) for p in ends}
        else:
            self._next = dict.fromkeys(ends, 0)
        return dict(self._next)

    def ends(self, timeout: float) -> dict[int, int]:
        """Partition -> offset that the next message there will have.

        :raises BrokerUnreachable: while the bus is down.
        """
        if self._bus.down:
            raise BrokerUnreachable("the bus is down")
        return {p: len(self._bus.log(self.topic, p)) for p in range(self._bus.partitions)}

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        """The next messages; it never waits."""
        found: list[Message] = []
        for partition, begin in self._next.items() if not self._bus.down else ():
            log = self._bus.log(self.topic, partition)
            found += log[begin : begin + max_messages - len(found)]
        for message in found:
            self._next[message.partition] = message.offset + 1
        return found

    def close(self) -> None:
        """Nothing to let go of."""

    def _first_after(self, partition: int, when: float) -> int:
        log = self._bus.log(self.topic, partition)
        return next((m.offset for m in log if m.timestamp >= when), len(log))
