"""The rules of the road, on a real Kafka that is killed, frozen and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bluesky_plugins.messaging import (
    CommitFailed,
    Consumer,
    Fenced,
    MessageTooLarge,
    MessagingError,
    NotDelivered,
    Producer,
    TopicReader,
    decode,
    make_topics,
    partition_counts,
)
from bluesky_plugins.messaging.segment import Segment
from bluesky_plugins.settings import Settings

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

# It only bounds a hang: a busy machine takes ten times as long as an idle one.
SECONDS = 90.0


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    made = make_settings(mongo={"uri": None}, redis={"url": None})
    make_topics(made)
    return made


@pytest.fixture
def private(make_settings: Callable[..., Settings], private_kafka: Any) -> Settings:
    kafka = {"bootstrap_servers": private_kafka.address}
    made = make_settings(kafka=kafka, mongo={"uri": None}, redis={"url": None})
    make_topics(made)
    return made


@pytest.fixture
def producer(settings: Settings) -> Iterator[Producer]:
    made = Producer(settings)
    yield made
    made.close(0.0)


def until(condition: Callable[[], bool], seconds: float = SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.02)
    return True


def read_all(settings: Settings, topic: str, count: int, *, extra: float = 0.5) -> list[Any]:
    """`count` documents of a topic, and whatever comes after them."""
    reader = TopicReader(settings, topic)
    reader.start("beginning", SECONDS)
    found: list[Any] = []
    deadline = time.monotonic() + SECONDS
    while len(found) < count and time.monotonic() < deadline:
        found += reader.poll(5000, 0.2)
    found += reader.poll(5000, extra)
    reader.close()
    return [decode(each.value) for each in found]


def numbers(settings: Settings, topic: str, count: int) -> list[int]:
    return [doc["n"] for _, doc in read_all(settings, topic, count)]


def send_numbers(producer: Producer, topic: str, begin: int, end: int) -> None:
    for n in range(begin, end):
        producer.send(topic, "key", "event", {"n": n, "data": {"det": 1.0}})


# -- producer -------------------------------------------------------------------------------


def test_documents_arrive_in_order(settings: Settings, producer: Producer) -> None:
    topic = settings.topic("documents")
    send_numbers(producer, topic, 0, 1000)
    assert producer.flush(SECONDS) == 0
    assert numbers(settings, topic, 1000) == list(range(1000))


def test_broker_killed_in_the_middle_loses_and_doubles_nothing(
    private: Settings, private_kafka: Any
) -> None:
    topic = private.topic("documents")
    producer = Producer(private)
    send_numbers(producer, topic, 0, 7000)
    private_kafka.kill()
    send_numbers(producer, topic, 7000, 14000)
    assert until(lambda: not producer.healthy)
    send_numbers(producer, topic, 14000, 21000)
    private_kafka.start()
    assert until(lambda: producer.unsent == 0)
    producer.close()
    assert numbers(private, topic, 21000) == list(range(21000))


@pytest.mark.timed
def test_send_returns_at_once_and_flush_too_while_the_broker_is_down(
    private: Settings, private_kafka: Any
) -> None:
    producer = Producer(private)
    private_kafka.kill()
    assert until(lambda: not producer.healthy)
    begin = time.monotonic()
    send_numbers(producer, private.topic("documents"), 0, 1000)
    assert producer.flush(5.0) == 1000
    assert time.monotonic() - begin < 1.0
    producer.close(0.0)


def test_overflow_goes_to_the_spool_and_is_sent_in_order(
    make_settings: Callable[..., Settings], private_kafka: Any
) -> None:
    small = {"queue.buffering.max.messages": 100}
    kafka = {"bootstrap_servers": private_kafka.address, "producer_config": small}
    settings = make_settings(kafka=kafka, mongo={"uri": None}, redis={"url": None})
    make_topics(settings)
    topic = settings.topic("documents")
    producer = Producer(settings)
    send_numbers(producer, topic, 0, 10)
    assert producer.flush(SECONDS) == 0
    private_kafka.freeze()  # connections stay: nothing says that it is away
    send_numbers(producer, topic, 10, 5000)
    spooled = list(settings.spool_dir.glob("*/*.spool"))
    private_kafka.thaw()
    assert spooled
    send_numbers(producer, topic, 5000, 6000)
    assert until(lambda: producer.unsent == 0)
    producer.close()
    assert numbers(settings, topic, 6000) == list(range(6000))
    assert not list(settings.spool_dir.glob("*/*"))


def test_unsent_at_exit_is_sent_first_by_the_next_process(
    private: Settings, private_kafka: Any
) -> None:
    topic = private.topic("documents")
    private_kafka.kill()
    first = Producer(private)
    send_numbers(first, topic, 0, 500)
    assert first.close(0.2) == 500
    private_kafka.start()
    second = Producer(private)
    send_numbers(second, topic, 500, 600)
    assert until(lambda: second.unsent == 0)
    second.close()
    assert numbers(private, topic, 600) == list(range(600))


CHILD = """
import sys, threading
from bluesky_plugins.messaging import process_producer
from bluesky_plugins.settings import load_settings
settings = load_settings()
producer = process_producer(settings)
topic, begin, end, how = sys.argv[1:]
for n in range(int(begin), int(end)):
    producer.send(topic, "key", "event", {"n": n})
