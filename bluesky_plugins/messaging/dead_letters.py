"""Dead letters: what could not be decoded, handled or sent, with the reason."""

from __future__ import annotations

import reprlib
import time
import uuid
from collections.abc import Mapping
from typing import Any

from bluesky_plugins.messaging.message import Message

__all__ = ["VALUE_LIMIT", "dead_letter", "is_dead_letters", "unsendable"]

VALUE_LIMIT = 64 * 1024
KEY_LIMIT = 1000
REASON_LIMIT = 2000
NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
# `<beamline>.bluesky.<name>`: the dead letters lie beside the topic that they come from.
SHORT_NAME = "dead_letters"

_BRIEF = reprlib.Repr()
_BRIEF.maxdict = _BRIEF.maxlist = _BRIEF.maxtuple = 100
_BRIEF.maxstring = _BRIEF.maxother = 1000


def dead_letter(
    message: Message, reason: str, service: str
) -> tuple[str, str, str, dict[str, Any]]:
    """The `(topic, key, name, document)` to deliver for a message that cannot be handled.

    The same message gives the same `uid`, however often it is met.

    :param message: the message; the first 64 KiB of its value are kept, and its full size.
    :param reason: why, in one line.
    :param service: who gave up on it, e.g. `recorder`.
    """
    source = f"{message.topic}/{message.partition}/{message.offset}"
    doc = _letter(source, reason, service, message.key, message.value)
    doc |= {"topic": message.topic, "partition": message.partition, "offset": message.offset}
    key = (message.key or b"")[:KEY_LIMIT].decode("utf-8", "replace") or source
    return _topic_beside(message.topic), key, "dead_letter", doc


def unsendable(
    topic: str, key: str, name: str, content: bytes | Mapping[str, Any], reason: str
) -> tuple[str, str, str, dict[str, Any]]:
    """The same for a document that this process could not send.

    :param content: its bytes, or the document itself when it cannot be encoded.
    """
    value = content if isinstance(content, bytes) else _description(content)
    doc = _letter(f"{topic}/{key}/{uuid.uuid4()}", reason, "producer", key.encode(), value)
    doc |= {"topic": topic, "partition": None, "offset": None, "name": name}
    return _topic_beside(topic), key, "dead_letter", doc


def _letter(
    source: str, reason: str, service: str, key: bytes | None, value: bytes | None
) -> dict[str, Any]:
    return {
        "uid": str(uuid.uuid5(NAMESPACE, f"dead_letter\x1f{source}")),
        "reason": reason[:REASON_LIMIT],
        "service": service,
        "time": time.time(),
        "key": None if key is None else key[:VALUE_LIMIT],
        "value": None if value is None else value[:VALUE_LIMIT],
        "size": None if value is None else len(value),
    }


def _description(doc: Mapping[str, Any]) -> bytes:
    try:
        return _BRIEF.repr(dict(doc)).encode("utf-8", "backslashreplace")
    except Exception as error:  # noqa: BLE001 - anybody's __repr__; the letter must go out
        return f"<no description: {type(error).__name__}>".encode()


def is_dead_letters(topic: str) -> bool:
    """Whether a topic holds dead letters: what fails there has no other place to go."""
    return topic.rpartition(".")[2] == SHORT_NAME


def _topic_beside(topic: str) -> str:
    prefix, dot, _ = topic.rpartition(".")
    return f"{prefix}{dot}{SHORT_NAME}"
