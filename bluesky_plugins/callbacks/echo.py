"""What travels on the topics, in lines for a person or a program."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from bluesky_plugins.messaging import DecodingError, Message, TopicReader, decode
from bluesky_plugins.settings import Settings

__all__ = ["echo_lines"]

# One look at one topic, s; and messages taken at once.
LOOK_SECONDS = 0.1
AT_ONCE = 500
# A line shows so many values, and so much of each.
SHOWN_VALUES = 12
SHOWN_CHARACTERS = 60
# In this order, before what else the document has.
FIRST = [
    "scan_id",
    "plan_name",
    "batch_id",
    "batch_count",
    "seq_num",
    "num_events",
    "exit_status",
    "event",
    "action",
    "revision",
    "point",
    "outcome",
    "command",
    "reason",
]
UIDS = ("run_start", "descriptor", "resource", "stream_resource", "uid")
HIDDEN = frozenset((*UIDS, "time", "timestamps", "filled", "data_keys", "configuration"))


def echo_lines(
    settings: Settings,
    *,
    topics: Sequence[str] = ("documents",),
    from_beginning: bool = False,
    as_json: bool = False,
    full: bool = False,
    max_messages: int | None = None,
    stop: threading.Event | None = None,
    timeout: float = 10.0,
    ready: threading.Event | None = None,
) -> Iterator[str]:
    """Lines about the messages of some topics, as they come, without end.

    What cannot be decoded is shown as such. Nothing is committed, and nobody is disturbed.

    :param topics: short names, or full ones (with a dot).
    :param from_beginning: what the broker has already comes first.
    :param as_json: a JSON object per message instead: topic, partition, offset, key, time
        (seconds since the epoch), name and doc, or garbage (the reason).
    :param full: the whole document, indented, after its line.
    :param max_messages: end after so many.
    :param stop: end when it is set.
    :param timeout: seconds until the broker must have answered at the start.
    :param ready: set when everything from now on will be seen.
    :raises MessagingError: if it has not, or a topic is not there.
    """
    names = [name if "." in name else settings.topic(name) for name in topics]
    readers = [TopicReader(settings, name) for name in names]
    try:
        for reader in readers:
            reader.start("beginning" if from_beginning else "end", timeout)
        if ready is not None:
            ready.set()
        for number, message in enumerate(_messages(readers, stop or threading.Event()), 1):
            yield _as_json(message) if as_json else _as_text(message, full)
            if number == max_messages:
                return
    finally:
        for reader in readers:
            reader.close()


def _messages(readers: Sequence[TopicReader], stop: threading.Event) -> Iterator[Message]:
    while not stop.is_set():
        for reader in readers:
            yield from reader.poll(AT_ONCE, LOOK_SECONDS / len(readers))


def _as_json(message: Message) -> str:
    line: dict[str, Any] = {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "key": _plain(message.key),
        "time": message.timestamp,
    }
    try:
        line["name"], doc = decode(message.value)
    except DecodingError as error:
        line["garbage"] = error.reason
    else:
        line["doc"] = _plain(doc)
    return json.dumps(line)


def _as_text(message: Message, full: bool) -> str:
    when = datetime.fromtimestamp(message.timestamp or time.time())
    begin = f"{when:%H:%M:%S.%f}"[:-3] + f"  {message.topic.rpartition('.')[2]:<13}"
    try:
        name, doc = decode(message.value)
    except DecodingError as error:
        size = 0 if message.value is None else len(message.value)
        where = f"{size} bytes, partition {message.partition}, offset {message.offset}"
        return f"{begin} GARBAGE     {_printable(error.reason)} ({where})"
    line = f"{begin} {_printable(name):<15} {_uid(doc):<8}  {_values(doc)}".rstrip()
    return f"{line}\n{json.dumps(_plain(doc), indent=2)}" if full else line


def _uid(doc: Mapping[str, Any]) -> str:
    return next((_printable(str(doc[key]))[:8] for key in UIDS if doc.get(key)), "")


def _values(doc: Mapping[str, Any]) -> str:
    """The words of a document that tell most."""
    data = doc.get("data")
    shown = {key: doc[key] for key in FIRST if doc.get(key) not in (None, "")}
    rest = data if isinstance(data, Mapping) else doc
    shown |= {k: v for k, v in rest.items() if k not in HIDDEN and not isinstance(v, dict)}
    words = [f"{_printable(str(k))}={_short(v)}" for k, v in shown.items()]
    more = f" (+{len(words) - SHOWN_VALUES})" if len(words) > SHOWN_VALUES else ""
    return " ".join(words[:SHOWN_VALUES]) + more


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"<{value.dtype} {'x'.join(map(str, value.shape))}>"
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    text = f"{value:.6g}" if isinstance(value, float) else str(_plain(value))
    cut = text[: SHOWN_CHARACTERS - 3] + "..." if len(text) > SHOWN_CHARACTERS else text
    return _printable(cut)


def _printable(text: str) -> str:
    """Without what would steer a terminal: documents come from anybody."""
    return text if text.isprintable() else repr(text)[1:-1]


def _plain(value: Any) -> Any:
    """What JSON can say."""
    if isinstance(value, Mapping):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str | int | float | None) else str(value)
