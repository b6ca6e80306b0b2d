"""One suite for the store of batches: on mongomock, the embedded server and a real MongoDB."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import mongomock
import pytest

from bluesky_plugins.adaptive import BatchStore
from bluesky_plugins.adaptive.store import UnstorableError
from bluesky_plugins.settings import Settings

# The servers may have to start first, side by side with those of other tests.
pytestmark = [pytest.mark.contract, pytest.mark.timeout(240)]
SECONDS = 30.0


@pytest.fixture(params=["fake", "embedded", "facility"])
def store(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings]
) -> Iterator[BatchStore]:
    fake = request.param == "fake"
    uri = "mongodb://nowhere" if fake else request.getfixturevalue(f"{request.param}_mongo")
    unused = {"redis": {"url": "redis://nowhere"}, "kafka": {"bootstrap_servers": "nowhere:1"}}
    settings = make_settings(mongo={"uri": uri}, **unused)
    client: Any = mongomock.MongoClient() if fake else None
    made = BatchStore(client, settings) if fake else BatchStore.from_settings(settings, SECONDS)
    made.make_indexes()
    made.make_indexes()
    yield made
    made.close()


def record(entries: int, **fields: Any) -> dict[str, Any]:
    given = {"batch_id": "b", "state": "open", "entries": entries, "last_time": 1.0, "story": []}
    return {**given, **fields}


def suggestion(count: int, revision: int = 0, **fields: Any) -> dict[str, Any]:
    uid = f"{count}/{revision}"
    return {"uid": uid, "batch_id": "b", "batch_count": count, "revision": revision, **fields}


def test_an_older_record_does_not_replace_a_newer_one(store: BatchStore) -> None:
    store.write_batches([record(5, reason="new")])
    store.write_batches([record(3, reason="old")])
    assert store.batch("b") == record(5, reason="new")
    store.write_batches([record(5, reason="same entries, newer state")])
    found = store.batch("b")
    assert found is not None
    assert found["reason"] == "same entries, newer state"


def test_repeats_are_no_errors_and_the_first_suggestion_stands(store: BatchStore) -> None:
    store.write_suggestions([suggestion(0, point={"x": 1.0})])
    store.write_suggestions([suggestion(0, point={"x": 2.0}), suggestion(1)])
    assert [doc["batch_count"] for doc in store.batch_suggestions("b")] == [0, 1]
    assert store.batch_suggestions("b")[0]["point"] == {"x": 1.0}


def test_suggestions_come_in_order_with_what_is_not_finite(store: BatchStore) -> None:
    late = suggestion(1, 1, point={"x": math.nan, "y": math.inf})
    store.write_suggestions([late, suggestion(0), suggestion(1, 0)])
    found = store.batch_suggestions("b")
    assert [doc["uid"] for doc in found] == ["0/0", "1/0", "1/1"]
    assert math.isnan(found[2]["point"]["x"])
    assert found[2]["point"]["y"] == math.inf


def test_a_log_is_kept_once_and_in_order(store: BatchStore) -> None:
    entries = [{"batch_id": "b", "n": n, "uid": str(n)} for n in range(12)]
    store.write_log(entries[6:])
    store.write_log(entries)
    assert store.log("b") == entries


def test_batches_are_found_newest_first_page_by_page(store: BatchStore) -> None:
    for n in range(5):
        state = "ended" if n % 2 else "open"
        store.write_batches([record(1, batch_id=f"b{n}", last_time=float(n), state=state)])
    total, page = store.find_batches({}, limit=2, skip=1)
    assert (total, [found["batch_id"] for found in page]) == (5, ["b3", "b2"])
    total, page = store.find_batches({"state": "ended"}, limit=5, skip=0)
    assert (total, [found["batch_id"] for found in page]) == (2, ["b3", "b1"])
    assert "story" not in page[0]


def test_what_is_not_there_is_none(store: BatchStore) -> None:
    assert store.batch("none") is None
    assert store.batch_suggestions("none") == []
    assert store.log("none") == []
    assert store.document("event", "none") is None


# mongomock stores any integer.
@pytest.mark.parametrize("store", ["embedded", "facility"], indirect=True)
def test_what_can_never_be_stored_is_told_apart(store: BatchStore) -> None:
    with pytest.raises(UnstorableError):
        store.write_log([{"batch_id": "b", "n": 2**70}])
