"""One suite for every road that suggestions take to a plan."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import redis
from bluesky import RunEngine
from ophyd.sim import SynAxis, SynGauss

from bluesky_plugins.adaptive import (
    KafkaSuggestions,
    QueueSuggestions,
    RedisSuggestions,
    StepRecommender,
    SuggestionChannel,
    SuggestionReader,
    recommender_factory,
)
from bluesky_plugins.messaging import MessagingError, Producer, encode, make_topics
from bluesky_plugins.plans import adaptive_plan
from bluesky_plugins.testing import FakeSuggestions, make_suggestion, make_waiting

# The servers may have to start first, three nodes of Kafka among them.
pytestmark = [pytest.mark.contract, pytest.mark.timeout(400)]
DEADLINE = 30.0


def started(reader: SuggestionReader) -> SuggestionReader:
    deadline = time.monotonic() + DEADLINE
    while not reader.start(0.2):
        assert time.monotonic() < deadline
    return reader


def read(reader: SuggestionReader, number: int) -> list[tuple[str, Any]]:
    """That many, or what came until the deadline."""
    found: list[tuple[str, Any]] = []
    deadline = time.monotonic() + DEADLINE
    while len(found) < number and time.monotonic() < deadline:
        found += reader.read(0.2)
    return found


def past(reader: SuggestionReader) -> list[tuple[str, Any]]:
    deadline = time.monotonic() + DEADLINE
    while (found := reader.history(0.2)) is None:
        assert time.monotonic() < deadline
    return found


# -- channels whose suggestions say what they answer ----------------------------------------


@dataclass
class Road:
    channel: SuggestionChannel
    publish: Callable[[str, dict[str, Any]], Any]


@pytest.fixture(params=["fake", "embedded", "facility"])
def road(request: pytest.FixtureRequest) -> Iterator[Road]:
    if request.param == "fake":
        topic = FakeSuggestions()
        yield Road(topic, topic.publish)
        return
    sections: dict[str, Any] = {
        "mongo": {"uri": "mongodb://unused"},
        "redis": {"url": "redis://unused"},
    }
    if request.param == "facility":
        sections["kafka"] = request.getfixturevalue("facility_kafka").section()
    settings = request.getfixturevalue("make_settings")(**sections)
    make_topics(settings)
    producer = Producer(settings, spool=False)

    def publish(name: str, doc: dict[str, Any]) -> None:
        message = (settings.topic("suggestions"), doc["batch_id"], name, doc)
        producer.deliver([message], DEADLINE)

    yield Road(KafkaSuggestions(settings), publish)
    producer.close()


def test_what_is_published_after_the_start_is_read_in_order(road: Road) -> None:
    road.publish("suggestion", make_suggestion("b", 0, {"motor": 9.0}))
    reader = started(road.channel.open("b"))
    docs = [make_suggestion("b", count, {"motor": 1.5 * count}) for count in range(20)]
    for doc in docs:
        road.publish("suggestion", doc)
    assert read(reader, 20) == [("suggestion", doc) for doc in docs]
    assert reader.read(0.1) == []
    reader.close()


def test_only_the_batch_of_the_reader_is_read(road: Road) -> None:
    reader = started(road.channel.open("b"))
    for batch in ("a", "bb", "b", "c"):
        road.publish("suggestion", make_suggestion(batch, 0))
    waiting = make_waiting("b", 0, seconds=1, reason="a job")
    road.publish("waiting", waiting)
    found = read(reader, 2)
    assert [(name, doc["batch_id"]) for name, doc in found] == [
        ("suggestion", "b"),
        ("waiting", "b"),
    ]
    assert found[1][1] == waiting
    reader.close()


def test_from_the_beginning_gives_the_past_and_then_the_new(road: Road) -> None:
    old = [make_suggestion("b", count) for count in range(3)]
    for doc in old:
        road.publish("suggestion", doc)
        road.publish("suggestion", make_suggestion("other", doc["batch_count"]))
    reader = started(road.channel.open("b", from_beginning=True))
    new = make_suggestion("b", 3)
    road.publish("suggestion", new)
    assert [doc for _, doc in past(reader)] == old
    assert read(reader, 1) == [("suggestion", new)]
    reader.close()


def test_a_batch_without_past_has_an_empty_one(road: Road) -> None:
    reader = started(road.channel.open("b", from_beginning=True))
    assert past(reader) == []
    reader.close()


def test_two_readers_of_a_batch_each_get_everything(road: Road) -> None:
    readers = [started(road.channel.open("b")) for _ in range(2)]
    road.publish("suggestion", make_suggestion("b", 0))
    assert [len(read(reader, 1)) for reader in readers] == [1, 1]
    for reader in readers:
        reader.close()


def test_closing_before_the_start_is_no_error(road: Road) -> None:
    road.channel.open("b").close()


def test_garbage_on_the_topic_is_passed_over(
    make_settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import confluent_kafka

    settings = make_settings(mongo={"uri": "mongodb://unused"}, redis={"url": "redis://unused"})
    make_topics(settings)
    reader = started(KafkaSuggestions(settings).open("b"))
    raw = confluent_kafka.Producer({"bootstrap.servers": settings.kafka.address})
    right = make_suggestion("b", 0)
    for value in (
        b"",
        None,
        b"\xc1rubbish",
        encode("start", {"uid": "x"}),
        encode("suggestion", right),
    ):
        raw.produce(settings.topic("suggestions"), key=b"b", value=value)
    raw.produce(settings.topic("suggestions"), value=b"no key")
    assert raw.flush(DEADLINE) == 0
    assert read(reader, 1) == [("suggestion", right)]
    reader.close()


def test_a_topic_that_is_not_there_is_an_error_that_names_it(make_settings: Any) -> None:
    settings = make_settings(mongo={"uri": "mongodb://unused"}, redis={"url": "redis://unused"})
    reader = KafkaSuggestions(settings).open("b")
    with pytest.raises(MessagingError, match=settings.topic("suggestions")):
        started(reader)
    reader.close()


# -- queues, whose answers do not -----------------------------------------------------------


class OldRedisQueue:
    """What old profiles brought: newest first, 0 means for ever, TimeoutError when empty."""

    def __init__(self, client: Any, key: str) -> None:
        self.client, self.key = client, key

    def put(self, value: Any) -> None:
        self.client.lpush(self.key, json.dumps(value))

    def get(self, timeout: float = 0, block: bool = True) -> Any:
        if not block:
            raw = self.client.lpop(self.key)
            if raw is None:
                raise queue.Empty
            return json.loads(raw)
        pair = self.client.blpop(self.key, timeout=timeout)
        if pair is None:
            raise TimeoutError
        return json.loads(pair[1])


class OnlyTimeout:
    """A queue that knows nothing but `get(timeout=)`."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Any] = queue.Queue()
        self.put = self._queue.put

    def get(self, *, timeout: float) -> Any:
        assert timeout > 0
        return self._queue.get(timeout=timeout)


