"""What Prometheus is told about the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

PREFIX = "bluesky_plugins_recommender"


class Metrics:
    """The numbers of one service."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.messages = Counter(
            f"{PREFIX}_messages", "messages read from the logs of batches", registry=registry
        )
        self.suggestions = Counter(
            f"{PREFIX}_suggestions", "suggestions published", ["action"], registry=registry
        )
        self.waiting = Counter(f"{PREFIX}_waiting", "deadlines renewed", registry=registry)
        self.dead_letters = Counter(
            f"{PREFIX}_dead_letters", "messages that could not be used", registry=registry
        )
        self.unstorable = Counter(
            f"{PREFIX}_unstorable", "records that MongoDB can never hold", registry=registry
        )
        self.unsendable = Counter(
            f"{PREFIX}_unsendable", "messages that Kafka can never take", registry=registry
        )
        self.batches = Gauge(f"{PREFIX}_batches", "batches in memory", registry=registry)
        self.backlog = Gauge(
            f"{PREFIX}_backlog", "records that wait for MongoDB", registry=registry
        )
        self.computing = Histogram(
            f"{PREFIX}_computing_seconds", "time a recommender took to reply, s", registry=registry
        )

        self.jobs = Gauge(
            "bluesky_plugins_processing_jobs",
            "jobs that are looked after",
            ["state"],
            registry=registry,
        )
        self.trouble = Gauge(
            "bluesky_plugins_processing_trouble",
            "targets and servers that processing cannot reach",
            registry=registry,
        )

    def processing(self, states: Mapping[str, int], trouble: int) -> None:
        """Say how processing is: state -> number of jobs, and how many do not answer."""
        self.jobs.clear()
        for state, number in states.items():
            self.jobs.labels(state).set(number)
        self.trouble.set(trouble)

    def sent(self, name: str, doc: Mapping[str, Any]) -> None:
        """Count a message that went out."""
        if name == "suggestion":
            self.suggestions.labels(doc["action"]).inc()
        elif name == "waiting":
            self.waiting.inc()

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)
