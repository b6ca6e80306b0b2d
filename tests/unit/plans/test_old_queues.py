"""Callbacks and queues of old profiles."""

from __future__ import annotations

import queue
from typing import Any

import bluesky.plans as bp
import pytest
from bluesky import RunEngine
from ophyd.sim import SynGauss

from bluesky_plugins.adaptive import (
    RequestPause,
    StepRecommender,
    recommender_factory,
)
from bluesky_plugins.plans import Refusal, adaptive_plan

from .conftest import Axis, pause_of, running_engine

POINTS = [1.5 * n for n in range(17)]


def test_seventeen_runs_with_a_recommender_in_the_same_process(
    engine: RunEngine, det: SynGauss, motor: Axis
) -> None:
    motor.limits = (0, 0)  # type: ignore[misc]
    callback, answers = recommender_factory(StepRecommender(1.5), ["motor"], ["det"], max_count=15)
    starts: list[Any] = []
    engine.subscribe(lambda name, doc: starts.append(doc), "start")
    plan = adaptive_plan([det], {motor: 0}, to_recommender=callback, from_recommender=answers)
    uids = engine(plan)
    assert motor.sent == POINTS
    assert uids == tuple(doc["uid"] for doc in starts)
    assert [doc["batch_count"] for doc in starts] == list(range(17))
    assert {doc["batch_mode"] for doc in starts} == {"run"}
    assert len({doc["batch_id"] for doc in starts}) == 1


def test_the_plan_returns_its_uids(det: SynGauss, motor: Axis) -> None:
    callback, answers = recommender_factory(StepRecommender(1.5), ["motor"], ["det"], max_count=1)
    plan = adaptive_plan([det], {motor: 0}, to_recommender=callback, from_recommender=answers)
    with running_engine(call_returns_result=True) as engine:
        result = engine(plan)
    assert result.plan_result == list(result.run_start_uids)
    assert len(result.plan_result) == 3


def test_what_lies_in_the_queue_before_the_plan_is_thrown_away(
    engine: RunEngine, det: SynGauss, motor: Axis
) -> None:
    callback, answers = recommender_factory(StepRecommender(1.5), ["motor"], ["det"], max_count=2)
    for old in ({"motor": 9}, None, {"motor": 8}):
        answers.put(old)
    engine(adaptive_plan([det], {motor: 0}, to_recommender=callback, from_recommender=answers))
    assert motor.sent == [0, 1.5, 3, 4.5]


def test_an_old_answer_that_comes_before_a_run_does_not_shift_the_others(
    engine: RunEngine, det: SynGauss, motor: Axis
) -> None:
    callback, answers = recommender_factory(StepRecommender(1.5), ["motor"], ["det"], max_count=3)
    motor.subscribe(lambda **_: answers.put({"motor": 9.0}), run=False)  # while it moves
    engine(adaptive_plan([det], {motor: 0}, to_recommender=callback, from_recommender=answers))
    assert motor.sent == [0, 1.5, 3, 4.5, 6]


def test_a_run_of_three_events_is_answered_once(
    engine: RunEngine, det: SynGauss, motor: Axis
) -> None:
    def three(devices: list[Any], md: dict[str, Any]) -> Any:
        return (yield from bp.count(devices, num=3, md=md))

    callback, answers = recommender_factory(StepRecommender(1.5), ["motor"], ["det"], max_count=3)
    plan = adaptive_plan(
        [det], {motor: 0}, to_recommender=callback, from_recommender=answers, take_reading=three
    )
    assert len(engine(plan)) == 5
    assert motor.sent == [0, 1.5, 3, 4.5, 6]
    assert answers.empty()


def test_an_old_recommender_that_answers_each_event_is_taken_once_a_run(
    engine: RunEngine, det: SynGauss, motor: Axis
) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    seen: list[float] = []

    def per_event(name: str, doc: dict[str, Any]) -> None:
        if name == "event":
            seen.append(doc["data"]["motor"])
            answers.put({"motor": seen[-1] + 1} if len(seen) < 7 else None)

    def three(devices: list[Any], md: dict[str, Any]) -> Any:
        return (yield from bp.count(devices, num=3, md=md))

    plan = adaptive_plan(
        [det], {motor: 0}, to_recommender=per_event, from_recommender=answers, take_reading=three
    )
    engine(plan)
    assert motor.sent == [0, 1, 2]
    assert answers.empty()


@pytest.mark.parametrize("bad", [{"motor": float("nan")}, {"other": 1}, {}, "text", {"motor": 11}])
def test_a_bad_answer_of_an_old_queue_ends_the_plan_and_moves_nothing(
    engine: RunEngine, det: SynGauss, motor: Axis, bad: Any
) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    plan = adaptive_plan(
        [det],
        {motor: 0},
        to_recommender=lambda name, doc: answers.put(bad) if name == "stop" else None,
        from_recommender=answers,
    )
    with pytest.raises(Refusal, match="count 0"):
        engine(plan)
    assert motor.sent == [0]


def test_an_error_that_an_old_recommender_puts_is_raised_in_the_plan(
    engine: RunEngine, det: SynGauss, motor: Axis
) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    plan = adaptive_plan(
        [det],
        {motor: 0},
        to_recommender=lambda name, doc: answers.put(KeyError("det")) if name == "stop" else None,
        from_recommender=answers,
    )
    with pytest.raises(KeyError, match="det"):
        engine(plan)


def test_a_pause_of_a_recommender_in_process_goes_on_after_resume(
    engine: RunEngine, det: SynGauss, motor: Axis
) -> None:
    class Pausing(StepRecommender):
        paused = False

        def suggest(self, n: int = 1) -> Any:
            if self._last is not None and self._last[0] == 1.5 and not self.paused:
                self.paused = True
                raise RequestPause("look first")
            return super().suggest(n)

    callback, answers = recommender_factory(Pausing(1.5), ["motor"], ["det"], max_count=3)
    plan = adaptive_plan([det], {motor: 0}, to_recommender=callback, from_recommender=answers)
    assert pause_of(engine, plan) == "paused"
    engine.resume()
    assert motor.sent == [0, 1.5, 3, 4.5, 6]
