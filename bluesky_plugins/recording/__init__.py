"""Documents from Kafka into MongoDB, in databroker's layout, and back."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluesky_plugins.recording.bulk import Bulk, make_bulk
    from bluesky_plugins.recording.cameras import CAMERA_SPEC, CameraHandler
    from bluesky_plugins.recording.documents import (
        InvalidDocumentError,
        Record,
        records_of,
        same_content,
    )
    from bluesky_plugins.recording.layout import COLLECTIONS
    from bluesky_plugins.recording.reading import Catalog, RunWatch, open_db
    from bluesky_plugins.recording.service import RecorderService, serve_recorder
    from bluesky_plugins.recording.store import (
        DocumentStore,
        MongoDocumentStore,
        Refused,
        StoreDownError,
        StoreUnusableError,
        Written,
        connect,
    )
    from bluesky_plugins.recording.stored import StoredRuns

__all__ = [
    "CAMERA_SPEC",
    "COLLECTIONS",
    "Bulk",
    "CameraHandler",
    "Catalog",
    "DocumentStore",
    "InvalidDocumentError",
    "MongoDocumentStore",
    "Record",
    "RecorderService",
    "Refused",
    "RunWatch",
    "StoreDownError",
    "StoreUnusableError",
    "StoredRuns",
    "Written",
    "connect",
    "make_bulk",
    "open_db",
    "records_of",
    "same_content",
    "serve_recorder",
]

# Imported when first used: h5py, pymongo and databroker are heavy, and not all installed
# everywhere.
_MODULES = {
    "CAMERA_SPEC": "cameras",
    "COLLECTIONS": "layout",
    "Bulk": "bulk",
    "CameraHandler": "cameras",
    "Catalog": "reading",
    "DocumentStore": "store",
    "InvalidDocumentError": "documents",
    "MongoDocumentStore": "store",
    "Record": "documents",
    "RecorderService": "service",
    "Refused": "store",
    "RunWatch": "reading",
    "StoreDownError": "store",
    "StoreUnusableError": "store",
    "StoredRuns": "stored",
    "Written": "store",
    "connect": "store",
    "make_bulk": "bulk",
    "open_db": "reading",
    "records_of": "documents",
    "same_content": "documents",
    "serve_recorder": "service",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
