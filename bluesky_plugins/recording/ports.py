"""What the recorder needs of the bus; `messaging` has it, and so has a fake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from bluesky_plugins.messaging import Message

__all__ = ["LetterBox", "Source"]


class Source(Protocol):
    """Messages of the topics, read as a member of a group; see `messaging.Consumer`."""

    def poll(self, max_messages: int, timeout: float) -> list[Message]: ...

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


class LetterBox(Protocol):
    """Where dead letters are delivered; see `messaging.Producer.deliver`."""

    def deliver(
        self, messages: Iterable[tuple[str, str, str, Mapping[str, Any]]], timeout: float
    ) -> None: ...
