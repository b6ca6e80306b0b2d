"""One suite for the bus: on the fake, on the embedded Kafka and on a facility's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from bluesky_plugins.messaging import (
    CommitFailed,
    Consumer,
    EncodingError,
    MessagingError,
    Producer,
    TopicReader,
    decode,
    make_topics,
)
from bluesky_plugins.testing import FakeBus, FakeConsumer, FakeProducer, FakeReader

pytestmark = [pytest.mark.contract, pytest.mark.timeout(400)]

SECONDS = 30.0
PARTITIONS = 4


class Memory:
    topics = ("t.bluesky.documents", "t.bluesky.adaptive")

    def __init__(self) -> None:
        self._bus = FakeBus(self.topics, PARTITIONS)
        self.producer = FakeProducer(self._bus)

    def consumer(self, *topics: str, **more: Any) -> Any:
        return FakeConsumer(self._bus, topics or self.topics[:1], group_id="g", **more)

    def reader(self, topic: str) -> Any:
        return FakeReader(self._bus, topic)

    def close(self) -> None:
        self.producer.close()


class Kafka:
    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self._group = uuid4().hex
        make_topics(settings)
        self.topics = (settings.topic("documents"), settings.topic("adaptive"))
        self.producer = Producer(settings)

    def consumer(self, *topics: str, **more: Any) -> Any:
        names = topics or self.topics[:1]
        return Consumer(self._settings, names, group_id=self._group, **more)

    def reader(self, topic: str) -> Any:
        return TopicReader(self._settings, topic)

    def close(self) -> None:
        self.producer.close()


@pytest.fixture(params=["fake", "embedded", "facility"])
def bus(request: pytest.FixtureRequest) -> Iterator[Any]:
    unused: dict[str, Any] = {"mongo": {"uri": None}, "redis": {"url": None}}
    make_settings = request.getfixturevalue("make_settings")
    if request.param == "fake":
        made: Any = Memory()
    elif request.param == "embedded":
        made = Kafka(make_settings(**unused))
    else:
        section = request.getfixturevalue("facility_kafka").section()
        made = Kafka(make_settings(kafka=section, **unused))
    yield made
    made.close()


def send(bus: Any, numbers: range, key: str = "run") -> None:
    for n in numbers:
        bus.producer.send(bus.topics[0], key, "event", {"n": n})
    assert bus.producer.flush(SECONDS) == 0


def take(source: Any, count: int, seconds: float = SECONDS) -> list[Any]:
    found: list[Any] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        found += source.poll(count - len(found), 0.05)
    return found


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not (held := condition()) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return held


def values(messages: list[Any]) -> list[int]:
    return [decode(message.value)[1]["n"] for message in messages]


def test_documents_of_one_key_stay_in_order_on_one_partition(bus: Any) -> None:
    for n in range(40):
        bus.producer.send(bus.topics[0], f"run{n % 4}", "event", {"n": n})
    bus.producer.flush(SECONDS)
    reader = bus.reader(bus.topics[0])
    reader.start("beginning", SECONDS)
    found = take(reader, 40)
    reader.close()
    for key in {message.key for message in found}:
        own = [message for message in found if message.key == key]
        assert len({message.partition for message in own}) == 1
        assert values(own) == sorted(values(own))


def test_consumer_goes_on_after_its_last_commit(bus: Any) -> None:
    send(bus, range(10))
    first = bus.consumer(instance="0")
    taken = take(first, 10)

    def committed() -> bool:
        try:
            first.commit({(taken[0].topic, taken[0].partition): taken[4].offset})
        except CommitFailed:  # not answered in time: to be tried again, after a poll
            first.poll(1, 0.05)
            return False
        return True

    assert until(committed)
    first.close()
    second = bus.consumer(instance="0")
    assert values(take(second, 6)) == list(range(4, 10))
    second.close()


def test_assignment_comes_before_its_messages(bus: Any) -> None:
    send(bus, range(5))
    told: list[Any] = []
    consumer = bus.consumer(instance="0", on_assign=told.extend)
    take(consumer, 1)
    assert sorted(told) == [(bus.topics[0], p, 0) for p in range(PARTITIONS)]
    consumer.close()


def test_group_shares_the_partitions_and_tells_what_is_given_up(bus: Any) -> None:
    mine: dict[str, set[Any]] = {"0": set(), "1": set()}

    def joined(instance: str) -> Any:
        def taken(places: Any) -> None:
            mine[instance] |= {place[:2] for place in places}

        def given(places: Any) -> None:
            mine[instance] -= set(places)

        return bus.consumer(*bus.topics, instance=instance, on_assign=taken, on_revoke=given)

    first = joined("0")
    assert until(lambda: first.poll(1, 0.05) == [] and len(mine["0"]) == 2 * PARTITIONS)
    second = joined("1")

    def shared() -> bool:
        for member in (first, second):
            member.poll(1, 0.05)
        return len(mine["0"]) == len(mine["1"]) == PARTITIONS

    assert until(shared)
    assert not mine["0"] & mine["1"]
    for places in mine.values():
        by_topic = [{p for t, p in places if t == topic} for topic in bus.topics]
        assert by_topic[0] == by_topic[1]
    first.close()
    second.close()


def test_paused_consumer_returns_nothing_and_then_goes_on(bus: Any) -> None:
    send(bus, range(10))
    consumer = bus.consumer(instance="0")
    first = take(consumer, 3)
    consumer.pause()
    assert take(consumer, 1, 0.5) == []
    consumer.resume()
    assert values(first + take(consumer, 7)) == list(range(10))
    consumer.close()


def test_seek_reads_again(bus: Any) -> None:
    send(bus, range(5))
    consumer = bus.consumer(instance="0")
    found = take(consumer, 5)
    consumer.seek(found[0].topic, found[0].partition, 2)
    assert values(take(consumer, 3)) == [2, 3, 4]
    consumer.close()


def test_reader_at_the_end_gets_only_what_comes(bus: Any) -> None:
    send(bus, range(5))
    reader = bus.reader(bus.topics[0])
    begin = reader.start("end", SECONDS)
    assert begin == reader.ends(SECONDS)
    send(bus, range(5, 8))
    assert values(take(reader, 3)) == [5, 6, 7]
    reader.close()


def test_reader_starts_at_given_offsets(bus: Any) -> None:
    send(bus, range(5))
    reader = bus.reader(bus.topics[0])
    [partition] = [p for p, end in reader.ends(SECONDS).items() if end]
    reader.start({partition: 3}, SECONDS)
    assert values(take(reader, 2)) == [3, 4]
    reader.close()


def test_reader_names_a_topic_that_is_not_there(bus: Any) -> None:
    reader = bus.reader("not.there.at_all")
    # It connects first: what has not answered by then is named by its address.
    with pytest.raises(MessagingError, match=r"not\.there"):
        reader.start("end", 5.0)
    reader.close()


def test_delivered_is_there(bus: Any) -> None:
    bus.producer.deliver([(bus.topics[0], "k", "event", {"n": n}) for n in (1, 2)], SECONDS)
    assert sum(bus.reader(bus.topics[0]).ends(SECONDS).values()) == 2


def test_delivering_what_cannot_be_encoded_says_so(bus: Any) -> None:
    with pytest.raises(EncodingError, match="does not travel"):
        bus.producer.deliver([(bus.topics[0], "k", "event", {"n": object()})], SECONDS)


def test_sending_what_cannot_be_encoded_does_not_raise(bus: Any) -> None:
    bus.producer.send(bus.topics[0], "k", "event", {"n": object()})
    send(bus, range(1))
    assert sum(bus.reader(bus.topics[0]).ends(SECONDS).values()) == 1
