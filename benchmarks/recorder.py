"""Documents per second: our recorder, bluesky-kafka's with suitcase-mongo, raw `insert_many`.

All three store the same documents, which lie on Kafka (or in memory) before the clock starts,
with the same indexes and the same write concern, one after the other in rounds.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import msgpack
import msgpack_numpy
import pymongo
from pymongo.write_concern import WriteConcern

from bluesky_plugins.messaging import Producer, make_topics
from bluesky_plugins.recording import COLLECTIONS, MongoDocumentStore, RecorderService
from bluesky_plugins.settings import Settings
from bluesky_plugins.testing import composed_run

RUNS = 8
EVENTS = 1000
ROUNDS = 3
DEADLINE = 120.0

Pairs = list[tuple[str, dict[str, Any]]]


def documents() -> Pairs:
    return [pair for _ in range(RUNS) for pair in composed_run(EVENTS)]


def send(settings: Settings, pairs: Pairs) -> None:
    producer = Producer(settings, client_id="benchmark", spool=False)
    key = ""
    for name, doc in pairs:
        key = doc["uid"] if name == "start" else key
        producer.send(settings.topic("documents"), key, name, doc)
    if left := producer.flush(60.0):
        raise RuntimeError(f"{left} messages were not sent within 60 s")
    producer.close()


def fresh(settings: Settings, pairs: Pairs) -> Settings:
    """A beamline of its own, with the documents on Kafka and the indexes in MongoDB."""
    settings = settings.model_copy(update={"beamline": f"b{uuid4().hex[:8]}"})
    make_topics(settings)
    send(settings, pairs)
    for name in ("documents", "analysis"):
        store = MongoDocumentStore(
            pymongo.MongoClient(settings.mongo.address), settings.database(name)
        )
        store.prepare()
        store.close()
    return settings


def seconds_until_stored(database: Any, count: int, begun: float) -> float:
    """Seconds until all stop documents and events are there."""
    pause = threading.Event()
    while database.run_stop.estimated_document_count() < RUNS:
        if time.perf_counter() - begun > DEADLINE:
            raise RuntimeError(f"not recorded within {DEADLINE} s")
        pause.wait(0.01)
    seconds = time.perf_counter() - begun
    stored = sum(database[c.name].count_documents({}) for c in COLLECTIONS.values())
    if stored != count:
        raise RuntimeError(f"{stored} of {count} documents are stored")
    return seconds


def ours(settings: Settings, database: Any, pairs: Pairs) -> float:
    ready = threading.Event()
    service = RecorderService(settings, ready=lambda _line: ready.set())
    thread = threading.Thread(target=service.run)
    thread.start()
    if not ready.wait(30):
        raise RuntimeError("the recorder is not ready after 30 s")
    seconds = seconds_until_stored(database, len(pairs), time.perf_counter())
    service.stop()
    thread.join()
    return seconds


def theirs(settings: Settings, database: Any, pairs: Pairs) -> float:
    from bluesky_kafka import MongoConsumer

    topic = settings.topic("documents")
    begun: list[float] = []
    over = threading.Event()

    class Consumer(MongoConsumer):  # type: ignore[misc]
        def process_document(self, *args: Any) -> bool:
            begun.append(time.perf_counter()) if not begun else None
            return bool(super().process_document(*args))

    consumer = Consumer(
        settings.mongo.address,
        {topic: settings.database("documents")},
        topics=[topic],
        bootstrap_servers=settings.kafka.address,
        group_id=uuid4().hex,
        consumer_config={"auto.offset.reset": "earliest", "enable.auto.commit": False},
        polling_duration=0.1,
        deserializer=partial(msgpack.loads, object_hook=msgpack_numpy.decode),
    )
    thread = threading.Thread(
        target=consumer.start_polling, kwargs={"continue_polling": lambda: not over.is_set()}
    )
    thread.start()
    while not begun:
        over.wait(0.005)
    seconds = seconds_until_stored(database, len(pairs), begun[0])
    over.set()
    thread.join()
    return seconds


def raw(settings: Settings, database: Any, pairs: Pairs) -> float:
    concern = WriteConcern(w="majority", j=True)
    kinds = {name: [dict(d) for n, d in pairs if n == name] for name in COLLECTIONS}
    begun = time.perf_counter()
    for name, docs in kinds.items():
        collection = database.get_collection(COLLECTIONS[name].name, write_concern=concern)
        for i in range(0, len(docs), settings.recording.bulk_size):
            collection.insert_many(docs[i : i + settings.recording.bulk_size], ordered=False)
    return time.perf_counter() - begun


def measure(settings: Settings) -> list[tuple[str, str, float]]:
    """Rows of (what, unit, value); rates are medians of interleaved rounds."""
    pairs = documents()
    kinds: dict[str, Callable[[Settings, Any, Pairs], float]] = {
        "raw insert_many": raw,
        "our recorder": ours,
        "MongoConsumer + suitcase-mongo": theirs,
    }
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    for name in list(kinds) * ROUNDS:
        own = fresh(settings, pairs)
        with pymongo.MongoClient(own.mongo.address) as client:
            database = client[own.database("documents")]
            rates[name].append(len(pairs) / kinds[name](own, database, pairs))
            for each in ("documents", "analysis"):
                client.drop_database(own.database(each))
    found = {name: statistics.median(values) for name, values in rates.items()}
    rows = [(f"recording, {name}", "documents/s", rate) for name, rate in found.items()]
    mine = found["our recorder"]
    rows.append(("recording, ours / raw insert_many", "", mine / found["raw insert_many"]))
    rows.append(
        ("recording, ours / MongoConsumer", "", mine / found["MongoConsumer + suitcase-mongo"])
    )
    return rows
