"""Documents of whole runs, composed by event-model itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import event_model

__all__ = ["composed_event", "composed_run"]

Pairs = list[tuple[str, dict[str, Any]]]


def composed_run(points: int = 3, *, camera: bool = False, **md: Any) -> Pairs:
    """The `(name, document)` pairs of a run: start, descriptor, events, stop.

    :param points: number of events, with motor at 0, 1.5, 3 ... and det at 0, 1, 2 ...
    :param camera: with a resource, and in each event a datum of it as `image`.
    :param md: goes into the start document.
    """
    bundle = event_model.compose_run(metadata={"scan_id": 1, "plan_name": "count", **md})
    keys = {"motor": _key("number"), "det": _key("number")}
    if camera:
        keys["image"] = _key("array", [2, 3]) | {"external": "FILESTORE:"}
    descriptor = bundle.compose_descriptor(name="primary", data_keys=keys)
    pairs = [("start", bundle.start_doc), ("descriptor", descriptor.descriptor_doc)]
    pairs += list(_events(bundle, descriptor, points, camera))
    return [(name, dict(doc)) for name, doc in [*pairs, ("stop", bundle.compose_stop())]]


def _key(dtype: str, shape: list[int] | None = None) -> dict[str, Any]:
    return {"source": "test", "dtype": dtype, "shape": shape or []}


def _events(bundle: Any, descriptor: Any, points: int, camera: bool) -> Iterator[tuple[str, Any]]:
    resource = bundle.compose_resource(
        spec="BP_CAMERA_HDF5",
        root="/data",
        resource_path="a.h5",
        resource_kwargs={"dataset": "/entry/data"},
    )
    if camera:
        yield "resource", resource.resource_doc
    for i in range(points):
        data: dict[str, Any] = {"motor": 1.5 * i, "det": float(i)}
        filled = {}
        if camera:
            datum = resource.compose_datum(datum_kwargs={"index": i})
            yield "datum", datum
            data["image"] = datum["datum_id"]
            filled["image"] = False
        stamps = dict.fromkeys(data, 1.0)
        yield "event", descriptor.compose_event(data=data, timestamps=stamps, filled=filled)


def composed_event(**changes: Any) -> dict[str, Any]:
    """A valid event with `changes` in place of its own keys."""
    return {
        "uid": str(uuid.uuid4()),
        "descriptor": "d",
        "seq_num": 1,
        "time": 1.0,
        "data": {"motor": 1.0},
        "timestamps": {"motor": 1.0},
        "filled": {},
    } | changes
