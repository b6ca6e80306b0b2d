import json
import math
from typing import Any

import bson
import event_model
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluesky_plugins.recording import InvalidDocumentError, records_of, same_content
from bluesky_plugins.testing.runs import composed_event, composed_run

numbers = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.booleans(), st.none(), st.text(max_size=5)
)
arrays = st.lists(st.floats(), max_size=4).map(np.array) | st.integers(0, 9).map(np.int32)
values = st.recursive(
    numbers | arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text("abc$.", max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_every_document_of_a_run_is_stored_as_it_is() -> None:
    for name, doc in composed_run(camera=True):
        (record,) = records_of(name, doc)
        assert record.content() == doc


@settings(deadline=None)  # the first numpy array has event-model import dask
@given(values)
def test_values_are_stored_as_suitcase_sanitizes_them(value: Any) -> None:
    (record,) = records_of("event", composed_event(data={"x": value}))
    expected = event_model.sanitize_doc({"x": value})
    assert same_content(record.content()["data"], expected)


mutations = st.fixed_dictionaries(
    {},
    optional={
        "uid": st.text(max_size=3) | numbers,
        "seq_num": numbers | st.just(1.0),
        "time": numbers,
        "filled": st.dictionaries(st.text("ab"), numbers, max_size=2) | numbers,
        "data": st.dictionaries(st.text("ab"), numbers, max_size=2) | numbers,
        "timestamps": st.just({}) | numbers,
        "extra": numbers,
    },
)


@given(mutations, st.sampled_from(["uid", "seq_num", "time", "data", "filled", "descriptor", ""]))
def test_the_short_way_accepts_nothing_that_the_schema_refuses(
    changes: dict[str, Any], missing: str
) -> None:
    doc = composed_event(**changes)
    doc.pop(missing, None)
    valid = event_model.schema_validators[event_model.DocumentNames.event].is_valid(doc)
    try:
        records_of("event", doc)
        accepted = True
    except InvalidDocumentError as error:
        accepted = "8-byte ints" in str(error) or "surrogates" in str(error)
    assert accepted == valid


def test_a_page_is_stored_as_its_events() -> None:
    events = [composed_event(seq_num=i, data={"motor": float(i)}) for i in (1, 2, 3)]
    records = records_of("event_page", event_model.pack_event_page(*events), source=7)
    assert [r.content() for r in records] == events
    assert [(r.name, r.source) for r in records] == [("event", 7)] * 3


def test_a_datum_page_is_stored_as_its_data() -> None:
    data = [{"datum_id": f"r/{i}", "resource": "r", "datum_kwargs": {"index": i}} for i in (0, 1)]
    records = records_of("datum_page", event_model.pack_datum_page(*data))
    assert [r.content() for r in records] == data
    assert [r.key for r in records] == ["r/0", "r/1"]


def test_deprecated_bulk_events_are_stored_as_events() -> None:
    event = composed_event()
    (record,) = records_of("bulk_events", {"primary": [event]})
    assert record.content() == event


@pytest.mark.parametrize("column", ["uid", "data", "timestamps", "filled"])
def test_a_ragged_page_is_refused(column: str) -> None:
    page = json.loads(json.dumps(event_model.pack_event_page(composed_event(), composed_event())))
    if column == "uid":
        page["uid"].pop()
    else:
        page[column]["motor"] = [False]
    with pytest.raises(InvalidDocumentError, match="different lengths"):
        records_of("event_page", page)


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else 1


HOSTILE = {
    "more than 64 bits": (composed_event(data={"x": 2**64}), "8-byte"),
    "a key with NUL": (composed_event(data={"a\0b": 1}), "."),
    "a key that is no text": (composed_event(data={1: 2}), "not text"),
    "half a surrogate pair": (composed_event(data={"x": "\ud800"}), "surrogates"),
    "complex numbers": (composed_event(data={"x": np.zeros(2, complex)}), "complex"),
    "17 MB": (composed_event(data={"x": "a" * 17_000_000}), "more than"),
    "too deep": (composed_event(data={"x": nested(300)}), "nested"),
    "no uid": ({"time": 1.0}, "uid"),
    "an _id": ({"uid": "u", "time": 1.0, "_id": 5}, "_id"),
    "not a mapping": ([1, 2], "object"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_mongodb_cannot_store_is_refused_with_the_reason(what: str) -> None:
    doc, reason = HOSTILE[what]
    name = "start" if what in ("no uid", "an _id") else "event"
    with pytest.raises(InvalidDocumentError, match=reason) as caught:
        records_of(name, doc)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 500


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InvalidDocumentError, match="'strat' is not the name"):
        records_of("strat", {"uid": "u", "time": 1.0})


def test_documents_newer_than_databroker_are_stored() -> None:
    resource = {
        "uid": "sr",
        "data_key": "image",
        "mimetype": "application/x-hdf5",
        "uri": "file://localhost/a.h5",
        "parameters": {},
        "run_start": "u",
    }
    datum = {
        "uid": "sr/0",
        "stream_resource": "sr",
        "descriptor": "d",
        "seq_nums": {"start": 1, "stop": 2},
        "indices": {"start": 0, "stop": 1},
    }
    for name, doc in (("stream_resource", resource), ("stream_datum", datum)):
        assert [r.content() for r in records_of(name, doc)] == [doc]


def test_nan_infinity_and_bytes_survive() -> None:
    data = {"nan": math.nan, "inf": -math.inf, "bytes": b"\0\xff", "tiny": 5e-324, "big": 2**63 - 1}
    (record,) = records_of("event", composed_event(data=data))
    assert same_content(record.content()["data"], data)


@given(values, values)
def test_content_is_the_same_only_when_it_is_encoded_the_same(one: Any, other: Any) -> None:
    a, b = (records_of("event", composed_event(data={"x": v}))[0].content() for v in (one, other))
    same = same_content(a["data"], b["data"])
    if bson.encode(a["data"]) == bson.encode(b["data"]):
        assert same


def test_true_is_not_one() -> None:
    assert not same_content({"a": [True]}, {"a": [1]})
    assert not same_content({"a": 1}, {"a": 1, "b": 2})
    assert not same_content([1, 2], [1])
    assert same_content([math.nan, 1], [math.nan, 1.0])
