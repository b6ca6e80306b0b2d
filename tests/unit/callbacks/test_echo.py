import json
from typing import Any

import numpy as np
import pytest

from bluesky_plugins.callbacks.echo import _as_json, _as_text
from bluesky_plugins.messaging import Message, encode

EVENT = {
    "uid": "e",
    "descriptor": "0123456789",
    "seq_num": 3,
    "time": 1.0,
    "data": {"motor": 1.5, "det": 0.123456789, "image": np.zeros((2, 3), "f4")},
    "timestamps": {"motor": 1.0},
}


def message(value: bytes | None) -> Message:
    return Message("mad.bluesky.documents", 2, 17, b"run", value, 1.5)


def text(name: str, doc: dict[str, Any], full: bool = False) -> str:
    return _as_text(message(encode(name, doc)), full)


def test_event_is_a_line_with_its_values() -> None:
    line = text("event", EVENT)
    assert line.endswith(
        "event           01234567  seq_num=3 motor=1.5 det=0.123457 image=<float32 2x3>"
    )
    assert "documents" in line


def test_line_is_never_long() -> None:
    doc = {"uid": "1", **{f"key{n}": "x" * 500 for n in range(100)}}
    assert len(text("start", doc)) < 1200


def test_full_document_follows_its_line() -> None:
    _, _, document = text("event", EVENT, full=True).partition("\n")
    assert json.loads(document)["data"]["image"] == [[0.0] * 3] * 2


@pytest.mark.parametrize("value", [None, b"", b"\x92\xa5start"], ids=["null", "empty", "torn"])
def test_garbage_is_shown_with_its_reason_and_place(value: bytes | None) -> None:
    line = _as_text(message(value), False)
    assert "GARBAGE" in line
    assert "partition 2, offset 17" in line
    assert json.loads(_as_json(message(value)))["garbage"]


def test_nothing_in_a_document_steers_the_terminal() -> None:
    escape = "\x1b[2J"
    for full in (False, True):
        shown = text(escape, {"uid": escape, escape: escape, "reason": escape + "\n"}, full)
        assert "\x1b" not in shown


def test_json_is_one_object_a_message() -> None:
    doc = {"a": b"\xff", "b": 1j, "c": {b"d": np.float32(2)}}
    line = json.loads(_as_json(message(encode("event", doc))))
    assert (line["topic"], line["partition"], line["offset"]) == ("mad.bluesky.documents", 2, 17)
    assert (line["key"], line["name"]) == ("run", "event")
    assert line["doc"] == {"a": "\\xff", "b": "1j", "c": {"d": 2.0}}
