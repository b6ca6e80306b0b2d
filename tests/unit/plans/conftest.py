"""A RunEngine, simulated devices that remember where they went, a recommender in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import SynAxis, SynGauss

from bluesky_plugins.testing import FakeSuggestions, make_suggestion

# A plan's patience where a test waits for its end: what comes in time comes in much less, also on
# a busy machine.
SOON = 0.6


class Axis(SynAxis):
    """A motor that remembers where it was sent."""

    def __init__(self, name: str = "motor", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.sent: list[float] = []

    def set(self, value: float) -> Any:
        self.sent.append(value)
        return super().set(value)


class LimitedAxis(Axis):
    limits = (-10.0, 10.0)


@contextmanager
def running_engine(**options: Any) -> Iterator[RunEngine]:
    """A RunEngine that leaves no thread and no loop behind."""
    engine = RunEngine({}, **options)
    yield engine
    if engine.state != "idle":
        engine.abort()
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), engine.loop).result(30)
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(30)
    engine.loop.close()


@pytest.fixture
def engine() -> Iterator[RunEngine]:
    with running_engine() as running:
        yield running


@pytest.fixture
def motor() -> Axis:
    return LimitedAxis("motor")


@pytest.fixture
def det(motor: Axis) -> SynGauss:
    return SynGauss("det", motor, "motor", center=0, Imax=1, sigma=1)


@pytest.fixture
def topic() -> FakeSuggestions:
    return FakeSuggestions()


def steps(last: int, step: float = 1.5) -> Callable[[str, int, int], list[tuple[str, Any]]]:
    """Answers: the next point is a step further; after `last` comes a stop."""

    def answers(batch: str, count: int, revision: int) -> list[tuple[str, Any]]:
        action = "move" if count < last else "stop"
        point = {"motor": step * (count + 1)} if action == "move" else {}
        reason = f"after count {count}"
        doc = make_suggestion(batch, count, point, revision=revision, action=action, reason=reason)
        return [("suggestion", doc)]

    return answers


def taken_in(topic: FakeSuggestions) -> None:
    """Return when the plan's reader has read all that is published, and handed it over."""
    reader = topic.readers[0]
    soon(lambda: reader._next == len(topic.published))
    # It reads again only then.
    topic.publish("suggestion", make_suggestion("another", 0))
    soon(lambda: reader._next == len(topic.published))


def soon(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Return when the condition holds; it is looked at often."""
    pause = threading.Event()
    for _ in range(int(timeout / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not come to hold in time")


def pause_of(engine: RunEngine, plan: Any) -> str:
    """The engine's state after a plan that ends in an interruption."""
    with pytest.raises(RunEngineInterrupted):
        engine(plan)
    return str(engine.state)
