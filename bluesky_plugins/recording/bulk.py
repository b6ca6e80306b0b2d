"""A bulk: the messages that are stored, answered for and committed together. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bluesky_plugins.messaging import DecodingError, Message, decode
from bluesky_plugins.recording.documents import InvalidDocumentError, Record, records_of
from bluesky_plugins.recording.store import Refused

__all__ = ["Bulk", "Letter", "Offsets", "make_bulk", "refusals"]

Offsets = Mapping[tuple[str, int], int]

# Reasons named for one message; a page may have thousands of bad rows.
REASONS_NAMED = 3


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that is not, or not wholly, recorded, and why."""

    message: Message
    reason: str


@dataclass(frozen=True)
class Bulk:
    """What a sequence of messages asks for.

    `records` are by topic; their `source` is an index into `messages`. `offsets` are the next
    ones to read once all is stored and the letters are delivered.
    """

    messages: Sequence[Message]
    records: Mapping[str, Sequence[Record]]
    letters: Sequence[Letter]
    offsets: Offsets


def make_bulk(messages: Sequence[Message]) -> Bulk:
    """Decode and check messages; a bad one gives a letter and leaves the others alone."""
    records: dict[str, list[Record]] = {}
    letters: list[Letter] = []
    offsets: dict[tuple[str, int], int] = {}
    for source, message in enumerate(messages):
        place = (message.topic, message.partition)
        offsets[place] = max(offsets.get(place, 0), message.offset + 1)
        try:
            name, doc = decode(message.value)
            records.setdefault(message.topic, []).extend(records_of(name, doc, source))
        except (DecodingError, InvalidDocumentError) as error:
            letters.append(Letter(message, str(error)))
    return Bulk(messages, records, letters, offsets)


def refusals(bulk: Bulk, refused: Iterable[Refused]) -> list[Letter]:
    """One letter for each message of which the store refused something."""
    reasons: dict[int, list[str]] = {}
    for item in refused:
        reasons.setdefault(item.record.source, []).append(item.reason)
    return [
        Letter(bulk.messages[source], _summary(found)) for source, found in sorted(reasons.items())
    ]


def _summary(reasons: Sequence[str]) -> str:
    named = "; ".join(reasons[:REASONS_NAMED])
    more = len(reasons) - REASONS_NAMED
    return f"{named}; and {more} more" if more > 0 else named
