"""What a person or a suspender does while the plan waits for an answer."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.suspenders import SuspendBoolHigh
from bluesky.utils import RequestAbort, RequestStop, RunEngineInterrupted
from ophyd import Signal
from ophyd.sim import SynGauss

from bluesky_plugins.adaptive import StepRecommender, recommender_factory
from bluesky_plugins.plans import adaptive_plan, adaptive_scan
from bluesky_plugins.plans.waiting import Patience
from bluesky_plugins.testing import FakeRecommender, FakeSuggestions

from .conftest import Axis, pause_of, soon, steps

PLANS = [adaptive_plan, adaptive_scan]
# Of a plan, s: some slices of its wait, the first of which an interruption may use up.
PATIENCE = 1.2


class Reluctant(FakeRecommender):
    """Answers only when it is told to."""

    def __init__(self, topic: FakeSuggestions, last: int) -> None:
        super().__init__(topic, steps(last))
        self.asked = threading.Event()
        self.allowed = False

    def _answer(self, batch_id: str, count: int, revision: int) -> None:
        self.asked.set()
        if self.allowed:
            super()._answer(batch_id, count, revision)
        else:
            self.held = (batch_id, count, revision)

    def answer(self) -> None:
        """Give the answer that is awaited, and all later ones at once."""
        self.allowed = True
        self._answer(*self.held)


@pytest.fixture
def service(topic: FakeSuggestions) -> Reluctant:
    return Reluctant(topic, 2)


def once_waiting(engine: RunEngine, service: Reluctant, act: Callable[[], Any]) -> threading.Thread:
    """Act from another thread, when the plan waits for the answer."""
    waits = threading.Event()

    def hook(msg: Any) -> None:
        if msg.command == "wait_for" and service.asked.is_set():
            waits.set()

    def run() -> None:
        if waits.wait(50):
            act()

    engine.msg_hook = hook
    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("defer", [False, True])
def test_a_pause_is_served_and_the_answer_of_that_time_is_kept(
    engine: RunEngine,
    det: SynGauss,
    motor: Axis,
    topic: FakeSuggestions,
    service: Reluctant,
    plan: Any,
    defer: bool,
) -> None:
    thread = once_waiting(engine, service, lambda: engine.request_pause(defer))
    waiting = plan([det], {motor: 0}, to_recommender=service, from_recommender=topic)
    assert pause_of(engine, waiting) == "paused"
    thread.join()
    service.answer()
    engine.resume()
    assert motor.sent == [0, 1.5, 3]
    assert service.stops[-1]["exit_status"] == "success"


def test_a_pause_is_served_with_an_old_queue_too(
    engine: RunEngine, det: SynGauss, motor: Axis
) -> None:
    callback, answers = recommender_factory(StepRecommender(1.5), ["motor"], ["det"], max_count=1)
    held: list[Any] = []
    service = Reluctant(FakeSuggestions(), 0)

    def late(name: str, doc: dict[str, Any]) -> None:
        callback(name, doc)
        if name == "stop" and not held:
            held.append(answers.get_nowait())
            service.asked.set()

    thread = once_waiting(engine, service, engine.request_pause)
    plan = adaptive_plan([det], {motor: 0}, to_recommender=late, from_recommender=answers)
    assert pause_of(engine, plan) == "paused"
    thread.join()
    answers.put(held[0])
    engine.resume()
    assert motor.sent == [0, 1.5, 3]


@pytest.mark.parametrize("plan", PLANS)
def test_one_ctrl_c_pauses(
    engine: RunEngine,
    det: SynGauss,
    motor: Axis,
    topic: FakeSuggestions,
    service: Reluctant,
    plan: Any,
) -> None:
    thread = once_waiting(engine, service, lambda: os.kill(os.getpid(), signal.SIGINT))
    waiting = plan([det], {motor: 0}, to_recommender=service, from_recommender=topic)
    assert pause_of(engine, waiting) == "paused"
    thread.join()
    service.answer()
    engine.resume()
    assert motor.sent == [0, 1.5, 3]


@pytest.mark.parametrize("plan", PLANS)
def test_a_suspender_suspends_the_wait_and_its_time_does_not_count(
    engine: RunEngine,
    det: SynGauss,
    motor: Axis,
    topic: FakeSuggestions,
    service: Reluctant,
    plan: Any,
) -> None:
    beam_lost = Signal(name="beam_lost", value=0)
    suspender = SuspendBoolHigh(beam_lost)
    engine.install_suspender(suspender)
    suspended = threading.Event()

    def lose_and_regain() -> None:
        beam_lost.put(1)
        soon(lambda: suspender.tripped)
        suspended.set()
        threading.Event().wait(1.5 * PATIENCE)
        service.answer()
        beam_lost.put(0)

    thread = once_waiting(engine, service, lose_and_regain)
    engine(
        plan([det], {motor: 0}, to_recommender=service, from_recommender=topic, timeout=PATIENCE)
    )
    thread.join()
    assert suspended.is_set()
    assert motor.sent == [0, 1.5, 3]


def test_paused_time_does_not_count(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, service: Reluctant
) -> None:
    thread = once_waiting(engine, service, engine.request_pause)
    plan = adaptive_plan(
        [det], {motor: 0}, to_recommender=service, from_recommender=topic, timeout=PATIENCE
    )
    assert pause_of(engine, plan) == "paused"
    thread.join()
    threading.Event().wait(1.5 * PATIENCE)
    threading.Timer(0.02, service.answer).start()
    engine.resume()
    assert motor.sent == [0, 1.5, 3]


def test_patience_counts_no_more_than_was_asked() -> None:
    patience = Patience(1.0)
    patience.spent(3600.0, 0.5)
    assert patience.left == 0.5
    patience.renew(0.2)
    assert patience.left == 0.5
    patience.renew(9.0)
    assert patience.left == 9.0


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    ("end", "error", "status"),
    [("abort", RequestAbort, "abort"), ("stop", RequestStop, "success"), ("halt", None, "abort")],
)
def test_a_person_ends_a_paused_plan(
    engine: RunEngine,
    det: SynGauss,
    motor: Axis,
    topic: FakeSuggestions,
    service: Reluctant,
    plan: Any,
    end: str,
    error: Any,
    status: str,
) -> None:
    thread = once_waiting(engine, service, engine.request_pause)
    waiting = plan([det], {motor: 0}, to_recommender=service, from_recommender=topic)
    assert pause_of(engine, waiting) == "paused"
    thread.join()
    getattr(engine, end)()
    assert engine.state == "idle"
    ended = service.events[-1]
    assert (ended["event"], ended["outcome"]) == ("ended", "aborted")
    assert ended["reason"]
    assert motor.sent == [0]
    if plan is adaptive_scan:
        assert service.stops[-1]["exit_status"] == status
    soon(lambda: all(reader.closed for reader in topic.readers))


@pytest.mark.parametrize("plan", PLANS)
def test_an_abort_is_served_while_the_plan_waits(
    engine: RunEngine,
    det: SynGauss,
    motor: Axis,
    topic: FakeSuggestions,
    service: Reluctant,
    plan: Any,
) -> None:
    thread = once_waiting(engine, service, lambda: engine.abort("enough"))
    with pytest.raises(RunEngineInterrupted):
        engine(plan([det], {motor: 0}, to_recommender=service, from_recommender=topic))
    thread.join()
    assert engine.state == "idle"
    assert service.events[-1]["outcome"] == "aborted"
    if plan is adaptive_scan:
        assert service.stops[-1]["exit_status"] == "abort"


@pytest.mark.parametrize("plan", PLANS)
def test_an_error_in_the_middle_is_the_reason_in_the_log(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, plan: Any
) -> None:
    service = FakeRecommender(topic, steps(9))

    class Breaks(Exception):  # noqa: N818
        pass

    def at_three(value: float) -> None:
        if value == 3:
            raise Breaks("the stage is stuck")

    motor.set = lambda value: at_three(value) or Axis.set(motor, value)  # type: ignore[method-assign]
    with pytest.raises(Breaks):
        engine(plan([det], {motor: 0}, to_recommender=service, from_recommender=topic))
    assert service.events[-1]["outcome"] == "failed"
    assert service.events[-1]["reason"] == "the stage is stuck"
    assert motor.sent == [0, 1.5]
    if plan is adaptive_scan:
        assert service.stops[-1]["exit_status"] == "fail"
        assert service.stops[-1]["reason"] == "the stage is stuck"
