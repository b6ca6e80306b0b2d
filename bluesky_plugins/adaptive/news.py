"""What the threads of the recommender service report to its loop."""

from __future__ import annotations

from typing import NamedTuple

from bluesky_plugins.adaptive.asking import Reply
from bluesky_plugins.adaptive.keeper import Loaded, OpenBatch
from bluesky_plugins.adaptive.state import Compute
from bluesky_plugins.adaptive.suggested import Caught
from bluesky_plugins.adaptive.writer import Mark, Write
from bluesky_plugins.messaging import Message

__all__ = ["News", "Replied", "Unstorable"]


class Replied(NamedTuple):
    """A recommender replied after this many seconds."""

    batch: OpenBatch
    compute: Compute
    reply: Reply
    seconds: float


class Unstorable(NamedTuple):
    """MongoDB will never take this record."""

    write: Write
    reason: str


# A message is one of the suggestions topic.
News = Message | Caught | Loaded | Mark | Replied | Unstorable