@dataclass
class Answers:
    channel: SuggestionChannel
    put: Callable[[Any], Any]


@pytest.fixture(
    params=["fake", "only timeout", "embedded", "facility", "old embedded", "old facility"]
)
def answers(request: pytest.FixtureRequest) -> Iterator[Answers]:
    if request.param == "fake":
        plain: queue.Queue[Any] = queue.Queue()
        yield Answers(QueueSuggestions(plain), plain.put)
    elif request.param == "only timeout":
        odd = OnlyTimeout()
        yield Answers(QueueSuggestions(odd), odd.put)
    else:
        server = "facility_redis" if "facility" in request.param else "redis_url"
        url, key = request.getfixturevalue(server), f"answers-{time.monotonic_ns()}"
        with redis.Redis.from_url(url) as client:
            if not request.param.startswith("old"):
                ours = RedisSuggestions(url, key)
                # The old consumer's own put.
                yield Answers(ours, OldRedisQueue(client, key).put)
                ours.close()
            else:
                old = OldRedisQueue(client, key)
                yield Answers(QueueSuggestions(old), old.put)
            client.delete(key)


@pytest.mark.parametrize("answer", [{"motor": 1.5}, None])
def test_an_answer_is_read(answers: Answers, answer: Any) -> None:
    reader = started(answers.channel.open("b"))
    assert reader.lockstep
    answers.put(answer)
    assert read(reader, 1) == [("answer", answer)]
    reader.close()


def test_an_empty_queue_gives_nothing_and_does_not_wait_for_ever(answers: Answers) -> None:
    reader = started(answers.channel.open("b"))
    assert reader.read(0) == []
    assert reader.read(0.1) == []
    reader.close()


def test_all_that_lies_in_the_queue_is_read_at_once(answers: Answers) -> None:
    reader = started(answers.channel.open("b"))
    for x in range(5):
        answers.put({"motor": x})
    assert sorted(doc["motor"] for _, doc in reader.read(0)) == [0, 1, 2, 3, 4]
    assert reader.read(0) == []
    reader.close()


