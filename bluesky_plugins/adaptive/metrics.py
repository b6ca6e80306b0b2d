"""What Prometheus is told about the service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from bluesky_plugins.processing import Tally

__all__ = ["Metrics"]

PREFIX = "bluesky_plugins_recommender"
JOBS = "bluesky_plugins_processing"
Family = CounterMetricFamily | GaugeMetricFamily


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

        self._processing = ProcessingNumbers()
        registry.register(self._processing)

    def processing(self, jobs: Mapping[tuple[str, str], int], trouble: int, tally: Tally) -> None:
        """Say how processing is.

        :param jobs: (target, state) -> number of jobs.
        :param trouble: how many targets and servers do not answer.
        """
        self._processing.known = (jobs, trouble, tally)

    def sent(self, name: str, doc: Mapping[str, Any]) -> None:
        """Count a message that went out."""
        if name == "suggestion":
            self.suggestions.labels(doc["action"]).inc()
        elif name == "waiting":
            self.waiting.inc()

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


class ProcessingNumbers(Collector):
    """What Prometheus is told about processing, once that is known."""

    def __init__(self) -> None:
        self.known: tuple[Mapping[tuple[str, str], int], int, Tally] | None = None

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        if self.known is None:
            return
        jobs, trouble, tally = self.known
        about = "jobs that are looked after"
        yield _filled(GaugeMetricFamily(f"{JOBS}_jobs", about, labels=["target", "state"]), jobs)
        about = "targets and servers that processing cannot reach"
        yield GaugeMetricFamily(f"{JOBS}_trouble", about, value=trouble)
        about = "attempts of jobs that came to an end"
        ended = CounterMetricFamily(f"{JOBS}_ended", about, labels=["target", "state"])
        yield _filled(ended, tally.ended)
        for name, about, counted in (
            ("queries", "how often a target was asked how its jobs are", tally.asked),
            ("queries_failed", "how often it did not answer", tally.failed),
        ):
            queries = CounterMetricFamily(f"{JOBS}_{name}", about, labels=["target"])
            yield _filled(queries, {(target,): n for target, n in list(counted.items())})
        yield _waits(tally)


def _waits(tally: Tally) -> Metric:
    about = "from the beginning of an attempt until it was seen running, s"
    waits = SummaryMetricFamily(f"{JOBS}_seconds_to_running", about, labels=["target"])
    for target, number in list(tally.began.items()):
        waits.add_metric([target], number, tally.waited_s.get(target, 0.0))
    return waits


def _filled(family: Family, values: Mapping[Any, float]) -> Metric:
    for labels, value in list(values.items()):
        family.add_metric(list(labels), value)
    return family
