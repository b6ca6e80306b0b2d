"""What a plan is given: arguments, readings and devices that cannot be."""

from __future__ import annotations

from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd.sim import SynGauss

from bluesky_plugins.plans import adaptive_plan, adaptive_scan
from bluesky_plugins.plans.adaptive import TakeReadingError
from bluesky_plugins.testing import (
    FakeRecommender,
    FakeSuggestions,
    make_suggestion,
)

from .conftest import Axis, steps

PLANS = [adaptive_plan, adaptive_scan]


# -- arguments that cannot be ---------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "3", None, True, [1], 10.5, -10.5])
def test_a_bad_first_point_is_refused_before_anything_is_opened(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, value: Any
) -> None:
    service = FakeRecommender(topic, steps(1))
    plan = adaptive_plan([det], {motor: value}, to_recommender=service, from_recommender=topic)
    with pytest.raises(ValueError, match="first_point: motor="):
        engine(plan)
    assert motor.sent == []
    assert service.log == []
    assert topic.readers == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_point": {}}, "empty"),
        ({"first_point": {"motor": 0}}, "a name"),
        ({"first_point": [0]}, "mapping"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"on_timeout": "explode"}, "on_timeout"),
        ({"bounds": {"motor": (1, 0)}}, "bounds"),
        ({"bounds": {"other": (0, 1)}}, "bounds"),
        ({"bounds": {"motor": (2, 3)}}, "bounds of the batch"),
        ({"recommender": {"name": "step", "colour": "red"}}, "colour"),
        ({"recommender": {"parameters": {}}}, "name"),
        ({"recommender": {"name": "step", "parameters": {"step": object()}}}, "cannot travel"),
        ({"md": {"batch_id": 7}}, "batch_id"),
        ({"md": {"batch_id": ""}}, "batch_id"),
        ({"md": {"batch_id": "x" * 257}}, "batch_id"),
        ({"resume": "a\nb"}, "batch_id"),
        ({"md": {"batch_id": "a"}, "resume": "b"}, "resume"),
        ({"to_recommender": "to_recommender"}, "to_recommender"),
        ({"from_recommender": "from_recommender"}, "from_recommender"),
        ({"from_recommender": {}}, "from_recommender"),
    ],
)
@pytest.mark.parametrize("plan", PLANS)
def test_arguments_that_cannot_be_are_an_error_before_anything_is_opened(
    engine: RunEngine,
    det: SynGauss,
    motor: Axis,
    topic: FakeSuggestions,
    plan: Any,
    change: dict[str, Any],
    message: str,
) -> None:
    service = FakeRecommender(topic, steps(1))
    given = {
        "first_point": {motor: 0},
        "to_recommender": service,
        "from_recommender": topic,
        **change,
    }
    with pytest.raises((ValueError, TypeError), match=message):
        engine(plan([det], **given))
    assert motor.sent == []
    assert service.log == []


# -- readings that are not one point's ------------------------------------------------------


def two_runs(devices: list[Any], md: dict[str, Any]) -> Any:
    yield from bp.count(devices, md=md)
    yield from bp.count(devices, md=md)


def no_run(devices: list[Any], md: dict[str, Any]) -> Any:
    yield from bps.null()


@pytest.mark.parametrize(("reading", "said"), [(two_runs, "second run"), (no_run, "no run")])
def test_a_reading_makes_exactly_one_run(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, reading: Any, said: str
) -> None:
    service = FakeRecommender(topic, steps(1))
    plan = adaptive_plan(
        [det],
        {motor: 0},
        to_recommender=service,
        from_recommender=topic,
        take_reading=reading,
    )
    with pytest.raises(TakeReadingError, match=said):
        engine(plan)
    assert service.events[-1]["outcome"] == "failed"
    assert len(service.starts) <= 1


def two_events(devices: list[Any]) -> Any:
    yield from bps.trigger_and_read(devices)
    yield from bps.trigger_and_read(devices)


def no_event(devices: list[Any]) -> Any:
    yield from bps.null()


def a_run(devices: list[Any]) -> Any:
    yield from bpp.set_run_key_wrapper(bps.open_run(), "inner")


@pytest.mark.parametrize(
    ("reading", "said"), [(two_events, "2 events"), (no_event, "0 events"), (a_run, "a run")]
)
def test_a_reading_of_a_scan_makes_exactly_one_event(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, reading: Any, said: str
) -> None:
    service = FakeRecommender(topic, steps(1))
    plan = adaptive_scan(
        [det],
        {motor: 0},
        to_recommender=service,
        from_recommender=topic,
        take_reading=reading,
    )
    with pytest.raises(TakeReadingError, match=said):
        engine(plan)
    assert service.stops[0]["exit_status"] == "fail"


# -- devices' own word ----------------------------------------------------------------------


class Choosy(Axis):
    def check_value(self, value: float) -> None:
        if value > 2:
            raise ValueError("too far for me")


class Awaited(Axis):
    async def check_value(self, value: float) -> None:
        if value > 2:
            raise ValueError("too far for me")


@pytest.mark.parametrize("kind", [Choosy, Awaited])
def test_a_device_that_objects_is_not_moved(
    engine: RunEngine, topic: FakeSuggestions, kind: type[Axis]
) -> None:
    motor = kind("motor")

    def answers(batch: str, count: int, revision: int) -> list[tuple[str, Any]]:
        x = 3.0 if revision == 0 else 1.0
        action = "move" if count < 1 else "stop"
        doc = make_suggestion(batch, count, {"motor": x}, revision=revision, action=action)
        return [("suggestion", doc)]

    service = FakeRecommender(topic, answers)
    engine(adaptive_plan([motor], {motor: 0}, to_recommender=service, from_recommender=topic))
    assert motor.sent == [0, 1]
    refused = next(event for event in service.events if event["event"] == "refused")
    assert "too far for me" in refused["reason"]


def test_two_motors_move_together(engine: RunEngine, topic: FakeSuggestions) -> None:
    x, y = Axis("x"), Axis("y")

    def answers(batch: str, count: int, revision: int) -> list[tuple[str, Any]]:
        action = "move" if count < 2 else "stop"
        doc = make_suggestion(batch, count, {"y": -count, "x": count}, action=action)
        return [("suggestion", doc)]

    service = FakeRecommender(topic, answers)
    engine(adaptive_scan([], {x: 5, y: 6}, to_recommender=service, from_recommender=topic))
    assert (x.sent, y.sent) == ([5, 0, 1], [6, 0, -1])
    assert service.starts[0]["hints"]["dimensions"] == [(["x"], "primary"), (["y"], "primary")]


def test_parameters_of_a_recommender_may_be_numpys(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions
) -> None:
    starts: list[dict[str, Any]] = []
    engine.subscribe(lambda name, doc: starts.append(doc), "start")
    asked = {"name": "sequence", "parameters": {"sequence": np.array([1, 2]), "n": np.int64(3)}}
    plan = adaptive_plan(
        [det],
        {motor: 0},
        to_recommender=FakeRecommender(topic, steps(1)),
        from_recommender=topic,
        recommender=asked,
    )
    engine(plan)
    assert starts[0]["recommender"]["parameters"] == {"sequence": [1, 2], "n": 3}
