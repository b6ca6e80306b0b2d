"""The log of a batch: its entries in order, each once, and the hash of what was read.

The canonical form of an entry is the same for what came over Kafka (NumPy arrays and
scalars) and for what MongoDB gives back of it (lists, Python scalars), so that a batch can
be computed again from either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import event_model
import numpy as np

__all__ = [
    "BatchLog",
    "Cause",
    "ConflictingEntry",
    "LogEntry",
    "Unloggable",
    "canonical",
    "entries_of",
]

DOCUMENTS = frozenset(event_model.DocumentNames.__members__)


@dataclass(frozen=True, slots=True)
class Cause:
    """The message that made something happen."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry of a batch's log.

    `n` counts the entries of the batch from 0, `digest` is the sha256 (hex) of the canonical
    log up to and with this entry, `time` (seconds since the epoch) is the message's.
    """

    n: int
    name: str
    uid: str
    doc: Mapping[str, Any]
    cause: Cause
    time: float
    digest: str


class Unloggable(ValueError):  # noqa: N818 - a state of a document
    """A document cannot be an entry of a log; the text says why."""


class ConflictingEntry(Unloggable):
    """An entry came again under its uid with other content."""


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": bytes(value).hex()}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, datetime):
        # MongoDB keeps milliseconds in UTC, and gives them back without a time zone.
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return {"$ms": int(moment.timestamp() * 1000 // 1)}
    return repr(value)


def canonical(doc: Mapping[str, Any]) -> str:
    """The one text of a document: keys sorted, tuples and arrays as lists, floats by repr.

    Integers and floats stay apart (`1` and `1.0`); NaN and infinities are spelt out.

    :raises Unloggable: if the document is nested in itself or has keys of several types.
    """
    try:
        return json.dumps(doc, sort_keys=True, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unloggable(f"no canonical form: {error}") from None


def entries_of(name: str, doc: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The entries (name, uid, document) that one message stands for; pages are unpacked.

    :raises KeyError: if it has no uid.
    """
    match name:
        case "event_page":
            for event in event_model.unpack_event_page(doc):
                yield "event", event["uid"], dict(event)
        case "datum_page":
            for datum in event_model.unpack_datum_page(doc):
                yield "datum", datum["datum_id"], dict(datum)
        case "datum":
            yield name, doc["datum_id"], doc
        case _:
            yield name, doc["uid"], doc


@dataclass
class BatchLog:
    """Gives each new entry of one batch its number and hash, and drops repeats."""

    _seen: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def __len__(self) -> int:
        return len(self._seen)

    def append(
        self, name: str, uid: str, doc: Mapping[str, Any], cause: Cause, time: float
    ) -> LogEntry | None:
        """The entry for a document, or None if the log has it already.

        :raises ConflictingEntry: if the log has another content under this name and uid.
        :raises Unloggable: if the document has no canonical form.
        """
        line = f"{name} {canonical(doc)}\n".encode()
        own = hashlib.sha256(line).digest()
        known = self._seen.get((name, uid))
        if known is not None:
            if known != own:
                raise ConflictingEntry(f"{name} {uid} came again with other content")
            return None
        n = len(self._seen)
        self._seen[name, uid] = own
        self._hash.update(line)
        return LogEntry(n, name, uid, doc, cause, time, self._hash.hexdigest())
