import contextlib
import pickle  # noqa: TID251 - what an attacker sends
import struct
import subprocess
import sys
from collections import ChainMap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_plugins.messaging import DecodingError, EncodingError, decode, encode

ARRAYS = [
    np.arange(6, dtype=">i4").reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(1.5),
    np.array([], dtype="f4"),
    np.array([True, False]),
    np.array([1 + 2j, complex("nan")]),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bcd"]),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8", (1,))]),
    np.array([np.nan, np.inf, -np.inf]),
    np.arange(100.0)[::7],
]
SCALARS = [np.float32(1.5), np.int64(-3), np.bool_(True), np.uint8(7), 1 + 2j, np.complex64(1j)]


def there_and_back(value: Any) -> Any:
    return decode(encode("event", {"value": value}))[1]["value"]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}{a.shape}")
def test_arrays_come_back(array: Any) -> None:
    back = there_and_back(array)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("scalar", SCALARS, ids=repr)
def test_scalars_come_back(scalar: Any) -> None:
    back = there_and_back(scalar)
    assert back == scalar
    assert type(back) is type(scalar)


@pytest.mark.parametrize(
    "value", [*ARRAYS, *SCALARS, float("nan"), None, "é", b"b", [1, {}]], ids=repr
)
def test_bytes_are_those_of_bluesky_kafka(value: Any) -> None:
    doc = {"uid": "1", "data": {"det": value}}
    assert encode("event", doc) == msgpack_numpy.packb(("event", doc))


@pytest.mark.parametrize("value", [*ARRAYS, *SCALARS], ids=repr)
def test_bluesky_kafka_reads_what_we_write(value: Any) -> None:
    name, doc = msgpack_numpy.unpackb(encode("event", {"value": value}))
    assert name == "event"
    np.testing.assert_array_equal(doc["value"], value)


@pytest.mark.parametrize("value", [np.array(["2026-11-21"], "M8[s]"), np.datetime64(5, "ms")])
def test_dates_of_numpy_travel(value: Any) -> None:
    np.testing.assert_array_equal(there_and_back(value), value)
    np.testing.assert_array_equal(
        msgpack_numpy.unpackb(encode("event", {"value": value}))[1]["value"], value
    )


def test_mappings_that_are_no_dicts_travel() -> None:
    assert there_and_back(ChainMap({"a": 1}, {"b": 2})) == {"a": 1, "b": 2}


def test_timestamps_of_others_become_datetimes() -> None:
    when = datetime(2026, 11, 21, tzinfo=UTC)
    data = msgpack.packb(("start", {"when": when}), datetime=True)
    assert decode(data)[1]["when"] == when


@pytest.mark.parametrize(
    "value",
    [
        np.array([len]),
        np.array([(1, None)], dtype=[("a", "i4"), ("b", "O")]),
        [{"deep": np.array([None])}],
        len,
        {1, 2},
        datetime(2026, 1, 1),
        2**65,
        "\ud800",
    ],
    ids=repr,
)
def test_what_does_not_travel_is_refused_before_it_is_sent(value: Any) -> None:
    with pytest.raises(EncodingError):
        encode("event", {"value": value})


def test_endless_nesting_is_refused_before_it_is_sent() -> None:
    doc: dict[str, Any] = {}
    doc["self"] = doc
    with pytest.raises(EncodingError):
        encode("event", doc)


def test_encoder_works_after_an_error() -> None:
    with pytest.raises(EncodingError):
        encode("event", {"a": 1, "b": object()})
    assert decode(encode("event", {"a": 1})) == ("event", {"a": 1})


class Shot:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("kind", [b"O", "O"])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": [{"b": x}]}], ids=["flat", "deep"])
def test_pickled_arrays_are_refused_and_not_run(tmp_path: Path, kind: Any, wrap: Any) -> None:
    target = tmp_path / "shot"
    shot = pickle.dumps(Shot(target))
    array = {b"nd": True, b"type": "|O", b"kind": kind, b"shape": [1], b"data": shot}
    with pytest.raises(DecodingError, match="refused"):
        decode(msgpack.packb(("event", wrap(array))))
    assert not target.exists()


@pytest.mark.parametrize(
    "described", ["O", "|O", "O8", [["a", "O"]], [["a", "i4"], ["b", [["c", "O"]]]]]
)
@pytest.mark.parametrize("nd", [True, False])
def test_object_dtypes_are_refused_whatever_the_kind(described: Any, nd: bool) -> None:
    array = {b"nd": nd, b"type": described, b"kind": b"V", b"shape": [1], b"data": bytes(64)}
    with pytest.raises(DecodingError):
        decode(msgpack.packb(("event", {"a": array})))


