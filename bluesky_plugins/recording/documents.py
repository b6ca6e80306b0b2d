"""From a pair (name, document) to what MongoDB stores: checked, plain, encoded. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import bson
import event_model
import numpy as np
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from event_model import basemodels

from bluesky_plugins.recording.layout import COLLECTIONS

__all__ = ["InvalidDocumentError", "Record", "records_of", "same_content"]

# MongoDB's own limits for one document.
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
MAX_NESTING = 100


class InvalidDocumentError(ValueError):
    """A document breaks the event model, or cannot be stored in MongoDB."""


@dataclass(frozen=True, slots=True)
class Record:
    """One document as it is stored.

    `source` says which message of its bulk it came in, so that the message can be blamed.
    """

    name: str
    key: str
    raw: RawBSONDocument = field(repr=False)
    source: int = 0

    def content(self) -> dict[str, Any]:
        """The document as it is read back, without MongoDB's `_id`."""
        doc = bson.decode(self.raw.raw)
        doc.pop("_id", None)
        return doc


# event-model's JSON schemas decide what is valid. They need 0.1 ms and more, most of the time
# that it takes to store an event; its pydantic models need 1 us and, strict, accept nothing for
# these kinds that the schemas refuse. What a model refuses, the schema decides.
_SHORT_WAY: Mapping[str, Callable[..., bool]] = {
    name: model.__pydantic_validator__.isinstance_python
    for name, model in {
        "event": basemodels.Event,
        "event_page": basemodels.EventPage,
        "datum": basemodels.Datum,
        "stream_datum": basemodels.StreamDatum,
    }.items()
}
_NAMES = frozenset(name.value for name in event_model.DocumentNames)


def records_of(name: str, doc: Mapping[str, Any], source: int = 0) -> list[Record]:
    """What is stored for one document; a page gives one record a row.

    :param name: the document's name in the event model, e.g. `start` or `event_page`.
    :param doc: as decoded; numpy arrays and scalars are allowed anywhere.
    :param source: position of its message in the bulk.
    :raises InvalidDocumentError: with the reason, for a person.
    """
    if name not in _NAMES:
        raise InvalidDocumentError(f"{name[:100]!r} is not the name of a document")
    try:
        plain = _plain(doc)
        _check(name, plain)
        return [_record(kind, row, source) for kind, row in _rows(name, plain)]
    except RecursionError:
        raise InvalidDocumentError(f"{name}: nested too deep") from None


def same_content(one: Any, other: Any) -> bool:
    """Whether two stored values are equal; NaN equals NaN, and True is not 1."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_content(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_content, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other or (one != one and other != other))


def _plain(value: Any, depth: int = 0) -> Any:
    """Builtin types only, as `event_model.sanitize_doc`, which goes through JSON text."""
    kind = type(value)
    if kind is float or kind is str or kind is int or kind is bool or value is None:
        return value
    if depth > MAX_NESTING:
        raise InvalidDocumentError(f"nested deeper than {MAX_NESTING} levels")
    if kind is dict:
        return {_text_key(k): _plain(v, depth + 1) for k, v in value.items()}
    if kind is list or kind is tuple:
        return [_plain(v, depth + 1) for v in value]
    if isinstance(value, np.ndarray):
        return _plain_array(value, depth)
    return value.item() if isinstance(value, np.generic) else value


def _plain_array(array: np.ndarray[Any, Any], depth: int) -> Any:
    if depth + array.ndim > MAX_NESTING:
        raise InvalidDocumentError(f"nested deeper than {MAX_NESTING} levels")
    # Rows of structured arrays are tuples and may hold arrays again.
    return (
        _plain(array.tolist(), depth)
        if array.dtype.hasobject or array.dtype.names
        else (array.tolist())
    )


def _text_key(key: Any) -> str:
    if not isinstance(key, str):
        raise InvalidDocumentError(f"key {key!r:.100} is not text")
    return key


def _check(name: str, doc: Any) -> None:
    short_way = _SHORT_WAY.get(name)
    if short_way is not None and short_way(doc, strict=True):
        return
    validator = event_model.schema_validators[event_model.DocumentNames[name]]
    error = next(validator.iter_errors(doc), None)
    if error is not None:
        where = "/".join(str(part) for part in error.absolute_path) or "document"
        raise InvalidDocumentError(f"{name}: {where[:100]}: {error.message[:300]}")


def _rows(name: str, doc: dict[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if name == "event_page":
        _check_lengths(name, [doc["uid"], doc["time"], doc["seq_num"]], _columns(doc))
        yield from (("event", row) for row in event_model.unpack_event_page(doc))
    elif name == "datum_page":
        _check_lengths(name, [doc["datum_id"]], doc["datum_kwargs"].values())
        yield from (("datum", row) for row in event_model.unpack_datum_page(doc))
    elif name == "bulk_events":
        for page in event_model.bulk_events_to_event_pages(doc):
            yield from _rows("event_page", page)
    elif name == "bulk_datum":
        yield from _rows("datum_page", dict(event_model.bulk_datum_to_datum_page(doc)))
    else:
        yield name, doc


def _columns(page: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    for part in ("data", "timestamps", "filled"):
        yield from page.get(part, {}).values()


def _check_lengths(
    name: str, first: Sequence[Sequence[Any]], columns: Iterable[Sequence[Any]]
) -> None:
    lengths = {len(column) for column in (*first, *columns)}
    if len(lengths) > 1:
        raise InvalidDocumentError(f"{name}: columns of different lengths {sorted(lengths)}")


def _record(name: str, doc: Mapping[str, Any], source: int) -> Record:
    if "_id" in doc:
        raise InvalidDocumentError(f"{name}: the key `_id` belongs to MongoDB")
    key = doc[COLLECTIONS[name].key]
    if not isinstance(key, str):
        raise InvalidDocumentError(f"{name}: {COLLECTIONS[name].key} is not text")
    try:
        raw = bson.encode({"_id": bson.ObjectId(), **doc})
    # OverflowError: an integer of more than 64 bits. ValueError: text that is not UTF-8.
    except (BSONError, OverflowError, ValueError) as error:
        # pymongo's message is the whole document, then ` | ` and the cause.
        cause = str(error).rpartition(" | ")[2]
        raise InvalidDocumentError(f"{name}: {cause[:300]}") from None
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise InvalidDocumentError(f"{name}: {len(raw)} bytes, more than {MAX_DOCUMENT_BYTES}")
    return Record(name, key, RawBSONDocument(raw), source)
