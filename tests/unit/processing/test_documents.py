"""The documents of a run as placeholders see them."""

from __future__ import annotations

from typing import Any

import pytest

from bluesky_plugins.processing.recipes.documents import RunDocuments

START = {"uid": "run-uid"}
DESCRIPTOR = {
    "uid": "d",
    "name": "primary",
    "data_keys": {"motor": {}, "image": {"external": "FILESTORE:"}},
}
RESOURCE = {
    "uid": "res",
    "root": "/data/",
    "resource_path": "/2024/cam.h5",
    "spec": "BP_CAMERA_HDF5",
}


def event(n: int, **data: Any) -> dict[str, Any]:
    return {"uid": f"e{n}", "descriptor": "d", "seq_num": n, "data": data, "timestamps": {}}


def run(*documents: tuple[str, Any]) -> RunDocuments:
    one = RunDocuments(START)
    for name, doc in documents:
        one = one.with_document(name, doc)
    return one


def test_of_the_events_the_last_of_each_stream_is_kept() -> None:
    other = {"uid": "d2", "name": "baseline", "data_keys": {}}
    one = run(
        ("descriptor", DESCRIPTOR),
        ("descriptor", other),
        ("event", event(1, motor=1.0)),
        ("event", {**event(1), "descriptor": "d2"}),
        ("event", event(2, motor=2.0)),
        ("event", event(1, motor=1.0)),
    )
    assert one.events["primary"]["data"] == {"motor": 2.0}
    assert one.events["baseline"]["seq_num"] == 1


def test_pages_of_events_are_events() -> None:
    page = {
        "descriptor": "d",
        "seq_num": [1, 2],
        "time": [0.0, 1.0],
        "uid": ["e1", "e2"],
        "data": {"motor": [1.0, 2.0]},
        "timestamps": {"motor": [0.0, 1.0]},
        "filled": {},
    }
    one = run(("descriptor", DESCRIPTOR), ("event_page", page))
    assert one.events["primary"]["data"] == {"motor": 2.0}


def test_a_resource_is_a_file_and_an_event_says_whose() -> None:
    one = run(("resource", RESOURCE), ("resource", RESOURCE), ("descriptor", DESCRIPTOR))
    (file,) = one.files
    assert (file.path, file.spec, file.data_key) == ("/data/2024/cam.h5", "BP_CAMERA_HDF5", None)
    one = one.with_document("event", event(1, motor=1.0, image="res/0"))
    assert one.files[0].data_key == "image"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file://localhost/data/a%20b.h5", "/data/a b.h5"),
        ("file:///data/x.h5", "/data/x.h5"),
        ("https://example.org/x.h5", None),
        ("file://elsewhere/x.h5", None),
    ],
)
def test_a_stream_resource_is_a_file_where_it_is_here(uri: str, path: str | None) -> None:
    doc = {"uid": "s", "uri": uri, "data_key": "image", "mimetype": "application/x-hdf5"}
    files = run(("stream_resource", doc)).files
    assert [file.path for file in files] == ([] if path is None else [path])
    assert all(file.data_key == "image" for file in files)


def test_an_event_without_its_descriptor_changes_nothing() -> None:
    assert run(("event", event(1))) == run()


def test_documents_of_other_kinds_change_nothing() -> None:
    assert run(("datum", {"datum_id": "res/0"})) == run()
