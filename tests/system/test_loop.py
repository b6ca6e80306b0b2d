"""The whole loop on real servers, with everything in it killed in turn."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import confluent_kafka
import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]
POINTS = [1.5 * n for n in range(17)]


def assert_each_document_once(loop: Any, batch_id: str, runs: int = 17) -> None:
    """Of each run the four documents of a count are stored, and no other."""
    starts = loop.until(
        lambda: (found := loop.starts(batch_id)) and len(found) >= runs and found, "all starts"
    )
    found = loop.recorded([start["uid"] for start in starts])
    assert {name: len(documents) for name, documents in found.items()} == dict.fromkeys(
        ("start", "descriptor", "event", "stop"), runs
    )


def assert_one_suggestion_each(loop: Any, batch_id: str, answers: int = 17) -> None:
    suggestions = loop.collection("plugins", "suggestions")
    loop.until(
        lambda: suggestions.count_documents({"batch_id": batch_id}) >= answers, "suggestions"
    )
    found = [(s["batch_count"], s["revision"]) for s in suggestions.find({"batch_id": batch_id})]
    assert sorted(found) == [(count, 0) for count in range(answers)]


def test_seventeen_runs_are_answered_recorded_and_explained(loop: Any) -> None:
    loop.service("recommender")
    loop.service("recorder")
    report = loop.report(loop.plan(delay=0))
    assert report["error"] == ""
    assert report["points"] == POINTS
    assert_each_document_once(loop, report["batch_id"])
    assert_one_suggestion_each(loop, report["batch_id"])


def test_recommender_killed_at_random_moments(loop: Any) -> None:
    recommender = loop.service("recommender")
    loop.service("recorder")
    plan = loop.plan(delay=0.1)
    moments = random.Random(1)
    for count in range(1, 16, 3):
        plan.line(f"run {count} ")
        loop.until(lambda: moments.random() < 0.2, "the moment")
        recommender.kill()
        recommender.start()
    report = loop.report(plan)
    assert report["error"] == ""
    assert report["points"] == POINTS
    assert_one_suggestion_each(loop, report["batch_id"])
    assert_each_document_once(loop, report["batch_id"])


def test_recorder_killed_at_random_moments(loop: Any) -> None:
    loop.service("recommender")
    recorder = loop.service("recorder")
    plan = loop.plan(delay=0.1)
    for count in range(1, 16, 3):
        plan.line(f"run {count} ")
        recorder.kill()
        recorder.start()
    report = loop.report(plan)
    assert report["points"] == POINTS
    assert_each_document_once(loop, report["batch_id"])


def test_kafka_killed_and_started_again_in_the_middle(
    make_loop: Callable[..., Any], private_kafka: Any
) -> None:
    loop = make_loop(kafka={"bootstrap_servers": private_kafka.address})
    loop.service("recommender")
    loop.service("recorder")
    plan = loop.plan(delay=0.05)
    for count in (3, 9):
        plan.line(f"run {count} ")
        private_kafka.kill()
        private_kafka.start()
    report = loop.report(plan)
    assert report["error"] == ""
    assert report["points"] == POINTS
    assert report["unsent"] == 0
    assert_each_document_once(loop, report["batch_id"])
    assert_one_suggestion_each(loop, report["batch_id"])


def test_kafka_gone_for_good_ends_the_plan_at_its_deadline(
    make_loop: Callable[..., Any], private_kafka: Any
) -> None:
    loop = make_loop(kafka={"bootstrap_servers": private_kafka.address})
    loop.service("recommender")
    # Neither may an answer be late for the plan before the kill, nor the plan be at its end.
    plan = loop.plan(delay=1.0, timeout=10.0)
    plan.line("run 3 ")
    private_kafka.kill()
    killed = time.monotonic()
    report = loop.report(plan)
    assert "AdaptiveTimeout" in report["error"]
    assert time.monotonic() - killed < 10 + 27
    assert report["unsent"] > 0


def test_mongo_killed_and_started_again_in_the_middle(
    make_loop: Callable[..., Any], private_mongo: Any
) -> None:
    loop = make_loop(mongo={"uri": private_mongo.address})
    loop.service("recommender")
    loop.service("recorder")
    plan = loop.plan(delay=0.05)
    plan.line("run 3 ")
    private_mongo.kill()
    plan.line("run 8 ")
    private_mongo.start()
    report = loop.report(plan)
    assert report["error"] == ""
    assert report["points"] == POINTS
    assert_each_document_once(loop, report["batch_id"])
    assert_one_suggestion_each(loop, report["batch_id"])


def test_killed_plan_is_resumed_for_the_rest_of_the_points(loop: Any) -> None:
    loop.service("recommender")
    loop.service("recorder")
    batch_id = str(uuid4())
    plan = loop.plan(delay=1.0, md={"batch_id": batch_id})
    plan.line("run 6 ")
    plan.kill()
    report = loop.report(loop.plan(delay=0, resume=batch_id))
    assert report["error"] == ""
    assert report["points"][-1] == 24.0
    # They lie in several partitions: the last may be stored before others are.
    loop.until(
        lambda: {start["batch_count"] for start in loop.starts(batch_id)} == set(range(17)),
        "a run of each count",
    )
    assert_one_suggestion_each(loop, batch_id)


def test_killed_scan_is_resumed_in_a_run_of_its_own(loop: Any) -> None:
    loop.service("recommender")
    batch_id = str(uuid4())
    plan = loop.plan(scan=True, delay=1.0, md={"batch_id": batch_id})
    line = plan.line("event 7 ")
    plan.kill()
    said = int([line, *plan.rest()][-1].split()[1])
    report = loop.report(loop.plan(scan=True, delay=0, resume=batch_id))
    assert report["error"] == ""
    [first] = report["counts"]
    assert first in (said - 1, said)  # the last event's own count, or the next if it was answered
    assert report["points"] == POINTS[first:]
    assert_one_suggestion_each(loop, batch_id)


def test_two_recommenders_share_the_batches(loop: Any) -> None:
    first = loop.service("recommender", "--instance", "0")
    loop.service("recommender", "--instance", "1")
    plans = [loop.plan(delay=0.05) for _ in range(4)]
    plans[0].line("run 4 ")
    first.kill()
    first.start()
    for plan in plans:
        report = loop.report(plan)
        assert report["error"] == ""
        assert report["points"] == POINTS


def garbage() -> list[bytes]:
    import msgpack

    pickled = {b"nd": True, b"type": "O", b"kind": b"O", b"shape": (1,), b"data": b"cos\nsystem\n"}
    return [
        os.urandom(200),
        b"",
        msgpack.packb(("start", {"uid": "x"}))[:-3],
        msgpack.packb(("event", {"data": pickled})),
        msgpack.packb(("start", {"uid": 3, "time": "yesterday"})),
        msgpack.packb(("batch_event", {"event": "opened", "batch_id": "b"})),
        msgpack.packb(("suggestion", {"batch_id": "b"})),
    ]


def test_garbage_on_every_topic_is_dead_lettered_and_the_loop_goes_on(loop: Any) -> None:
    loop.service("recommender")
    loop.service("recorder")
    plan = loop.plan(delay=0.05)
    plan.line("run 2 ")
    producer = confluent_kafka.Producer({"bootstrap.servers": loop.settings.kafka.address})
    topics = ("documents", "adaptive", "suggestions", "analysis")
    for topic in topics:
        for value in garbage():
            producer.produce(loop.settings.topic(topic), value, key=b"garbage")
        producer.produce(loop.settings.topic(topic), None, key=b"garbage")
    assert producer.flush(60) == 0
    report = loop.report(plan)
    assert report["error"] == ""
    assert report["points"] == POINTS
    letters = read_dead_letters(loop, at_least=len(topics) * (len(garbage()) + 1))
    places = {(letter["topic"], letter["partition"], letter["offset"]) for letter in letters}
    assert len(places) == len(topics) * (len(garbage()) + 1)


def read_dead_letters(loop: Any, at_least: int) -> list[dict[str, Any]]:
    from bluesky_plugins.messaging import TopicReader, decode

    reader = TopicReader(loop.settings, loop.settings.topic("dead_letters"))
    reader.start("beginning", 60.0)
    letters: list[dict[str, Any]] = []

    def enough() -> bool:
        letters.extend(decode(message.value)[1] for message in reader.poll(100, 0.1))
        return len({(doc["topic"], doc["partition"], doc["offset"]) for doc in letters}) >= at_least

    try:
        loop.until(enough, f"{at_least} dead letters")
    finally:
        reader.close()
    return letters
