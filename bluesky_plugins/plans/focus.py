"""Find the best focus by the width that processing sees in a camera's frames.

Annotations are evaluated here: the queueserver reads them as text, and quoted ones are no types.
"""

from collections.abc import Mapping
from typing import Any

from bluesky_plugins.plans.adaptive import adaptive_plan
from bluesky_plugins.plans.waiting import Plan

__all__ = ["focus_scan"]


def focus_scan(
    camera: Any,
    motor: Any,
    low: float,
    high: float,
    *,
    points: int = 5,
    tolerance: float = 0.05,
    recipe: str = "focus",
    target: Any = None,
    md: Any = None,
    to_recommender: Any = None,
    from_recommender: Any = None,
    timeout: float = 60.0,
    on_timeout: str = "fail",
) -> Plan[list[str]]:
    """Move `motor` to where the spot on `camera` is narrowest; one run for each point.

    Each run is processed by `recipe`; its number `width` is what recommender `focus` follows.

    :param low: least position, in the motor's units; measured first.
    :param high: largest position.
    :param points: of the coarse scan, both ends included.
    :param tolerance: the focus is found when a point moves it by less, in the motor's units.
    :param target: which of the recipe's targets processes; None leaves it to the recipe.
    :param md: metadata for each run.
    :param to_recommender: as of `adaptive_plan`, and so are from_recommender, timeout, on_timeout.
    :return: uids of the runs.
    :raises AdaptiveTimeout: no answer in time, with on_timeout "fail".
    :raises ValueError: for a range outside of the motor's limits; nothing was opened.
    """
    named = {"name": recipe} if target is None else {"name": recipe, "target": target}
    about: Mapping[str, Any] = {"plan_name": "focus_scan", **(md or {})}
    recommender = {
        "name": "focus",
        "parameters": {"low": low, "high": high, "points": points, "tolerance": tolerance},
        "independent_keys": [motor.name],
        "dependent_keys": [f"processing.{recipe}.width"],
    }
    return (
        yield from adaptive_plan(
            [camera],
            {motor: low},
            to_recommender=to_recommender,
            from_recommender=from_recommender,
            md={**about, "processing": [*about.get("processing", ()), named]},
            recommender=recommender,
            bounds={motor: (low, high)},
            timeout=timeout,
            on_timeout=on_timeout,
        )
    )