while producer.unsent and how == "acknowledged":
    threading.Event().wait(0.01)
if how == "outage":
    while producer.healthy:
        threading.Event().wait(0.01)
    print("sent", flush=True)
    threading.Event().wait(600)
"""


def child(settings: Settings, topic: str, begin: int, end: int, how: str) -> Any:
    environment = os.environ | {
        "BLUESKY_PLUGINS_BEAMLINE": settings.beamline,
        "BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.address,
        "BLUESKY_PLUGINS_KAFKA__SPOOL_DIR": str(settings.spool_dir),
    }
    argv = [sys.executable, "-c", CHILD, topic, str(begin), str(end), how]
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)


def run_child(settings: Settings, topic: str, begin: int, end: int, how: str) -> None:
    process = child(settings, topic, begin, end, how)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 0


def on_disk(settings: Settings) -> int:
    """Number of messages that lie in the spools of all processes."""
    return sum(Segment.existing(path).left for path in settings.spool_dir.glob("*/*.spool"))


def test_process_that_exits_in_an_outage_leaves_its_documents_to_the_next(
    private: Settings, private_kafka: Any
) -> None:
    topic = private.topic("documents")
    private_kafka.kill()
    run_child(private, topic, 0, 300, "exit")
    private_kafka.start()
    # At its exit a process waits 5 s at most, which may be too short on a busy machine.
    run_child(private, topic, 300, 400, "acknowledged")
    assert numbers(private, topic, 400) == list(range(400))


def test_process_killed_in_an_outage_leaves_its_documents_to_the_next(
    private: Settings, private_kafka: Any
) -> None:
    topic = private.topic("documents")
    private_kafka.kill()
    process = child(private, topic, 0, 300, "outage")
    assert process.stdout.readline() == "sent\n"
    assert until(lambda: on_disk(private) == 300)
    process.kill()
    process.communicate()
    private_kafka.start()
    run_child(private, topic, 300, 400, "acknowledged")
    assert numbers(private, topic, 400) == list(range(400))


def test_spool_of_a_living_process_is_left_alone(private: Settings, private_kafka: Any) -> None:
    topic = private.topic("documents")
    private_kafka.kill()
    process = child(private, topic, 0, 50, "outage")
    assert process.stdout.readline() == "sent\n"
    assert until(lambda: on_disk(private) == 50)
    other = Producer(private)
    assert other.unsent == 0
    other.close(0.0)
    process.kill()
    process.communicate()


def test_document_larger_than_the_limit_is_a_dead_letter_and_the_rest_arrives(
    settings: Settings, producer: Producer
) -> None:
    topic = settings.topic("documents")
    big = "x" * (settings.kafka.max_message_bytes + 1)
    producer.send(topic, "key", "event", {"n": 0})
    producer.send(topic, "key", "event", {"big": big})
    producer.send(topic, "key", "event", {"n": 1})
    assert producer.flush(SECONDS) == 0
    assert numbers(settings, topic, 2) == [0, 1]
    [(name, letter)] = read_all(settings, settings.topic("dead_letters"), 1)
    assert (name, letter["topic"], letter["key"]) == ("dead_letter", topic, b"key")
    assert letter["size"] > settings.kafka.max_message_bytes > len(letter["value"])


def test_document_that_only_the_broker_finds_too_large_is_a_dead_letter(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(mongo={"uri": None}, redis={"url": None})
    make_topics(settings.model_copy(update={"kafka": _smaller(settings, 1_000_000)}))
    topic = settings.topic("documents")
    producer = Producer(settings)
    send_numbers(producer, topic, 0, 100)
    producer.send(topic, "key", "event", {"big": os.urandom(2_000_000)})
    send_numbers(producer, topic, 100, 200)
    assert producer.flush(SECONDS) == 0
    assert producer.close() == 0
    assert numbers(settings, topic, 200) == list(range(200))
    [(_, letter)] = read_all(settings, settings.topic("dead_letters"), 1)
    assert "refused" in letter["reason"]


def _smaller(settings: Settings, limit: int) -> Any:
    return settings.kafka.model_copy(update={"max_message_bytes": limit})


def test_document_that_cannot_be_encoded_is_a_dead_letter(
    settings: Settings, producer: Producer
) -> None:
    producer.send(settings.topic("documents"), "key", "event", {"what": object()})
    assert producer.flush(SECONDS) == 0
    [(_, letter)] = read_all(settings, settings.topic("dead_letters"), 1)
    assert "object does not travel" in letter["reason"]


def test_awaited_document_is_not_gathered_with_others(
    make_settings: Callable[..., Settings],
) -> None:
    kafka = {"producer_config": {"linger.ms": 600_000}}  # longer than `until` waits
    settings = make_settings(kafka=kafka, mongo={"uri": None}, redis={"url": None})
    make_topics(settings)
    reader = TopicReader(settings, settings.topic("adaptive"))
    reader.start("end", SECONDS)
    producer = Producer(settings)

    def arrives() -> bool:
        producer.send(settings.topic("adaptive"), "b", "stop", {}, soon=True)
        return bool(reader.poll(1, 0.2))

    assert until(arrives)
    reader.close()
    producer.close()


def test_deliver_returns_when_all_is_acknowledged(settings: Settings) -> None:
    producer = Producer(settings, spool=False)
    topic = settings.topic("suggestions")
    producer.deliver([(topic, "b", "suggestion", {"n": n}) for n in range(10)], SECONDS)
    assert numbers(settings, topic, 10) == list(range(10))
    producer.close()


def test_deliver_says_when_it_was_not_acknowledged_and_does_not_double_it(
    private: Settings, private_kafka: Any
) -> None:
    producer = Producer(private, spool=False)
    topic = private.topic("suggestions")
    private_kafka.freeze()
    for _ in range(3):
        with pytest.raises(NotDelivered):
            producer.deliver([(topic, "b", "suggestion", {"n": 1})], 0.2)
    private_kafka.thaw()
    producer.deliver([(topic, "b", "suggestion", {"n": 1})], SECONDS)
    producer.close()
    assert numbers(private, topic, 1) == [1]


def test_deliver_says_when_a_document_is_too_large(settings: Settings) -> None:
    producer = Producer(settings, spool=False)
    big = {"big": "x" * settings.kafka.max_message_bytes}
    with pytest.raises(MessageTooLarge):
        producer.deliver([(settings.topic("jobs"), "j", "job", big)], SECONDS)
    producer.close()


def test_topic_that_is_made_late_gets_what_was_sent_before(
    make_settings: Callable[..., Settings],
) -> None:
    settings = make_settings(mongo={"uri": None}, redis={"url": None})
    producer = Producer(settings)
    send_numbers(producer, settings.topic("documents"), 0, 100)
    make_topics(settings)
    assert until(lambda: producer.unsent == 0)
    producer.close()
    assert numbers(settings, settings.topic("documents"), 100) == list(range(100))


# -- consumer -------------------------------------------------------------------------------


def consumer_of(settings: Settings, *topics: str, instance: str = "0", **more: Any) -> Consumer:
    names = [settings.topic(topic) for topic in topics or ("documents",)]
    return Consumer(settings, names, group_id="group", instance=instance, **more)


def take(consumer: Consumer, count: int, seconds: float = SECONDS) -> list[Any]:
    found: list[Any] = []
    deadline = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        found += consumer.poll(count - len(found), 0.2)
    return found


def nexts(messages: list[Any]) -> dict[tuple[str, int], int]:
    return {(m.topic, m.partition): m.offset + 1 for m in messages}


def commit(consumer: Consumer, offsets: Mapping[tuple[str, int], int]) -> None:
    """Commit; what a busy broker does not answer in time is committed again, after a poll."""

    def committed() -> bool:
        try:
            consumer.commit(offsets)
        except CommitFailed:
            consumer.poll(1, 0.1)
            return False
        return True

    assert until(committed)


def test_consumer_goes_on_where_the_last_commit_was(settings: Settings, producer: Producer) -> None:
    send_numbers(producer, settings.topic("documents"), 0, 10)
    producer.flush(SECONDS)
    first = consumer_of(settings)
    taken = take(first, 10)
    commit(first, nexts(taken[:4]))
    first.close()
    second = consumer_of(settings)
    assert [decode(m.value)[1]["n"] for m in take(second, 6)] == list(range(4, 10))
    second.close()


def test_uncommitted_messages_come_again(settings: Settings, producer: Producer) -> None:
    send_numbers(producer, settings.topic("documents"), 0, 5)
    producer.flush(SECONDS)
    first = consumer_of(settings)
    assert len(take(first, 5)) == 5
    first.close()
    second = consumer_of(settings)
    assert len(take(second, 5)) == 5
    second.close()


def test_assignment_is_told_with_the_next_offsets_before_the_first_message(
    settings: Settings, producer: Producer
) -> None:
    send_numbers(producer, settings.topic("documents"), 0, 10)
    producer.flush(SECONDS)
    first = consumer_of(settings)
    taken = take(first, 10)
    commit(first, nexts(taken[:4]))
    first.close()
    told: list[Any] = []
    second = consumer_of(settings, on_assign=told.append)
    message = take(second, 1)[0]
    offsets = {(t, p): offset for t, p, offset in told[0]}
    assert len(offsets) == settings.kafka.partitions
    assert offsets[message.topic, message.partition] == 4
    second.close()


def test_two_topics_are_shared_out_alike(settings: Settings) -> None:
    told: dict[str, list[Any]] = {"0": [], "1": []}
    members = [
        consumer_of(settings, "adaptive", "suggestions", instance=i, on_assign=told[i].append)
        for i in told
    ]

    def shared() -> bool:
        for member in members:
            member.poll(1, 0.05)
        return all(each and len(each[-1]) == 4 for each in told.values())

    assert until(shared)
    for each in told.values():
        by_topic = {name: {p for t, p, _ in each[-1] if t == name} for name, _, _ in each[-1]}
        adaptive, suggestions = by_topic.values()
        assert adaptive == suggestions
    for member in members:
        member.close()


READER = """
import sys
from bluesky_plugins.messaging import Consumer
from bluesky_plugins.settings import load_settings
settings = load_settings()
consumer = Consumer(settings, [settings.topic("documents")], group_id="group", instance="0")
while not (found := consumer.poll(1, 1.0)):
    pass
