"""Four recorders share a topic of four partitions; one is killed: every document is stored once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from bluesky_plugins.messaging import Producer, TopicReader
from bluesky_plugins.recording import COLLECTIONS, same_content
from bluesky_plugins.settings import Settings
from bluesky_plugins.testing.runs import composed_run

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

RECORDERS = 4
Run = list[tuple[str, dict[str, Any]]]


def shares(client: AdminClient, settings: Settings) -> list[set[int]]:
    """Partitions of the documents that each member of the group has."""
    group = f"{settings.beamline}.recorder"
    found = client.describe_consumer_groups([group], request_timeout=60)[group].result(65)
    topic = settings.topic("documents")
    return [
        {p.partition for p in member.assignment.topic_partitions if p.topic == topic}
        for member in found.members
    ]


def send(producer: Producer, settings: Settings, run: Run) -> None:
    for name, doc in run:
        producer.send(settings.topic("documents"), run[0][1]["uid"], name, doc)


def assert_each_stored_once(loop: Any, runs: list[Run]) -> None:
    sent = {
        (name, doc[COLLECTIONS[name].key]): doc
        for run in runs
        for name, doc in run
        if name in COLLECTIONS
    }
    stored = {
        name: list(loop.collection("documents", collection.name).find({}, {"_id": False}))
        for name, collection in COLLECTIONS.items()
    }
    assert sum(map(len, stored.values())) == len(sent) == sum(map(len, runs))
    for name, documents in stored.items():
        for document in documents:
            assert same_content(document, sent[name, document[COLLECTIONS[name].key]])


def test_four_recorders_one_of_them_killed_in_the_middle(
    make_loop: Callable[..., Any], facility: dict[str, Any]
) -> None:
    kafka = facility["kafka"] | {"partitions": RECORDERS}
    loop = make_loop(**facility | {"kafka": kafka})
    recorders = [
        loop.run("-m", "bluesky_plugins.cli", "recorder", "--instance", str(n))
        for n in range(RECORDERS)
    ]
    for recorder in recorders:
        recorder.line("ready")
    client = AdminClient(
        {**kafka["producer_config"], "bootstrap.servers": loop.settings.kafka.address}
    )
    equal = [1] * RECORDERS
    loop.until(lambda: sorted(map(len, shares(client, loop.settings))) == equal, "equal shares")
    runs = [composed_run(40, camera=True) for _ in range(60)]
    stops = loop.collection("documents", "run_stop")
    producer = Producer(loop.settings)
    for run in runs[:30]:
        send(producer, loop.settings, run)
    loop.until(lambda: stops.count_documents({}) >= 5, "runs on their way")
    recorders[2].kill()
    for run in runs[30:]:
        send(producer, loop.settings, run)
    assert producer.flush(120) == 0
    producer.close()
    recorders[2].start()
    loop.until(lambda: stops.count_documents({}) >= len(runs), "stop of every run")
    reader = TopicReader(loop.settings, loop.settings.topic("documents"))
    assert all(reader.ends(60).values()), "a partition without documents tests nothing"
    reader.close()
    assert_each_stored_once(loop, runs)
