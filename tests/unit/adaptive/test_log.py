"""The canonical form of an entry: the same from Kafka and from MongoDB."""

from __future__ import annotations

import math
from typing import Any

import bson
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bluesky_plugins.adaptive.log import BatchLog, Cause, ConflictingEntry, canonical, entries_of
from bluesky_plugins.messaging import decode, encode

CAUSE = Cause("adaptive", 0, 0)
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=5)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(width=64)
    | st.text(st.characters(codec="utf-8"), max_size=10)
    | st.binary(max_size=10)
)
ARRAYS = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.int64, np.int16, np.uint8, np.bool_]),
    hnp.array_shapes(max_dims=3, max_side=3),
)
NUMBERS = ARRAYS.map(lambda array: array.ravel()[0])
VALUES = st.recursive(
    SCALARS | ARRAYS | NUMBERS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=10,
)
DOCS = st.dictionaries(KEYS, VALUES, max_size=4)


def as_stored(value: Any) -> Any:
    """What the recorder makes of a document before MongoDB takes it."""
    match value:
        case np.ndarray() | np.generic():
            return value.tolist()
        case dict():
            return {key: as_stored(inner) for key, inner in value.items()}
        case list() | tuple():
            return [as_stored(inner) for inner in value]
        case _:
            return value


@given(DOCS)
def test_kafka_and_mongodb_give_the_same_canonical_form(doc: dict[str, Any]) -> None:
    _, over_kafka = decode(encode("event", doc))
    from_mongodb = bson.decode(bson.encode(as_stored(doc)))
    assert canonical(over_kafka) == canonical(from_mongodb) == canonical(doc)


@given(DOCS)
def test_the_order_of_keys_does_not_matter(doc: dict[str, Any]) -> None:
    assert canonical(dict(reversed(doc.items()))) == canonical(doc)


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (0.0, -0.0), (1, True), (0.1, 0.1 + 2**-56), (1, "1"), (None, "")]
)
def test_what_differs_differs_in_its_canonical_form(one: Any, other: Any) -> None:
    assert canonical({"x": one}) != canonical({"x": other})


def test_nan_is_the_same_as_nan() -> None:
    assert canonical({"x": math.nan}) == canonical({"x": np.float32("nan")})


def test_an_entry_is_logged_once() -> None:
    log = BatchLog()
    first = log.append("event", "u", {"a": np.array([1.0])}, CAUSE, 1.0)
    assert first is not None
    assert log.append("event", "u", {"a": [1.0]}, CAUSE, 2.0) is None
    second = log.append("stop", "u", {"a": [1.0]}, CAUSE, 2.0)
    assert second is not None
    assert (first.n, second.n) == (0, 1)
    assert first.digest != second.digest


def test_another_content_under_the_same_uid_is_told() -> None:
    log = BatchLog()
    log.append("event", "u", {"a": 1}, CAUSE, 1.0)
    with pytest.raises(ConflictingEntry, match="event u came again with other content"):
        log.append("event", "u", {"a": 2}, CAUSE, 1.0)


def test_pages_are_their_events() -> None:
    page = {
        "uid": ["a", "b"],
        "descriptor": "d",
        "seq_num": [1, 2],
        "time": [1.0, 2.0],
        "data": {"x": [3.0, 4.0]},
        "timestamps": {"x": [1.0, 2.0]},
        "filled": {},
    }
    found = list(entries_of("event_page", page))
    assert [(name, uid, doc["data"]) for name, uid, doc in found] == [
        ("event", "a", {"x": 3.0}),
        ("event", "b", {"x": 4.0}),
    ]