consumer.commit({(found[0].topic, found[0].partition): found[0].offset + 1})
print("committed", flush=True)
while True:
    consumer.poll(1, 1.0)
"""


@pytest.mark.timed
def test_killed_consumer_goes_on_at_once(settings: Settings, producer: Producer) -> None:
    send_numbers(producer, settings.topic("documents"), 0, 10)
    producer.flush(SECONDS)
    environment = os.environ | {
        "BLUESKY_PLUGINS_BEAMLINE": settings.beamline,
        "BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.address,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", READER], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "committed\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    begin = time.monotonic()
    consumer = consumer_of(settings)
    [message] = take(consumer, 1)
    # Without the static membership: the session of 6 s must pass first.
    assert time.monotonic() - begin < 3.0
    assert decode(message.value)[1]["n"] == 1
    consumer.close()


def test_two_processes_with_the_same_instance_do_not_both_go_on(settings: Settings) -> None:
    members = [consumer_of(settings), consumer_of(settings)]

    def fenced() -> bool:
        for member in members:
            try:
                member.poll(1, 0.1)
            except Fenced:
                return True
        return False

    assert until(fenced)
    for member in members:
        member.close()


def test_commit_before_it_has_joined_fails_and_fences_nobody(
    settings: Settings, producer: Producer
) -> None:
    send_numbers(producer, settings.topic("documents"), 0, 10)
    first = consumer_of(settings)
    offsets = nexts(take(first, 10))
    first.close()
    consumer = consumer_of(settings)
    with pytest.raises(CommitFailed, match="has not joined"):
        consumer.commit(offsets)
    take(consumer, 10)
    consumer.commit(offsets)
    consumer.close()


def test_paused_consumer_keeps_its_place(settings: Settings, producer: Producer) -> None:
    told: list[Any] = []
    consumer = consumer_of(settings, on_revoke=told.append)
    topic = settings.topic("documents")
    send_numbers(producer, topic, 0, 100)
    producer.flush(SECONDS)
    first = take(consumer, 10)
    consumer.pause()
    assert take(consumer, 1, 8.0) == []  # longer than a session
    consumer.resume()
    rest = take(consumer, 90)
    assert [decode(m.value)[1]["n"] for m in first + rest] == list(range(100))
    assert told == []
    consumer.close()


def test_seek_reads_again(settings: Settings, producer: Producer) -> None:
    send_numbers(producer, settings.topic("documents"), 0, 10)
    producer.flush(SECONDS)
    consumer = consumer_of(settings)
    found = take(consumer, 10)
    consumer.seek(found[0].topic, found[0].partition, found[3].offset)
    assert [decode(m.value)[1]["n"] for m in take(consumer, 7)] == list(range(3, 10))
    consumer.close()


def test_consumer_goes_on_after_an_outage_and_says_so_once(
    private: Settings, private_kafka: Any, caplog: pytest.LogCaptureFixture
) -> None:
    topic = private.topic("documents")
    producer = Producer(private)
    send_numbers(producer, topic, 0, 10)
    producer.flush(SECONDS)
    consumer = consumer_of(private)
    commit(consumer, nexts(take(consumer, 10)))
    private_kafka.kill()
    assert take(consumer, 1, 3.0) == []
    send_numbers(producer, topic, 10, 20)
    private_kafka.start()
    assert [decode(m.value)[1]["n"] for m in take(consumer, 10)] == list(range(10, 20))
    said = [r.message for r in caplog.records if r.name.endswith("messaging.consumer")]
    assert len([m for m in said if "does not answer" in m]) == 1
    consumer.close()
    producer.close()


def test_commit_in_an_outage_fails_and_can_be_repeated(
    private: Settings, private_kafka: Any
) -> None:
    producer = Producer(private)
    send_numbers(producer, private.topic("documents"), 0, 10)
    producer.flush(SECONDS)
    producer.close()
    consumer = consumer_of(private)
    offsets = nexts(take(consumer, 10))
    private_kafka.kill()
    begin = time.monotonic()
    with pytest.raises(CommitFailed):
        consumer.commit(offsets)
    assert time.monotonic() - begin < 15.0
    private_kafka.start()
    commit(consumer, offsets)
    consumer.close()


def test_commit_ends_when_the_membership_was_lost_before_it(
    private: Settings, private_kafka: Any
) -> None:
    topic = private.topic("documents")
    producer = Producer(private)
    send_numbers(producer, topic, 0, 10)
    producer.flush(SECONDS)
    consumer = consumer_of(private)
    offsets = nexts(take(consumer, 10))
    private_kafka.freeze()
    # Longer than the session (6 s), in which nobody polls: librdkafka gives the membership up, and
    # waits for `poll` to tell so.
    threading.Event().wait(8.0)
    private_kafka.thaw()
    ended = threading.Event()

    def commit() -> None:
        with contextlib.suppress(CommitFailed):
            consumer.commit(offsets)
        ended.set()

    threading.Thread(target=commit, daemon=True).start()
    assert ended.wait(10.0)
    send_numbers(producer, topic, 10, 12)
    producer.flush(SECONDS)
    begin = time.monotonic()
    found: set[int] = set()
    while not {10, 11} <= found and time.monotonic() - begin < SECONDS:
        found |= {decode(m.value)[1]["n"] for m in consumer.poll(100, 0.2)}
    assert {10, 11} <= found
    consumer.close()
    producer.close()


def test_consumer_started_in_an_outage_begins_when_the_broker_is_there(
    private: Settings, private_kafka: Any
) -> None:
    private_kafka.kill()
    consumer = consumer_of(private)
    assert take(consumer, 1, 1.0) == []
    private_kafka.start()
    producer = Producer(private)
    send_numbers(producer, private.topic("documents"), 0, 3)
    assert len(take(consumer, 3)) == 3
    consumer.close()
    producer.close()


# -- reader and topics ----------------------------------------------------------------------


def test_reader_at_the_end_sees_everything_from_then_on(
    settings: Settings, producer: Producer
) -> None:
    topic = settings.topic("documents")
    send_numbers(producer, topic, 0, 10)
    producer.flush(SECONDS)
    reader = TopicReader(settings, topic)
    begin = reader.start("end", SECONDS)
    assert sum(begin.values()) == 10
    assert reader.ends(SECONDS) == begin
    send_numbers(producer, topic, 10, 20)
    found: list[Any] = []
    assert until(lambda: bool(found.extend(reader.poll(100, 0.1))) or len(found) >= 10)
    assert [decode(m.value)[1]["n"] for m in found] == list(range(10, 20))
    reader.close()


def test_reader_starts_at_given_offsets_and_at_a_time(
    settings: Settings, producer: Producer
) -> None:
    topic = settings.topic("documents")
    send_numbers(producer, topic, 0, 10)
    producer.flush(SECONDS)
    threading.Event().wait(0.05)
    when = time.time()
    send_numbers(producer, topic, 10, 20)
    producer.flush(SECONDS)
    by_time = TopicReader(settings, topic).start(when, SECONDS)
    assert sum(by_time.values()) == 10
    [partition] = [p for p, offset in by_time.items() if offset]
    reader = TopicReader(settings, topic)
    reader.start({partition: 15}, SECONDS)
    found: list[Any] = []
    assert until(lambda: bool(found.extend(reader.poll(100, 0.1))) or len(found) >= 5)
    assert decode(found[0].value)[1]["n"] == 15
    reader.close()


@pytest.mark.timed
def test_reader_fails_in_time_when_nobody_answers(private: Settings, private_kafka: Any) -> None:
    private_kafka.kill()
    reader = TopicReader(private, private.topic("documents"))
    begin = time.monotonic()
    with pytest.raises(MessagingError):
        reader.start("end", 1.0)
    assert time.monotonic() - begin < 5.0
    reader.close()


def test_reader_names_the_topic_that_is_not_there(settings: Settings) -> None:
    reader = TopicReader(settings, f"{settings.beamline}.nothing.here")
    with pytest.raises(MessagingError, match="no topic"):
        reader.start("end", 5.0)  # it connects first
    reader.close()


def test_topics_that_exist_keep_their_partitions(settings: Settings) -> None:
    more = settings.kafka.model_copy(update={"partitions": 7})
    make_topics(settings.model_copy(update={"kafka": more}))
    assert set(partition_counts(settings).values()) == {settings.kafka.partitions}


@pytest.mark.timed
def test_topics_fail_in_time_when_nobody_answers(private: Settings, private_kafka: Any) -> None:
    private_kafka.kill()
    begin = time.monotonic()
    with pytest.raises(MessagingError):
        make_topics(private, 1.0)
    assert time.monotonic() - begin < 5.0


# -- with bluesky-kafka ---------------------------------------------------------------------


def test_run_of_ours_is_read_by_bluesky_kafka(settings: Settings, producer: Producer) -> None:
    from bluesky_kafka import RemoteDispatcher

    topic = settings.topic("documents")
    documents = [("start", {"uid": str(uuid4())}), ("stop", {"uid": str(uuid4())})]
    for name, doc in documents:
        producer.send(topic, "run", name, doc)
    producer.flush(SECONDS)
    found: list[Any] = []
    dispatcher = RemoteDispatcher(
        topics=[topic],
        bootstrap_servers=settings.kafka.address,
        group_id=str(uuid4()),
        consumer_config={"auto.offset.reset": "earliest"},
        polling_duration=0.1,
    )
    dispatcher.subscribe(lambda name, doc: found.append((name, doc)))
    deadline = time.monotonic() + SECONDS
    dispatcher.start(continue_polling=lambda: len(found) < 2 and time.monotonic() < deadline)
    assert found == documents


def test_run_of_bluesky_kafka_is_read_by_us(settings: Settings) -> None:
    from bluesky_kafka import Publisher

    topic = settings.topic("documents")
    publisher = Publisher(
        topic=topic, bootstrap_servers=settings.kafka.address, key="k", producer_config={}
    )
    publisher("start", {"uid": "1", "hints": {"dimensions": [[["motor"], "primary"]]}})
    publisher.flush()
    found = read_all(settings, topic, 1)
    assert found == [("start", {"uid": "1", "hints": {"dimensions": [[["motor"], "primary"]]}})]


# -- launcher -------------------------------------------------------------------------------


def test_echo_for_people_outside_shows_documents_and_garbage(
    settings: Settings, producer: Producer
) -> None:
    topic = settings.topic("documents")
    send_numbers(producer, topic, 7, 8)
    producer.flush(SECONDS)
    producer._kafka.produce(topic, b"\x92\xa5start", b"key")
    producer.flush(SECONDS)
    producer._kafka.flush(SECONDS)
    script = Path(__file__).parents[2] / "launchers" / "kafka_echo_consumer.py"
    argv = [sys.executable, str(script), "--bootstrap-servers", settings.kafka.address]
    argv += ["--topics", topic, "--from-beginning", "--max-messages", "2", "--full"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=True)
    document, garbage = done.stdout.splitlines()
    assert "event" in document
    assert "'n': 7" in document
    assert "GARBAGE" in garbage


def test_echo_shows_what_comes_and_what_is_there(settings: Settings, producer: Producer) -> None:
    from bluesky_plugins.callbacks import echo_lines

    send_numbers(producer, settings.topic("documents"), 0, 2)
    producer.flush(SECONDS)
    there = list(echo_lines(settings, from_beginning=True, as_json=True, max_messages=2))
    ready, found = threading.Event(), []

    def watch() -> None:
        topics = ("documents", "adaptive")
        found.extend(echo_lines(settings, topics=topics, max_messages=2, ready=ready))

    thread = threading.Thread(target=watch)
    thread.start()
    assert ready.wait(SECONDS)
    send_numbers(producer, settings.topic("documents"), 2, 3)
    send_numbers(producer, settings.topic("adaptive"), 3, 4)
    thread.join(SECONDS)
    assert [json.loads(line)["doc"]["n"] for line in there] == [0, 1]
    assert sorted(line.split()[1] for line in found) == ["adaptive", "documents"]


ANSWERED_AND_KILLED = """
import os, signal
from bluesky_plugins.messaging import KafkaPublisher
from bluesky_plugins.testing.runs import composed_run
publishers = [KafkaPublisher("documents"), KafkaPublisher("adaptive")]
for count in range(20):
    run = composed_run(3, batch_id="b", batch_count=count)
    for name, doc in run:
        for publish in publishers:
            publish(name, doc)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.timed  # before what may be answered, the rest gets 0.25 s to arrive
@pytest.mark.parametrize("attempt", range(3))
def test_documents_of_a_run_that_may_be_answered_outlive_a_kill(
    settings: Settings, attempt: int
) -> None:
    prefix = "BLUESKY_PLUGINS_"
    environment = {
        **os.environ,
        f"{prefix}BEAMLINE": settings.beamline,
        f"{prefix}KAFKA__BOOTSTRAP_SERVERS": settings.kafka.address,
    }
    done = subprocess.run(
        [sys.executable, "-c", ANSWERED_AND_KILLED], env=environment, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    kept = read_all(settings, settings.topic("documents"), 20 * 6)
    assert [name for name, _ in kept].count("stop") == 20
