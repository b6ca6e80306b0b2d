"""The recommender service on real Kafka and on the MongoDB protocol."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from bluesky_plugins.adaptive import RecommenderService
from bluesky_plugins.messaging import Producer, TopicReader, decode, make_topics
from bluesky_plugins.settings import Settings
from bluesky_plugins.testing import batches

pytestmark = pytest.mark.system
DEADLINE = 20.0


def until(condition: Callable[[], Any], what: str, timeout: float = DEADLINE) -> Any:
    """Wait for a condition; fails after the deadline, saying for what."""
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} within {timeout} s"
        pause.wait(0.01)
    return found


@contextmanager
def serving(settings: Settings, **options: Any) -> Iterator[RecommenderService]:
    """A service in a thread of this process."""
    is_ready = threading.Event()
    service = RecommenderService(settings, ready=lambda line: is_ready.set(), **options)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        assert is_ready.wait(DEADLINE), "the service is not ready"
        yield service
    finally:
        service.stop()
        thread.join(5.0)
        assert not thread.is_alive()


class Plan:
    """What a plan does on the topics, without a RunEngine."""

    def __init__(self, settings: Settings, batch_id: str | None = None) -> None:
        self.settings = settings
        self.batch_id = batch_id or str(uuid4())
        self.producer = Producer(settings, spool=False)
        self.reader = TopicReader(settings, settings.topic("suggestions"))
        self.reader.start("end", DEADLINE)
        self.read: list[tuple[str, dict[str, Any]]] = []

    def send(self, *documents: tuple[str, dict[str, Any]]) -> None:
        topic = self.settings.topic("adaptive")
        own = [(name, self._own(doc)) for name, doc in documents]
        self.producer.deliver([(topic, self.batch_id, n, d) for n, d in own], DEADLINE)

    def _own(self, doc: dict[str, Any]) -> dict[str, Any]:
        return {**doc, "batch_id": self.batch_id} if "batch_id" in doc else doc

    def measure(self, count: int, x: float, **md: Any) -> None:
        uid = f"{self.batch_id}-{count}-{uuid4().hex[:4]}"
        self.send(*batches.run(count, {"motor": x, "det": 1.0}, uid=uid, **md))

    def answer(self, count: int, revision: int = 0, timeout: float = DEADLINE) -> dict[str, Any]:
        def found() -> Any:
            for message in self.reader.poll(100, 0.05):
                if message.key == self.batch_id.encode():
                    self.read.append(decode(message.value))
            for name, doc in self.read:
                if name == "suggestion" and doc["batch_count"] == count:
                    if doc["revision"] == revision:
                        return doc
            return None

        return until(found, f"answer to count {count}, revision {revision}", timeout)

    def scan(self, x: float = 0.0, count: int = 0, to: int = 100) -> list[float]:
        """Measure until it is told to stop; the points."""
        points: list[float] = []
        while count <= to:
            self.measure(count, x)
            points.append(x)
            answer = self.answer(count)
            if answer["action"] != "move":
                break
            x, count = answer["point"]["motor"], count + 1
        return points

    def close(self) -> None:
        self.producer.close(1.0)
        self.reader.close()


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    made = make_settings(http={"recommender_port": 0})
    make_topics(made, DEADLINE)
    return made


@pytest.fixture
def plan(settings: Settings) -> Iterator[Plan]:
    made = Plan(settings)
    yield made
    made.close()


def test_seventeen_points_from_0_to_24(settings: Settings, plan: Plan) -> None:
    with serving(settings):
        plan.send(batches.opened())
        assert plan.scan() == [1.5 * n for n in range(17)]
