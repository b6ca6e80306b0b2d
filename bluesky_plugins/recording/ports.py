"""What the recorder needs of the bus; `messaging` has it, and so has a fake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from bluesky_plugins.messaging import Message

__all__ = ["LetterBox", "Source"]


class Source(Protocol):
    """Messages of the topics, read as a member of a group; see `messaging.Consumer`."""

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        """The next messages; none while paused."""

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Store where to go on. :raises CommitFailed: it may be tried again."""

    def pause(self) -> None:
        """Give no messages until `resume`, and keep the membership."""

    def resume(self) -> None:
        """Give messages again."""

    def close(self) -> None:
        """Leave the group."""


class LetterBox(Protocol):
    """Where dead letters are delivered; see `messaging.Producer`."""

    def deliver(
        self, messages: Iterable[tuple[str, str, str, Mapping[str, Any]]], timeout: float
    ) -> None:
        """Send. :raises NotDelivered: not all are acknowledged; it may be tried again."""

    def close(self, timeout: float) -> int:
        """Let go; the number of messages not sent."""
