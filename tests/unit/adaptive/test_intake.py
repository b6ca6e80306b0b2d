"""The door of the log."""

from __future__ import annotations

from typing import Any

import pytest

from bluesky_plugins.adaptive.intake import Garbage, Intake, read_suggestion
from bluesky_plugins.testing import batches


def test_documents_find_their_batch_by_the_start() -> None:
    intake = Intake()
    found = [
        routed
        for name, doc in batches.run(0, {"motor": 0.0, "det": 1.0})
        for routed in intake.read(name, doc)
    ]
    assert [(routed.batch_id, routed.name) for routed in found] == [
        (batches.BATCH, name) for name in ("start", "descriptor", "event", "stop")
    ]


def test_external_data_find_their_batch_by_the_resource() -> None:
    intake = Intake()
    intake.read(*batches.start(0))
    resource = {"uid": "r", "run_start": "run0", "spec": "X"}
    datum = {"datum_id": "r/0", "resource": "r", "datum_kwargs": {}}
    page = {"datum_id": ["r/1", "r/2"], "resource": "r", "datum_kwargs": {"n": [1, 2]}}
    assert [routed.uid for routed in intake.read("resource", resource)] == ["r"]
    assert [routed.uid for routed in intake.read("datum", datum)] == ["r/0"]
    assert [routed.uid for routed in intake.read("datum_page", page)] == ["r/1", "r/2"]


def test_a_forgotten_batch_is_foreign() -> None:
    intake = Intake()
    intake.read(*batches.start(0))
    intake.forget(batches.BATCH)
    assert intake.read(*batches.stop("run0")) == []
    assert intake.foreign == 1


PAGE = {
    "uid": ["a", "b"],
    "descriptor": "d",
    "seq_num": [1],
    "time": [1.0, 2.0],
    "data": {},
    "timestamps": {},
    "filled": {},
}


@pytest.mark.parametrize(
    ("name", "doc", "reason"),
    [
        ("start", {}, "uid"),
        ("start", {"uid": "u", "time": 1.0, "batch_id": 3}, "batch_id"),
        ("start", {"uid": "u", "time": 1.0, "batch_id": ""}, "batch_id"),
        ("start", {"uid": "u", "time": 1.0, "batch_id": "b", "batch_count": "0"}, "batch_count"),
        ("start", {"uid": "u", "time": 1.0, "batch_id": "b", "batch_count": True}, "batch_count"),
        ("start", {"uid": "u", "time": 1.0, "batch_id": "b", "batch_mode": "x"}, "batch_mode"),
        ("stop", {"uid": "u", "time": 1.0, "run_start": "r", "exit_status": "ok"}, "exit_status"),
        ("event", {"uid": "u", "time": 1.0, "descriptor": "d", "seq_num": 0, "data": {}}, "seq"),
        ("event_page", PAGE, "columns of different lengths"),
        ("event_page", {"uid": 3}, "breaks the event model"),
        ("datum", {"resource": "r"}, "datum_id"),
        ("bulk_events", {}, "unknown name"),
        ("rm -rf", {"uid": "u"}, "unknown name"),
        ("command", {"uid": "u", "batch_id": "b", "command": "explode", "time": 1.0}, "command"),
        ("result", {"uid": "u", "batch_id": "b"}, "run"),
    ],
)
def test_what_breaks_the_model_is_garbage(name: str, doc: dict[str, Any], reason: str) -> None:
    with pytest.raises(Garbage, match=reason):
        Intake().read(name, doc)


def test_what_mongodb_cannot_hold_is_garbage() -> None:
    name, doc = batches.opened(recommender={"name": "x", "parameters": {"n": 2**64 - 1}})
    with pytest.raises(Garbage, match="cannot be stored"):
        Intake().read(name, doc)


@pytest.mark.parametrize("name", ["suggestion", "waiting", "other"])
def test_no_suggestion_is_garbage(name: str) -> None:
    with pytest.raises(Garbage):
        read_suggestion(name, {"batch_id": "b"})
