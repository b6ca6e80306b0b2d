"""A message as it lies on a topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Message"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message and where it lies.

    :param timestamp: when it was produced, seconds since the epoch; 0.0 if unknown.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: float

    @classmethod
    def received(cls, raw: Any) -> Message:
        """From confluent-kafka's own message."""
        kind, milliseconds = raw.timestamp()
        return cls(
            raw.topic(),
            raw.partition(),
            raw.offset(),
            raw.key(),
            raw.value(),
            milliseconds / 1000 if kind else 0.0,
        )
