"""Documents per second of 1, 2 and 4 recorders that share a topic of 4 partitions.

The recorders are processes, ready and idle; the clock runs from the first document sent to the
last one stored. All write to the same MongoDB, on the same cores as everything else.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import threading
import time
from typing import Any
from uuid import uuid4

import confluent_kafka
import pymongo
from confluent_kafka.admin import AdminClient

from benchmarks.round_trip import process
from bluesky_plugins.messaging import encode, make_topics
from bluesky_plugins.recording import COLLECTIONS
from bluesky_plugins.settings import Settings
from bluesky_plugins.testing import composed_run

PARTITIONS = 4
NUMBERS = (1, 2, 4)
RUNS = 32
EVENTS = 500
ROUNDS = 3
DEADLINE = 120.0

Encoded = list[list[bytes]]


def until(condition: Any, what: str) -> None:
    deadline, pause = time.perf_counter() + DEADLINE, threading.Event()
    while not condition():
        if time.perf_counter() > deadline:
            raise RuntimeError(f"{what}: not within {DEADLINE} s")
        pause.wait(0.01)


def shared_out(client: AdminClient, settings: Settings, number: int) -> bool:
    """Whether every recorder has as many partitions."""
    group = f"{settings.beamline}.recorder"
    members = client.describe_consumer_groups([group])[group].result(10).members
    topic = settings.topic("documents")
    shares = [
        sum(each.topic == topic for each in member.assignment.topic_partitions)
        for member in members
    ]
    return shares == [PARTITIONS // number] * number


def send(settings: Settings, runs: Encoded) -> None:
    """The runs in turn to each partition, so that no recorder has more to do than another."""
    producer = confluent_kafka.Producer({"bootstrap.servers": settings.kafka.address})
    for place, run in enumerate(runs):
        for value in run:
            producer.produce(
                settings.topic("documents"), value, b"run", partition=place % PARTITIONS
            )
        producer.poll(0)
    if producer.flush(DEADLINE):
        raise RuntimeError(f"not sent within {DEADLINE} s")


def rate(settings: Settings, number: int, runs: Encoded) -> float:
    """Documents per second of that many recorders, on a beamline of its own."""
    kafka = settings.kafka.model_copy(update={"partitions": PARTITIONS})
    own = settings.model_copy(update={"beamline": f"b{uuid4().hex[:8]}", "kafka": kafka})
    make_topics(own)
    count = sum(map(len, runs))
    with contextlib.ExitStack() as running, pymongo.MongoClient(own.mongo.address) as client:
        for instance in map(str, range(number)):
            argv = ("-m", "bluesky_plugins.cli", "recorder", "--instance", instance)
            running.enter_context(process(own, *argv))
        admin = AdminClient({"bootstrap.servers": own.kafka.address})
        until(lambda: shared_out(admin, own, number), f"{number} recorders with equal shares")
        database: Any = client[own.database("documents")]
        begun = time.perf_counter()
        send(own, runs)
        until(lambda: database.run_stop.estimated_document_count() >= len(runs), "all runs")
        seconds = time.perf_counter() - begun
        stored = sum(database[c.name].count_documents({}) for c in COLLECTIONS.values())
    if stored != count:
        raise RuntimeError(f"{stored} of {count} documents are stored")
    return count / seconds


def measure(settings: Settings) -> list[tuple[str, str, float]]:
    """Rows of (what, unit, value); rates are medians of interleaved rounds."""
    runs = [[encode(n, doc) for n, doc in composed_run(EVENTS)] for _ in range(RUNS)]
    rates: dict[int, list[float]] = {number: [] for number in NUMBERS}
    for number in NUMBERS * ROUNDS:
        rates[number].append(rate(settings, number, runs))
    found = {number: statistics.median(values) for number, values in rates.items()}
    rows = [
        (f"recorders: {n}, on {os.cpu_count()} cores with Kafka and MongoDB", "documents/s", r)
        for n, r in found.items()
    ]
    return rows + [(f"recorders, {n} / 1", "", found[n] / found[1]) for n in NUMBERS[1:]]
