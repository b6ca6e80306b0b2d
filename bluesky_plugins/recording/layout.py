"""Where each kind of document lives in MongoDB: the layout of databroker's `mongo_normalized`.

The indexes are those of suitcase-mongo's normalized serializer, with three differences
(docs/explanations/decisions say why): no text indexes, a unique one on a resource's uid, and
the collections of documents that event-model has added since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = ["COLLECTIONS", "Collection", "Index"]

UP, DOWN = 1, -1


@dataclass(frozen=True)
class Index:
    """An index: its keys with their directions."""

    keys: tuple[tuple[str, int], ...]
    unique: bool = False
    # None: the name that MongoDB derives from the keys.
    name: str | None = None


@dataclass(frozen=True)
class Collection:
    """A collection and the key that tells one document of it from another."""

    name: str
    key: str
    indexes: tuple[Index, ...] = field(default=())


def _one(name: str, direction: int = UP, *, unique: bool = False) -> Index:
    return Index(((name, direction),), unique)


START_INDEXES = (
    _one("uid", unique=True),
    _one("scan_id"),
    Index((("scan_id", DOWN), ("_id", DOWN)), unique=True),
    Index((("time", UP), ("_id", DOWN)), unique=True),
    Index((("time", DOWN), ("_id", DOWN)), unique=True),
    Index((("time", DOWN), ("scan_id", DOWN))),
    _one("data_session"),
    _one("data_groups"),
)
STOP_INDEXES = (_one("run_start", unique=True), _one("uid", unique=True), _one("time", DOWN))
DESCRIPTOR_INDEXES = (
    _one("uid", unique=True),
    Index((("run_start", DOWN), ("time", DOWN))),
    _one("time", DOWN),
)
EVENT_INDEXES = (_one("uid", unique=True), Index((("descriptor", DOWN), ("time", UP))))
# suitcase-mongo's own index `uid_1` is not unique, for the sake of databases older than it;
# under another name both can stand in one collection.
RESOURCE_INDEXES = (Index((("uid", UP),), unique=True, name="uid_unique"), _one("resource_id"))
DATUM_INDEXES = (_one("datum_id", unique=True), _one("resource"))
STREAM_RESOURCE_INDEXES = (_one("uid", unique=True), _one("run_start"))
STREAM_DATUM_INDEXES = (
    _one("uid", unique=True),
    _one("stream_resource"),
    _one("descriptor"),
)

# By document name, in the order in which a bulk is written: what refers comes after what it
# refers to, and whoever sees a stop document finds all that came before it.
COLLECTIONS: Mapping[str, Collection] = MappingProxyType(
    {
        "start": Collection("run_start", "uid", START_INDEXES),
        "descriptor": Collection("event_descriptor", "uid", DESCRIPTOR_INDEXES),
        "resource": Collection("resource", "uid", RESOURCE_INDEXES),
        "stream_resource": Collection("stream_resource", "uid", STREAM_RESOURCE_INDEXES),
        "datum": Collection("datum", "datum_id", DATUM_INDEXES),
        "stream_datum": Collection("stream_datum", "uid", STREAM_DATUM_INDEXES),
        "event": Collection("event", "uid", EVENT_INDEXES),
        "stop": Collection("run_stop", "uid", STOP_INDEXES),
    }
)
