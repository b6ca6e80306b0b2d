"""What needs no real broker: librdkafka's own mock broker, or none."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer

from bluesky_plugins.messaging import Producer, decode, process_producer
from bluesky_plugins.messaging.codes import FATAL
from bluesky_plugins.settings import KafkaSettings, Settings

pytestmark = pytest.mark.timeout(240)
SECONDS = 60.0
NOBODY = "127.0.0.1:1"


def settings_of(tmp_path: Path, address: str = NOBODY, **properties: Any) -> Settings:
    kafka = KafkaSettings(
        bootstrap_servers=address, spool_dir=tmp_path / "spool", producer_config=properties
    )
    return Settings(beamline="unit", kafka=kafka)


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while not (held := condition()) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return held


@pytest.fixture(scope="module")
def mock_broker() -> Iterator[str]:
    import confluent_kafka

    host = confluent_kafka.Producer({"test.mock.num.brokers": 1})
    brokers = host.list_topics(timeout=SECONDS).brokers
    yield ",".join(f"{b.host}:{b.port}" for b in brokers.values())
    host.close()  # until here it is the broker


def arrived(address: str, topic: str, count: int) -> list[int]:
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "unit",
            "fetch.wait.max.ms": 20,
            "auto.offset.reset": "earliest",
        }
    )
    from confluent_kafka import TopicPartition

    partitions = consumer.list_topics(topic, timeout=SECONDS).topics[topic].partitions
    consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
    found: list[int] = []
    deadline = time.monotonic() + SECONDS
    while len(found) < count and time.monotonic() < deadline:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            found.append(decode(message.value())[1]["n"])
    consumer.close()
    return found


def send(producer: Producer, topic: str, numbers: range) -> None:
    for n in numbers:
        producer.send(topic, "key", "event", {"n": n})


def test_after_a_fatal_error_a_new_one_goes_on(
    tmp_path: Path, mock_broker: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Fatal:
        def code(self) -> int:
            return FATAL

        def fatal(self) -> bool:
            return True

    producer = Producer(settings_of(tmp_path, mock_broker))
    send(producer, "fatal", range(10))
    assert producer.flush(SECONDS) == 0
    old = producer._kafka
    producer._note(Fatal())  # type: ignore[arg-type]
    send(producer, "fatal", range(10, 20))
    assert until(lambda: producer._kafka is not old and producer.unsent == 0)
    producer.close()
    assert sorted(set(arrived(mock_broker, "fatal", 20))) == list(range(20))
    assert "a new one goes on" in caplog.text


def test_outage_is_said_once_and_librdkafka_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    producer = Producer(settings_of(tmp_path))
    assert until(lambda: not producer.healthy)
    threading.Event().wait(1.5)
    producer.close(0.0)
    said = [r.message for r in caplog.records if r.levelname != "DEBUG"]
    assert said == [f"Kafka at {NOBODY} does not answer"]
    assert "FAIL" not in capfd.readouterr().err


def test_flush_returns_early_when_nobody_answers(tmp_path: Path) -> None:
    producer = Producer(settings_of(tmp_path))
    send(producer, "t", range(5))
    begin = time.monotonic()
    assert producer.flush(30.0) == 5
    assert time.monotonic() - begin < 10.0
    producer.close(0.0)


def test_without_a_spool_the_unsent_are_counted_at_the_end(tmp_path: Path) -> None:
    producer = Producer(settings_of(tmp_path), spool=False)
    send(producer, "t", range(5))
    assert producer.close(0.0) == 5
    assert not (tmp_path / "spool").exists()


def test_document_after_the_end_is_said_to_be_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    producer = Producer(settings_of(tmp_path))
    producer.close(0.0)
    send(producer, "t", range(1))
    assert "LOST" in caplog.text


def test_topic_that_kafka_cannot_have_is_a_dead_letter_that_ends_somewhere(
    tmp_path: Path, mock_broker: str
) -> None:
    producer = Producer(settings_of(tmp_path, mock_broker, **{"message.max.bytes": 1000}))
    producer.send("unit.bluesky.dead_letters", "k", "event", {"a": "x" * 2000})
    producer.send("unit.bluesky.documents", "k", "event", {"a": object(), "b": "x" * 2000})
    assert producer.flush(SECONDS) == 0
    producer.close()


def test_process_has_one_producer_for_each_kafka(tmp_path: Path) -> None:
    here, there = settings_of(tmp_path), settings_of(tmp_path, "127.0.0.1:2")
    first = process_producer(here)
    other = process_producer(there)
    assert process_producer(here) is first is not other
    for producer in (first, other):
        producer.close(0.0)


def test_closed_producer_of_the_process_is_replaced(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    first = process_producer(settings)
    first.close(0.0)
    second = process_producer(settings)
    assert second is not first
    second.close(0.0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_child_sends_on_its_own_and_ends(tmp_path: Path, mock_broker: str) -> None:
    producer = Producer(settings_of(tmp_path, mock_broker))
    send(producer, "fork", range(5))
    assert producer.flush(SECONDS) == 0
    child = os.fork()
    if child == 0:
        send(producer, "fork", range(5, 10))
        left = producer.flush(SECONDS)
        producer.close()
        os._exit(left)
    _, status = os.waitpid(child, 0)
    send(producer, "fork", range(10, 15))
    assert producer.flush(SECONDS) == 0
    producer.close()
    assert os.waitstatus_to_exitcode(status) == 0
    assert sorted(arrived(mock_broker, "fork", 15)) == list(range(15))


def test_many_threads_send_each_in_its_order(tmp_path: Path, mock_broker: str) -> None:
    producer = Producer(settings_of(tmp_path, mock_broker, **{"queue.buffering.max.messages": 50}))

    def sending(begin: int) -> None:
        send(producer, "threads", range(begin, begin + 500))

    threads = [threading.Thread(target=sending, args=(n * 1000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert until(lambda: producer.unsent == 0)
    producer.close()
    found = arrived(mock_broker, "threads", 2000)
    for n in range(4):
        assert [x for x in found if x // 1000 == n] == list(range(n * 1000, n * 1000 + 500))
