"""Scan rate with our publisher, with bluesky-kafka's, and without any."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from bluesky import RunEngine
from bluesky.plans import count
from ophyd.sim import det

from bluesky_plugins.callbacks import KafkaPublisher
from bluesky_plugins.messaging import Producer, make_topics
from bluesky_plugins.settings import Settings

EVENTS = 300
ROUNDS = 9


def seconds_of_a_scan(callback: Callable[[str, Any], Any] | None) -> float:
    engine = RunEngine({})
    if callback is not None:
        engine.subscribe(callback)
    begun = time.perf_counter()
    engine(count([det], num=EVENTS))
    return time.perf_counter() - begun


def measure(settings: Settings) -> list[tuple[str, str, float]]:
    """Rows of (what, unit, value); rates are medians of interleaved rounds."""
    from bluesky_kafka import Publisher

    make_topics(settings)
    producer = Producer(settings, client_id="benchmark")
    ours = KafkaPublisher("documents", settings=settings, producer=producer)
    theirs = Publisher(
        topic=settings.topic("documents"),
        bootstrap_servers=settings.kafka.address,
        key=uuid4().hex,
        producer_config={"acks": 1, "enable.idempotence": False, "request.timeout.ms": 5000},
    )
    kinds = {"unsubscribed": None, "KafkaPublisher": ours, "bluesky_kafka.Publisher": theirs}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for name in [*kinds, *(list(kinds) * ROUNDS)]:
        seconds[name].append(seconds_of_a_scan(kinds[name]))
    left = producer.flush(30.0)
    producer.close()
    theirs.flush()
    if left:
        raise RuntimeError(f"{left} messages were not sent within 30 s")
    rates = {name: EVENTS / statistics.median(times[1:]) for name, times in seconds.items()}
    rows = [(f"scan rate, {name}", "events/s", rate) for name, rate in rates.items()]
    free = rates["unsubscribed"]
    rows.append(("scan rate, KafkaPublisher / unsubscribed", "", rates["KafkaPublisher"] / free))
    rows.append(
        ("scan rate, bluesky_kafka / unsubscribed", "", rates["bluesky_kafka.Publisher"] / free)
    )
    return rows
