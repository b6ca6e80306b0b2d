"""From a run's stop document to its answer: ours, a raw Kafka round trip, the old Redis list.

Each answering side is a process of its own, as in the loop.
"""

from __future__ import annotations

import contextlib
import os
import queue
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from bluesky_plugins.adaptive import KafkaSuggestions, RedisSuggestions
from bluesky_plugins.callbacks import KafkaPublisher
from bluesky_plugins.messaging import Producer, TopicReader, make_topics
from bluesky_plugins.settings import Settings

TRIPS = 200
WARM = 20
DEADLINE = 20.0
HERE = Path(__file__).parent


def documents(batch_id: str, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """A run of one event at motor = count."""
    run, descriptor, now = str(uuid4()), str(uuid4()), time.time()
    recommender = {"name": "step", "parameters": {"step": 1.5}, "max_count": 10**6}
    start = {"batch_id": batch_id, "batch_count": count, "batch_mode": "run"}
    yield "start", {"uid": run, "time": now, "recommender": recommender, **start}
    keys = {k: {"source": "x", "dtype": "number", "shape": []} for k in ("motor", "det")}
    of_run = {"uid": descriptor, "run_start": run, "time": now, "name": "primary"}
    yield "descriptor", {**of_run, "data_keys": keys, "configuration": {}, "hints": {}}
    data, times = {"motor": float(count), "det": 1.0}, {"motor": now, "det": now}
    event = {"uid": str(uuid4()), "descriptor": descriptor, "time": now, "seq_num": 1}
    yield "event", {**event, "data": data, "timestamps": times, "filled": {}}
    stop = {"uid": str(uuid4()), "run_start": run, "time": now, "exit_status": "success"}
    yield "stop", {**stop, "reason": "", "num_events": {"primary": 1}}


@contextmanager
def process(settings: Settings, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """A process with these settings, once it has printed its ready line."""
    environment = {
        **os.environ,
        "BLUESKY_PLUGINS_BEAMLINE": settings.beamline,
        "BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.address,
        "BLUESKY_PLUGINS_MONGO__URI": settings.mongo.address,
        "BLUESKY_PLUGINS_REDIS__URL": settings.redis.address,
        "BLUESKY_PLUGINS_HTTP__RECOMMENDER_PORT": "0",
    }
    child = subprocess.Popen(
        [sys.executable, *argv],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        if child.stdout is None or not child.stdout.readline():
            raise RuntimeError(f"{argv} did not get ready")
        yield child
    finally:
        child.terminate()
        child.wait(10)


def milliseconds(ask: Callable[[int], None]) -> list[float]:
    out = []
    for count in range(WARM + TRIPS):
        begun = time.perf_counter()
        ask(count)
        out.append((time.perf_counter() - begun) * 1e3)
    return sorted(out[WARM:])


def through_the_service(settings: Settings, producer: Producer) -> list[float]:
    batch_id = str(uuid4())
    publisher = KafkaPublisher("adaptive", settings=settings, producer=producer)
    reader = KafkaSuggestions(settings).open(batch_id)
    if not reader.start(DEADLINE):
        raise RuntimeError("the suggestions cannot be read")

    def ask(count: int) -> None:
        for name, doc in documents(batch_id, count):
            publisher(name, doc)
        deadline = time.perf_counter() + DEADLINE
        while time.perf_counter() < deadline:
            for name, doc in reader.read(0.5):
                if name == "suggestion" and doc["batch_count"] == count:
                    return
        raise RuntimeError(f"no answer to {count} within {DEADLINE} s")

    with process(settings, "-m", "bluesky_plugins.cli", "recommender"):
        times = milliseconds(ask)
    reader.close()
    return times


def raw(settings: Settings, producer: Producer) -> list[float]:
    reader = TopicReader(settings, settings.topic("analysis"))
    reader.start("end", DEADLINE)

    def ask(count: int) -> None:
        producer.send(settings.topic("jobs"), "raw", "ping", {"n": count}, soon=True)
        deadline = time.perf_counter() + DEADLINE
        while time.perf_counter() < deadline:
            if reader.poll(1, 0.5):
                return
        raise RuntimeError(f"no echo of {count} within {DEADLINE} s")

    with process(settings, str(HERE / "raw_echo.py")):
        times = milliseconds(ask)
    reader.close()
    return times


def answered(answers: RedisSuggestions) -> bool:
    """Whether there are answers on the list; it is empty afterwards."""
    found = False
    with contextlib.suppress(queue.Empty):
        while answers.get(timeout=1.0):
            found = True
    return found


def through_the_list(settings: Settings, producer: Producer) -> list[float]:
    key = f"adaptive-{uuid4().hex}"
    publisher = KafkaPublisher("adaptive", settings=settings, producer=producer)
    answers = RedisSuggestions(settings.redis.address, key=key)
    batch_id = str(uuid4())

    def ask(count: int) -> None:
        for name, doc in documents(batch_id, count):
            publisher(name, doc)
        answers.get(timeout=DEADLINE)

    def prime() -> None:
        # The old consumer starts at the end of the topic, and does not say when it is there.
        for _ in range(int(DEADLINE)):
            for name, doc in documents(batch_id, 0):
                publisher(name, doc)
            if answered(answers):
                return
        raise RuntimeError(f"no answer on the list within {DEADLINE} s")

    with process(settings, str(HERE / "list_recommender.py"), key):
        prime()
        return milliseconds(ask)


def measure(settings: Settings) -> list[tuple[str, str, float]]:
    """Rows of (what, unit, value)."""
    make_topics(settings)
    producer = Producer(settings, client_id="benchmark")
    ways = {
        "recommender service": through_the_service,
        "raw Kafka": raw,
        "RemoteDispatcher and Redis list": through_the_list,
    }
    rows, middle = [], {}
    for name, way in ways.items():
        times = way(settings, producer)
        middle[name] = statistics.median(times)
        rows.append((f"round trip p50, {name}", "ms", middle[name]))
        rows.append((f"round trip p95, {name}", "ms", times[int(len(times) * 0.95)]))
    producer.close()
    ours, bare, old = middle.values()
    rows.append(("round trip p50, service / raw Kafka", "", ours / bare))
    rows.append(("round trip p50, service / Redis list", "", ours / old))
    return rows
