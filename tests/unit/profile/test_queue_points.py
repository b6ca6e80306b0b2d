import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_plugins.profile.queue_points import RefusedBodyError, check_body, refusal_of


def adaptive(point: Any) -> dict[str, Any]:
    return {"item": {"name": "adaptive_plan", "kwargs": {"dets": ["det"], "first_point": point}}}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_body_with_a_number_that_is_not_finite_is_refused_with_its_place(number: str):
    with pytest.raises(RefusedBodyError, match=r"item.args\[1\]"):
        check_body(f'{{"item": {{"args": [0, {number}]}}}}'.encode())


@pytest.mark.parametrize("point", [{}, [], "motor", 3])
def test_point_without_motors_is_refused(point: Any):
    assert refusal_of(adaptive(point)) == (
        "first_point must name at least one motor with its position"
    )


@pytest.mark.parametrize("value", ["3", None, True, [1]])
def test_position_that_is_no_number_is_refused(value: Any):
    assert "first_point.motor must be a number" in str(refusal_of(adaptive({"motor": value})))


def test_point_given_by_position_is_looked_at():
    old = {"plan": {"name": "adaptive_scan", "args": [["det"], {}]}}
    assert refusal_of(old) is not None


def test_point_in_a_batch_of_items_is_looked_at():
    item = adaptive({})["item"]
    assert refusal_of({"items": [{"name": "count"}, item]}) is not None


def test_good_point_passes():
    assert refusal_of(adaptive({"motor": 0, "motor1": 1.5})) is None


def test_missing_point_is_left_to_the_manager():
    assert refusal_of({"item": {"name": "adaptive_plan", "kwargs": {"dets": ["det"]}}}) is None


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_body_that_is_no_json_is_left_to_the_server(body: bytes):
    check_body(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(content=json_values)
def test_nothing_but_finite_numbers_passes(content: Any):
    passed = refusal_of(content) is None
    text = json.dumps(content)
    finite = True

    def seen(name: str) -> float:
        nonlocal finite
        finite = False
        return math.nan

    json.loads(text, parse_constant=seen)
    assert not passed or finite
