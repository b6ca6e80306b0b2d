"""The focus scan: what it asks of processing and of the recommender."""

from __future__ import annotations

from typing import Any

import pytest
from bluesky import RunEngine

from bluesky_plugins.plans import focus_scan
from bluesky_plugins.testing import FakeSuggestions

from .conftest import SOON


def opened(engine: RunEngine, det: Any, motor: Any, **options: Any) -> list[dict[str, Any]]:
    """The start documents of a scan that nobody answers."""
    starts: list[dict[str, Any]] = []
    plan = focus_scan(
        det,
        motor,
        -4.0,
        4.0,
        to_recommender=lambda name, doc: None,
        from_recommender=FakeSuggestions(),
        timeout=SOON,
        on_timeout="stop",
        **options,
    )
    engine(plan, lambda name, doc: starts.append(doc) if name == "start" else None)
    return starts


def test_it_asks_for_its_recipe_and_follows_the_width(
    engine: RunEngine, det: Any, motor: Any
) -> None:
    (start,) = opened(engine, det, motor)
    assert start["plan_name"] == "focus_scan"
    assert start["processing"] == [{"name": "focus"}]
    assert start["recommender"] == {
        "name": "focus",
        "parameters": {"low": -4.0, "high": 4.0, "points": 5, "tolerance": 0.05},
        "independent_keys": ["motor"],
        "dependent_keys": ["processing.focus.width"],
    }


def test_a_target_may_be_chosen(engine: RunEngine, det: Any, motor: Any) -> None:
    (start,) = opened(engine, det, motor, target="slurm")
    assert start["processing"] == [{"name": "focus", "target": "slurm"}]


def test_what_else_is_to_process_stays(engine: RunEngine, det: Any, motor: Any) -> None:
    (start,) = opened(engine, det, motor, md={"processing": ["other"], "sample": "x"})
    assert start["processing"] == ["other", {"name": "focus"}]
    assert start["sample"] == "x"


def test_a_range_outside_of_the_motors_limits_is_refused(
    engine: RunEngine, det: Any, motor: Any
) -> None:
    with pytest.raises(ValueError, match="limits"):
        engine(focus_scan(det, motor, -40.0, 4.0, from_recommender=FakeSuggestions()))
    assert motor.sent == []
