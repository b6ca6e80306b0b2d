"""One of three Kafka nodes is killed, under load: nothing lost, nothing twice, the scan goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bluesky_plugins.messaging import Producer, TopicReader
from bluesky_plugins.testing.runs import composed_run
from tests.facility import FacilityKafka

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
POINTS = [1.5 * n for n in range(17)]


def each_once(loop: Any, uids: list[str], events: int) -> None:
    found = loop.recorded(uids)
    kinds = {"start": 1, "descriptor": 1, "event": events, "stop": 1}
    assert {k: len(d) for k, d in found.items()} == {k: n * len(uids) for k, n in kinds.items()}


def test_the_scan_goes_on_when_a_node_is_killed_be_it_the_leader(
    make_loop: Callable[..., Any], facility: dict[str, Any], mortal_kafka: FacilityKafka
) -> None:
    # One partition: its leader serves everything of the topic.
    kafka = facility["kafka"] | {"partitions": 1}
    loop = make_loop(**facility | {"kafka": kafka})
    loop.service("recommender")
    loop.service("recorder")
    plan = loop.plan(delay=0.05)
    plan.line("run 2 ")
    mortal_kafka.kill([mortal_kafka.leader(loop.settings.topic("adaptive"))])
    plan.line("run 6 ")
    mortal_kafka.start()
    plan.line("run 8 ")
    leader = mortal_kafka.leader(loop.settings.topic("documents"))
    mortal_kafka.kill([leader % 3 + 1])
    report = loop.report(plan)
    assert report["error"] == ""
    assert report["points"] == POINTS
    assert report["unsent"] == 0
    starts = loop.until(
        lambda: (found := loop.starts(report["batch_id"])) and len(found) >= 17 and found, "starts"
    )
    each_once(loop, [start["uid"] for start in starts], events=1)
    suggestions = loop.collection("plugins", "suggestions")
    of_batch = {"batch_id": report["batch_id"]}
    loop.until(lambda: suggestions.count_documents(of_batch) >= 17, "suggestions")
    assert suggestions.count_documents(of_batch) == 17


def test_a_stream_of_documents_passes_the_death_of_its_leader_once_each(
    make_loop: Callable[..., Any], facility: dict[str, Any], mortal_kafka: FacilityKafka
) -> None:
    kafka = facility["kafka"] | {"partitions": 1}
    loop = make_loop(**facility | {"kafka": kafka})
    loop.service("recorder")
    topic = loop.settings.topic("documents")
    runs = [composed_run(50) for _ in range(60)]
    producer = Producer(loop.settings)
    for number, run in enumerate(runs):
        if number == 20:
            mortal_kafka.kill([mortal_kafka.leader(topic)])
        for name, doc in run:
            producer.send(topic, run[0][1]["uid"], name, doc)
        producer.flush(0.05)
    assert producer.flush(120.0) == 0
    producer.close()
    reader = TopicReader(loop.settings, topic)
    assert sum(reader.ends(60.0).values()) == sum(map(len, runs))
    reader.close()
    each_once(loop, [run[0][1]["uid"] for run in runs], events=50)
