"""What the gate lets through, and what not."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_plugins.plans.gate import Refusal, checked_bounds, checked_point, usable_limits

ANYTHING = st.one_of(
    st.floats(),
    st.integers(),
    st.booleans(),
    st.text("ab1. ", max_size=3),
    st.none(),
    st.lists(st.floats(), max_size=2),
    st.complex_numbers(),
    st.binary(max_size=2),
    st.decimals(),
)


@pytest.mark.parametrize("value", [1, 1.5, np.float32(1.5), np.int64(1), -0.0])
def test_real_finite_numbers_pass_as_plain_floats(value: object) -> None:
    point = checked_point({"motor": value}, ["motor"])
    assert point == {"motor": value}
    assert type(point["motor"]) is float


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        np.float64("nan"),
        True,
        np.bool_(True),
        "3",
        b"3",
        None,
        [1.0],
        {"value": 1.0},
        np.array(1.0),
        np.array([1.0]),
        1j,
        Decimal(1),
        10**400,
    ],
)
def test_what_is_no_finite_real_number_is_refused_with_its_key(value: object) -> None:
    with pytest.raises(Refusal, match="motor"):
        checked_point({"motor": value}, ["motor"])


@pytest.mark.parametrize("point", [{}, {"other": 1.0}, None, [1.0], 1.0, "motor", [("motor", 1)]])
def test_a_point_without_the_motor_is_refused(point: object) -> None:
    with pytest.raises(Refusal):
        checked_point(point, ["motor"])


def test_an_extra_key_is_refused_by_its_name() -> None:
    with pytest.raises(Refusal, match="shutter"):
        checked_point({"motor": 1.0, "shutter": 0.0}, ["motor"])


@pytest.mark.parametrize("value", [-1.0, 2.0])
def test_the_ends_of_a_range_are_inside(value: float) -> None:
    ranges = [("bounds", {"motor": (-1.0, 2.0)})]
    assert checked_point({"motor": value}, ["motor"], ranges) == {"motor": value}


@pytest.mark.parametrize("value", [-1.0000001, 2.0000001])
def test_outside_any_range_is_refused_with_the_range(value: float) -> None:
    ranges = [("limits", {}), ("bounds", {"motor": (-1.0, 2.0)})]
    with pytest.raises(Refusal, match=r"bounds \[-1, 2\]"):
        checked_point({"motor": value}, ["motor"], ranges)


@given(st.dictionaries(st.sampled_from(["motor", "other", "x"]), ANYTHING))
def test_whatever_comes_only_finite_floats_inside_leave(point: dict[str, object]) -> None:
    try:
        numbers = checked_point(point, ["motor", "x"], [("bounds", {"motor": (-5.0, 5.0)})])
    except Refusal:
        return
    assert set(numbers) == {"motor", "x"}
    assert all(type(v) is float and math.isfinite(v) for v in numbers.values())
    assert -5 <= numbers["motor"] <= 5


@pytest.mark.parametrize(
    "limits",
    [
        None,
        (0, 0),
        (5, 1),
        (3.0, 3.0),
        (None, None),
        (math.nan, math.nan),
        7,
        (1, 2, 3),
        ("a", "b"),
    ],
)
def test_these_limits_mean_none(limits: object) -> None:
    assert usable_limits(limits) is None


@pytest.mark.parametrize(
    ("limits", "pair"),
    [
        ((-1, 2), (-1.0, 2.0)),
        (np.array([-1.0, 2.0]), (-1.0, 2.0)),
        ((None, 2), (-math.inf, 2.0)),
        ((0, math.nan), (0.0, math.inf)),
    ],
)
def test_limits_as_a_range(limits: object, pair: tuple[float, float]) -> None:
    assert usable_limits(limits) == pair


@pytest.mark.parametrize(
    "bounds",
    [
        {"other": (0, 1)},
        {"motor": 1},
        {"motor": (1,)},
        {"motor": (2, 1)},
        {"motor": (math.nan, 1)},
        {"motor": ("0", 1)},
        [(0, 1)],
    ],
)
def test_bounds_that_cannot_be_are_an_error(bounds: object) -> None:
    with pytest.raises(ValueError, match="bounds"):
        checked_bounds(bounds, ["motor"])
