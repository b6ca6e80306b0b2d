"""The door of the log: which batch a message belongs to, and whether it can be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from bluesky_plugins.adaptive.log import DOCUMENTS, Cause, entries_of
from bluesky_plugins.adaptive.model import (
    BatchEvent,
    BatchMode,
    Command,
    Result,
    Suggestion,
    Waiting,
)

__all__ = ["Entry", "Garbage", "Intake", "Routed", "read_suggestion"]

Text = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]+$")]
Count = Annotated[StrictInt, Field(ge=0, le=10**9)]
# What MongoDB can hold; more cannot travel in msgpack but for unsigned integers.
LARGEST = 2**63 - 1


class Garbage(ValueError):  # noqa: N818 - as the field says it
    """A message cannot be used; the text says why. It is a case for the dead letters."""


class _Document(BaseModel):
    """What the service relies on in a document; the rest of it is not looked at."""

    model_config = ConfigDict(extra="ignore")


class _Start(_Document):
    uid: Text
    time: float
    batch_id: Text | None = None
    batch_count: Count = 0
    batch_mode: BatchMode = BatchMode.RUN


class _Stop(_Document):
    uid: Text
    time: float
    run_start: Text
    exit_status: Literal["success", "abort", "fail"]


class _Descriptor(_Document):
    uid: Text
    time: float
    run_start: Text
    data_keys: dict[str, Any]
    name: str = "primary"


class _Event(_Document):
    uid: Text
    time: float
    descriptor: Text
    seq_num: Annotated[StrictInt, Field(ge=1, le=10**9)]
    data: dict[str, Any]


class _Resource(_Document):
    uid: Text
    run_start: Text | None = None


class _Datum(_Document):
    datum_id: Text
    resource: Text


class _StreamResource(_Document):
    uid: Text
    run_start: Text


class _StreamDatum(_Document):
    uid: Text
    descriptor: Text


class _Addressed(_Document):
    batch_id: Text
    uid: Text


_SHAPES: Mapping[str, type[_Document]] = {
    "start": _Start,
    "stop": _Stop,
    "descriptor": _Descriptor,
    "event": _Event,
    "resource": _Resource,
    "datum": _Datum,
    "stream_resource": _StreamResource,
    "stream_datum": _StreamDatum,
}
# The field by which a document names what it belongs to.
_OWNER = {
    "stop": "run_start",
    "descriptor": "run_start",
    "event": "descriptor",
    "resource": "run_start",
    "datum": "resource",
    "stream_resource": "run_start",
    "stream_datum": "descriptor",
}
# The nouns of the log that are not documents of a run.
_NOUNS: Mapping[str, TypeAdapter[Any]] = {
    "batch_event": TypeAdapter(BatchEvent),
    "command": TypeAdapter(Command),
    "result": TypeAdapter(Result),
}
_ADDRESSED = TypeAdapter(_Addressed)


class Routed(NamedTuple):
    """One entry for the log of one batch."""

    batch_id: str
    name: str
    uid: str
    doc: dict[str, Any]


class Entry(NamedTuple):
    """An entry on its way into a log; `time` of its message, seconds since the epoch."""

    routed: Routed
    cause: Cause
    time: float


def _told(error: ValidationError) -> str:
    items = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in items[:5])


@dataclass
class Intake:
    """Routes documents to their batches: only a start document names its batch.

    `foreign` counts documents of runs that belong to no batch.
    """

    foreign: int = 0
    _batch_of: dict[str, str] = field(default_factory=dict)
    _owned: dict[str, list[str]] = field(default_factory=dict)

    def read(self, name: str, doc: dict[str, Any]) -> list[Routed]:
        """The entries of one message; none if it belongs to no batch.

        :raises Garbage: if it is no document, or breaks what the service relies on.
        """
        if name in _NOUNS:
            return [_noun(name, doc)]
        if name not in DOCUMENTS or name in ("bulk_events", "bulk_datum"):
            raise Garbage(f"unknown name {name!r:.60}")
        try:
            entries = list(entries_of(name, _even(name, doc)))
            return [routed for entry in entries if (routed := self._route(*entry))]
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise Garbage(f"{name} breaks the event model: {error!r:.200}") from None

    def forget(self, batch_id: str) -> None:
        """Drop what is known of the runs of a batch."""
        for uid in self._owned.pop(batch_id, ()):
            self._batch_of.pop(uid, None)

    def _route(self, name: str, uid: str, doc: dict[str, Any]) -> Routed | None:
        try:
            shape = _SHAPES[name].model_validate(doc)
        except ValidationError as error:
            raise Garbage(f"{name} breaks the event model: {_told(error)}") from None
        if isinstance(shape, _Start):
            batch_id = shape.batch_id
        else:
            batch_id = self._batch_of.get(str(getattr(shape, _OWNER[name])))
        if batch_id is None:
            self.foreign += 1
            return None
        if name in ("start", "descriptor", "resource"):
            self._batch_of[uid] = batch_id
            self._owned.setdefault(batch_id, []).append(uid)
        return Routed(batch_id, name, uid, doc)


def _even(name: str, doc: dict[str, Any]) -> dict[str, Any]:
    """A page whose columns have one length; unpacking would cut the longer ones."""
    lengths: set[int] = set()
    if name == "event_page":
        columns = [*doc["data"].values(), *doc["timestamps"].values(), doc["seq_num"], doc["time"]]
        lengths = {len(column) for column in columns} | {len(doc["uid"])}
    elif name == "datum_page":
        columns = [*doc["datum_kwargs"].values()]
        lengths = {len(column) for column in columns} | {len(doc["datum_id"])}
    if len(lengths) > 1:
        raise Garbage(f"{name} has columns of different lengths")
    return doc


def _noun(name: str, doc: dict[str, Any]) -> Routed:
    try:
        _NOUNS[name].validate_python(doc)
        addressed = _ADDRESSED.validate_python(doc)
        _storable(doc)
    except ValidationError as error:
        raise Garbage(f"{name}: {_told(error)}") from None
    return Routed(addressed.batch_id, name, addressed.uid, doc)


def _storable(value: Any) -> None:
    """Check that MongoDB can hold a value.

    :raises Garbage: if it cannot.
    """
    match value:
        case Mapping():
            for key, inner in value.items():
                if not isinstance(key, str) or "\x00" in key:
                    raise Garbage(f"key {key!r:.60} cannot be stored")
                _storable(inner)
        case list() | tuple():
            for inner in value:
                _storable(inner)
        case int() if abs(value) > LARGEST:
            raise Garbage(f"integer {value} cannot be stored")
        case _:
            return


def read_suggestion(name: str, doc: dict[str, Any]) -> Suggestion | None:
    """What was read from the `suggestions` topic; None for a `waiting`.

    :raises Garbage: if it is neither.
    """
    try:
        match name:
            case "suggestion":
                _storable(doc)
                return Suggestion.model_validate(doc)
            case "waiting":
                Waiting.model_validate(doc)
                return None
            case _:
                raise Garbage(f"unknown name {name!r:.60}")
    except ValidationError as error:
        raise Garbage(f"{name}: {_told(error)}") from None