def test_patched_msgpack_does_not_unpickle_for_us(tmp_path: Path) -> None:
    target = tmp_path / "shot"
    shot = pickle.dumps(Shot(target))
    array = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": shot}
    (tmp_path / "message").write_bytes(msgpack.packb(("event", array)))
    code = (
        "import sys, msgpack_numpy; msgpack_numpy.patch()\n"
        "from bluesky_plugins.messaging import decode, DecodingError\n"
        "try: decode(open(sys.argv[1], 'rb').read())\n"
        "except DecodingError: print('refused')"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "message")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "refused\n"
    assert not target.exists()


GARBAGE = {
    "null": None,
    "empty": b"",
    "truncated": encode("event", {"a": [1, 2, 3]})[:-2],
    "more behind it": encode("event", {}) + b"\x00",
    "not a pair": msgpack.packb(["event"]),
    "three": msgpack.packb(["event", {}, {}]),
    "a mapping": msgpack.packb({"event": {}}),
    "a number": b"\x05",
    "name is a number": msgpack.packb([1, {}]),
    "name is bytes": msgpack.packb([b"event", {}]),
    "document is a list": msgpack.packb(["event", []]),
    "document is null": msgpack.packb(["event", None]),
    "document is an array": msgpack_numpy.packb(["event", np.arange(3)]),
    "pair is an array": msgpack_numpy.packb(np.array(["event", "doc"])),
    "too deep": b"\x91" * 100_000,
    "too deep mappings": b"\x81\xa1a" * 100_000,
    "huge array": b"\x92\xa5event\xdd\xff\xff\xff\xff",
    "huge bytes": b"\x92\xa5event\xc6\xff\xff\xff\xff",
    "huge mapping": b"\x92\xa5event\xdf\xff\xff\xff\xff",
    "nested huge arrays": b"".join([b"\xdd" + struct.pack(">I", 90_000)] * 400) + bytes(90_000),
    "not utf-8": b"\x92\xa2\xff\xff\x80",
    "unknown extension": msgpack.packb(["event", {"a": msgpack.ExtType(5, b"x")}]),
    "number as key": msgpack.packb(["event", {1: 2}]),
    "array too short": msgpack.packb(
        ["event", {"a": {b"nd": True, b"type": "<f8", b"shape": [9], b"data": b"12345678"}}]
    ),
    "array of nothing": msgpack.packb(
        ["event", {"a": {b"nd": True, b"type": "V0", b"shape": [10**12], b"data": b""}}]
    ),
    "scalar of nothing": msgpack.packb(
        ["event", {"a": {b"nd": False, b"type": "<f8", b"data": b""}}]
    ),
    "array without shape": msgpack.packb(
        ["event", {"a": {b"nd": True, b"type": "<f8", b"data": b""}}]
    ),
    "no dtype": msgpack.packb(["event", {"a": {b"nd": True, b"type": "?!", b"data": b""}}]),
    "dtype is a number": msgpack.packb(["event", {"a": {b"nd": True, b"type": 5, b"data": b""}}]),
    "complex of words": msgpack.packb(["event", {"a": {b"complex": True, b"data": "one"}}]),
    "pickle": pickle.dumps({"a": 1}),
    "JSON": b'["event", {}]',
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_refused_with_a_reason(data: Any) -> None:
    with pytest.raises(DecodingError) as caught:
        decode(data)
    assert caught.value.reason


@given(st.binary(max_size=300))
def test_random_bytes_are_decoded_or_refused(data: bytes) -> None:
    try:
        name, doc = decode(data)
    except DecodingError:
        return
    assert isinstance(name, str)
    assert isinstance(doc, dict)


@given(st.data())
def test_damaged_messages_are_decoded_or_refused(data: Any) -> None:
    whole = bytearray(
        encode("event", {"a": np.arange(3), "b": np.float64(1), "c": [1j, {"d": "é"}]})
    )
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodingError):
        decode(bytes(whole))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.text(), st.dictionaries(st.text(), JSON, max_size=5))
def test_documents_come_back(name: str, doc: dict[str, Any]) -> None:
    assert decode(encode(name, doc)) == (name, doc)
