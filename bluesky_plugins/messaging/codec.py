"""Documents as bytes: msgpack with msgpack_numpy, as bluesky-kafka writes them.

A message is the pair `(name, document)`. Decoding builds data and nothing else: what
msgpack_numpy would unpickle (arrays of Python objects) is refused before.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NoReturn

import msgpack_numpy
import numpy as np

from bluesky_plugins.messaging.errors import DecodingError, EncodingError

# Not `from msgpack import ...`: bluesky_kafka replaces these names there by functions that
# unpickle (msgpack_numpy.patch()), for the whole process.
try:
    from msgpack._cmsgpack import Packer, unpackb
except ImportError:  # the pure Python build of msgpack
    from msgpack.fallback import Packer, unpackb

__all__ = ["decode", "encode", "pack_plain", "unpack_plain"]

_MARKS = frozenset((b"nd", b"complex"))
# Of msgpack's timestamps: a datetime with a time zone.
_AS_DATETIME = 3


def encode(name: str, doc: Mapping[str, Any]) -> bytes:
    """A document as the bytes of a message.

    :param name: name of the document, e.g. `event`.
    :param doc: the document; arrays, numpy scalars and complex numbers travel as in
        msgpack_numpy, which makes tuples lists.
    :raises EncodingError: if something in it does not travel; the message says what.
    """
    try:
        packed: bytes = _LOCAL.packer.pack((name, doc))
    except EncodingError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError, BufferError) as error:
        raise EncodingError(f"{name} document cannot be encoded: {error}") from error
    return packed


def decode(data: bytes | None) -> tuple[str, dict[str, Any]]:
    """The name and the document of a message. Arrays are read-only views of `data`'s copy.

    :param data: value of a Kafka message; it may be anything.
    :raises DecodingError: if it is not a pair of a name and a document.
    """
    if not data:
        raise DecodingError("the message is null" if data is None else "the message is empty")
    try:
        pair = unpackb(data, object_hook=_revive, ext_hook=_refuse_ext, timestamp=_AS_DATETIME)
    except DecodingError:
        raise
    except Exception as error:  # whatever numpy or msgpack find wrong with hostile bytes
        raise DecodingError(f"not a msgpack document: {error or type(error).__name__}") from error
    if type(pair) is not list or len(pair) != 2:
        raise DecodingError(f"a pair of name and document is expected, not {_shape(pair)}")
    name, doc = pair
    if type(name) is not str:
        raise DecodingError(f"the name is not a string but {_shape(name)}")
    if type(doc) is not dict:
        raise DecodingError(f"the document is not a mapping but {_shape(doc)}")
    return name, doc


def pack_plain(value: Any) -> bytes:
    """Strings, bytes, numbers, lists: no numpy."""
    return bytes(Packer().pack(value))


def unpack_plain(data: bytes) -> Any:
    """What `pack_plain` packed."""
    return unpackb(data)


class _Local(threading.local):
    """A packer per thread: making one costs more than packing an event with it."""

    def __init__(self) -> None:
        self.packer = Packer(default=_plain)


def _plain(obj: Any) -> Any:
    """What msgpack does not know, in terms of what it knows."""
    if isinstance(obj, np.ndarray | np.generic):
        if obj.dtype.hasobject:
            raise EncodingError("an array of Python objects does not travel (dtype object)")
        if obj.dtype.kind in "mM":
            return _times(obj)
    elif isinstance(obj, Mapping):
        return dict(obj)
    return msgpack_numpy.encode(obj, chain=_refuse)


def _times(obj: Any) -> dict[bytes, Any]:
    """Dates and durations: numpy gives no buffer of them, but their bytes read back."""
    out = {b"nd": isinstance(obj, np.ndarray), b"type": obj.dtype.str, b"data": obj.tobytes()}
    return {**out, b"kind": b"", b"shape": obj.shape} if out[b"nd"] else out


def _refuse(obj: Any) -> NoReturn:
    raise EncodingError(f"a {type(obj).__module__}.{type(obj).__qualname__} does not travel")


def _refuse_ext(code: int, data: bytes) -> NoReturn:
    raise DecodingError(f"unknown msgpack extension type {code} ({len(data)} bytes)")


def _revive(obj: dict[Any, Any]) -> Any:
    """Called for every mapping, so the common case is one test."""
    if _MARKS.isdisjoint(obj):
        return obj
    if b"nd" not in obj:
        return complex(_text(obj[b"data"])) if b"data" in obj else obj
    if obj.get(b"kind") in (b"O", "O"):
        raise DecodingError("an array of Python objects (pickled) is refused")
    if b"type" not in obj or b"data" not in obj:
        return obj
    dtype = _dtype(obj[b"type"])
    if dtype.hasobject or dtype.itemsize == 0:
        raise DecodingError(f"arrays of dtype {dtype} are refused")
    if obj[b"nd"] is True:
        return np.ndarray(buffer=obj[b"data"], dtype=dtype, shape=obj[b"shape"])
    return np.frombuffer(obj[b"data"], dtype=dtype)[0]


def _dtype(described: Any) -> np.dtype[Any]:
    if type(described) is str:
        return np.dtype(described)
    if type(described) is bytes:
        return np.dtype(described.decode("ascii"))
    if type(described) is not list:
        raise DecodingError(f"a dtype is not described by {_shape(described)}")
    return np.dtype([_field(*entry) for entry in described])


def _field(name: Any, described: Any, *shape: Any) -> tuple[Any, ...]:
    label = tuple(map(_text, name)) if type(name) is list else _text(name)
    return (label, _dtype(described), *(tuple(s) if type(s) is list else s for s in shape))


def _text(value: Any) -> str:
    return value.decode() if type(value) is bytes else str(value)


def _shape(value: Any) -> str:
    size = f" of length {len(value)}" if isinstance(value, list | dict | str | bytes) else ""
    return f"{type(value).__name__}{size}"


_LOCAL = _Local()
