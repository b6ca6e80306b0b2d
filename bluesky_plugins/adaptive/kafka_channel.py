"""Suggestions from the `suggestions` topic."""

from __future__ import annotations

import logging
import time
from typing import Any

from bluesky_plugins.adaptive.channel import SUGGESTION, WAITING
from bluesky_plugins.messaging import (
    BrokerUnreachable,
    DecodingError,
    Message,
    MessagingError,
    TopicReader,
    decode,
)
from bluesky_plugins.settings import Settings, load_settings

__all__ = ["KafkaReader", "KafkaSuggestions"]

logger = logging.getLogger(__name__)

AT_ONCE = 500  # messages taken from Kafka at once, at most
POSITION_SECONDS = 5.0  # one attempt to find where the partitions end


class KafkaSuggestions:
    """The suggestions of the recommender service.

    :param settings: None loads them when a batch is opened.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings

    def open(self, batch_id: str, *, from_beginning: bool = False) -> KafkaReader:
        """A reader without a group: all partitions, from where they end when it starts."""
        settings = self._settings or load_settings()
        return KafkaReader(settings, batch_id, from_beginning=from_beginning)


class KafkaReader:
    """Reads one batch's suggestions. Messages of other batches are not even decoded."""

    lockstep = False

    def __init__(self, settings: Settings, batch_id: str, *, from_beginning: bool) -> None:
        self._settings = settings
        self._key = batch_id.encode()
        self._from_beginning = from_beginning
        self._reader: TopicReader | None = None
        self._ends: dict[int, int] = {}  # partition -> offset before which the past lies
        self._behind: set[int] = set()  # partitions whose past is not all read
        self._past: list[Message] = []
        self._ahead: list[Message] = []  # read with the past, but newer

    def start(self, timeout: float) -> bool:
        """Take position; every partition's end is known when it returns True."""
        reader = TopicReader(self._settings, self._settings.topic("suggestions"))
        seconds = max(timeout, POSITION_SECONDS)
        try:
            where = reader.start("beginning" if self._from_beginning else "end", seconds)
            ends = reader.ends(seconds) if self._from_beginning else {}
        except MessagingError as error:
            reader.close()
            if not isinstance(error, BrokerUnreachable):
                raise
            logger.warning("suggestions: %s", error)
            return False
        self._reader = reader
        self._ends = ends
        self._behind = {p for p, end in ends.items() if where.get(p, 0) < end}
        return True

    def history(self, timeout: float) -> list[tuple[str, Any]] | None:
        """What lay in the topic at the start; None while there is more of it to read."""
        deadline = time.monotonic() + timeout
        while self._behind:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            for message in self._poll(left):
                end = self._ends.get(message.partition, 0)
                if message.offset + 1 >= end:
                    self._behind.discard(message.partition)
                if message.key == self._key:
                    (self._past if message.offset < end else self._ahead).append(message)
        return self._pairs(self._past)

    def read(self, timeout: float) -> list[tuple[str, Any]]:
        """What has come for the batch."""
        ahead, self._ahead = self._ahead, []
        return self._pairs(ahead or self._poll(timeout))

    def close(self) -> None:
        """Leave Kafka."""
        if self._reader is not None:
            self._reader.close()

    def _poll(self, timeout: float) -> list[Message]:
        return [] if self._reader is None else self._reader.poll(AT_ONCE, timeout)

    def _pairs(self, messages: list[Message]) -> list[tuple[str, Any]]:
        return [pair for message in messages if (pair := self._pair(message)) is not None]

    def _pair(self, message: Message) -> tuple[str, Any] | None:
        if message.key != self._key:
            return None
        try:
            name, doc = decode(message.value)
        except DecodingError as error:
            # The recommender reads this topic too and makes the dead letter.
            logger.warning(
                "%s[%d]@%d is no suggestion: %s",
                message.topic,
                message.partition,
                message.offset,
                error,
            )
            return None
        return (name, doc) if name in (SUGGESTION, WAITING) else None