def test_an_answer_ends_the_wait_at_once(answers: Answers) -> None:
    reader = started(answers.channel.open("b"))
    threading.Timer(0.05, lambda: answers.put({"motor": 1})).start()
    before = time.monotonic()
    assert read(reader, 1) == [("answer", {"motor": 1})]
    assert time.monotonic() - before < 7.5
    reader.close()


def test_a_queue_has_no_past(answers: Answers) -> None:
    with pytest.raises(ValueError, match="resume"):
        answers.channel.open("b", from_beginning=True)


# -- the Redis list -------------------------------------------------------------------------


def test_the_redis_list_gives_its_answers_oldest_first(redis_url: str) -> None:
    ours = RedisSuggestions(redis_url, f"answers-{time.monotonic_ns()}")
    for x in range(3):
        ours.put({"motor": x})
    reader = started(ours.open("b"))
    assert [doc["motor"] for _, doc in reader.read(0)] == [0, 1, 2]
    reader.close()
    ours.close()


def test_the_redis_list_is_a_queue_for_old_plans(redis_url: str) -> None:
    ours = RedisSuggestions(redis_url, f"answers-{time.monotonic_ns()}")
    for x in range(2):
        ours.put({"motor": x})
    assert ours.get(timeout=1) == {"motor": 1}
    assert ours.get(block=False) == {"motor": 0}
    with pytest.raises(queue.Empty):
        ours.get(block=False)
    with pytest.raises(queue.Empty):
        ours.get(timeout=0.05)
    ours.close()


@pytest.mark.parametrize("value", [np.int64(3), np.float32(3), np.array(3)])
def test_numbers_of_numpy_are_numbers_in_the_list(redis_url: str, value: object) -> None:
    ours = RedisSuggestions(redis_url, f"answers-{time.monotonic_ns()}")
    ours.put({"motor": value})
    assert ours.get(block=False) == {"motor": 3}
    ours.close()


def test_an_error_of_a_recommender_is_raised_where_the_list_has_no_word_for_it(
    redis_url: str,
) -> None:
    ours = RedisSuggestions(redis_url, f"answers-{time.monotonic_ns()}")
    with pytest.raises(ZeroDivisionError, match="model"):
        ours.put(ZeroDivisionError("model"))
    with pytest.raises(TypeError, match="no JSON"):
        ours.put({"motor": object()})
    ours.close()


def test_what_is_no_json_in_the_list_is_an_answer_that_no_gate_lets_through(
    redis_url: str,
) -> None:
    key = f"answers-{time.monotonic_ns()}"
    with redis.Redis.from_url(redis_url) as client:
        client.lpush(key, b"{rubbish")
    ours = RedisSuggestions(redis_url, key)
    [(_, answer)] = started(ours.open("b")).read(0)
    assert isinstance(answer, str)
    assert "JSON" in answer
    ours.close()


def test_a_redis_that_is_away_is_waited_for(private_valkey: Any) -> None:
    private_valkey.kill()
    ours = RedisSuggestions(private_valkey.address)
    reader = ours.open("b")
    assert reader.start(0.05) is False
    private_valkey.start()
    started(reader)
    private_valkey.kill()
    assert reader.read(0.05) == []
    private_valkey.start()
    ours.put({"motor": 1})
    assert read(reader, 1) == [("answer", {"motor": 1})]
    reader.close()
    ours.close()


def test_the_password_of_redis_does_not_show() -> None:
    assert "secret" not in repr(RedisSuggestions("redis://:secret@127.0.0.1:1/0"))


def test_a_plan_takes_its_seventeen_runs_over_the_redis_list(redis_url: str) -> None:
    engine = RunEngine({})
    motor = SynAxis(name="motor")
    det = SynGauss("det", motor, "motor", center=0, Imax=1, sigma=1)
    points: list[float] = []
    engine.subscribe(lambda name, doc: points.append(doc["data"]["motor"]), "event")
    ours = RedisSuggestions(redis_url, f"answers-{time.monotonic_ns()}")
    ours.put({"motor": 99})  # of somebody before
    callback, answers = recommender_factory(
        StepRecommender(1.5), ["motor"], ["det"], max_count=15, queue=ours
    )
    engine(adaptive_plan([det], {motor: 0}, to_recommender=callback, from_recommender=answers))
    assert points == [1.5 * n for n in range(17)]
    with pytest.raises(queue.Empty):
        ours.get(block=False)
    ours.close()
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(DEADLINE)
    engine.loop.close()
