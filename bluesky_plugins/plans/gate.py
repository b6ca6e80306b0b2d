"""The gate before motion: what may be sent to a motor. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["Refusal", "checked_bounds", "checked_point", "usable_limits"]

Range = tuple[float, float]


class Refusal(ValueError):  # noqa: N818 - it is a decision, not an error
    """A point that must not be moved to; the text names key and value."""


def checked_point(
    point: Any, motors: Iterable[str], ranges: Iterable[tuple[str, Mapping[str, Range]]] = ()
) -> dict[str, float]:
    """The point as plain floats.

    :param point: data key -> position, in the motors' units.
    :param motors: the data keys it must have, no more and no fewer.
    :param ranges: pairs (what they are called, data key -> (low, high), both included).
    :raises Refusal: naming key and value.
    """
    wanted = list(motors)
    if not isinstance(point, Mapping):
        raise Refusal(f"a point is a mapping of motor names to numbers, not {_short(point)}")
    missing = [key for key in wanted if key not in point]
    if missing:
        raise Refusal(f"no value for {', '.join(missing)} in {_short(dict(point))}")
    extra = [_short(key) for key in point if key not in wanted]
    if extra:
        raise Refusal(f"{', '.join(extra)}: no such motor in this plan ({', '.join(wanted)})")
    numbers = {key: checked_number(key, point[key]) for key in wanted}
    for called, limits in ranges:
        for key, value in numbers.items():
            low, high = limits.get(key, (-math.inf, math.inf))
            if not low <= value <= high:
                raise Refusal(f"{key}={value:g} is outside the {called} [{low:g}, {high:g}]")
    return numbers


def checked_number(key: str, value: Any) -> float:
    """A real finite number, as a float.

    :raises Refusal: for anything else, bool, str, None and arrays included.
    """
    real = isinstance(value, int | float | np.integer | np.floating)
    if not real or isinstance(value, bool):
        raise Refusal(f"{key}={_short(value)} is not a number")
    try:
        number = float(value)
    except OverflowError:
        raise Refusal(f"{key}={_short(value)} is too large") from None
    if not math.isfinite(number):
        raise Refusal(f"{key}={number} is not finite")
    return number


def checked_bounds(bounds: Any, motors: Iterable[str]) -> dict[str, Range]:
    """The batch's own bounds: data key -> (low, high), both included.

    :raises ValueError: for a motor that is not there, or a pair that is no range.
    """
    if bounds is None:
        return {}
    if not isinstance(bounds, Mapping):
        raise ValueError(f"bounds: a mapping of names to (low, high), not {_short(bounds)}")
    wanted = list(motors)
    return {key: _range(wanted, key, pair) for key, pair in bounds.items()}


def _range(motors: list[str], key: Any, pair: Any) -> Range:
    if key not in motors:
        raise ValueError(f"bounds of {_short(key)}: no such motor ({', '.join(motors)})")
    try:
        low, high = pair
    except (TypeError, ValueError):
        raise ValueError(f"bounds of {key}: (low, high), not {_short(pair)}") from None
    low, high = (checked_number(f"bounds of {key}", value) for value in (low, high))
    if low > high:
        raise ValueError(f"bounds of {key}: low {low:g} is above high {high:g}")
    return low, high


def usable_limits(limits: Any) -> Range | None:
    """A device's `limits` as a range; None where it has none.

    As in EPICS, low >= high (so (0, 0) too) means no limits. A side that is no number is open.
    """
    try:
        low, high = (_side(value) for value in limits)
    except (TypeError, ValueError):
        return None
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    return (low, high) if low < high and (low, high) != (-math.inf, math.inf) else None


def _side(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    return None if math.isnan(value) else float(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
