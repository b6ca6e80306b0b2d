"""Reads all that was ever suggested, and goes on reading."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from bluesky_plugins.messaging import MessagingError, TopicReader
from bluesky_plugins.settings import Settings

__all__ = ["Caught", "SuggestionsReader"]

log = structlog.get_logger(__name__)
AT_ONCE = 1000
WAIT_SECONDS = 0.05
RETRY_SECONDS = 0.5
REACH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Caught:
    """All that had been suggested when it was asked for was put out before this."""

    generation: int


class SuggestionsReader:
    """A thread that puts out each message of the `suggestions` topic, from the first one on.

    :param put: called from the thread with messages, and with a `Caught` for each `catch_up`.
    """

    def __init__(
        self, settings: Settings, put: Callable[[Any], None], stopping: threading.Event
    ) -> None:
        self._settings = settings
        self._put = put
        self._stopping = stopping
        self._asked: int | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="suggestions", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, up to `timeout` s; it ends when `stopping` is set."""
        self._thread.join(timeout)

    def catch_up(self, generation: int) -> None:
        """Have a `Caught` put out after all that is on the topic by now."""
        with self._lock:
            self._asked = generation

    def _run(self) -> None:
        topic = self._settings.topic("suggestions")
        reader = TopicReader(self._settings, topic)
        # A question on a connection that fetches is answered only when the fetch is.
        asker = TopicReader(self._settings, topic)
        try:
            positions = self._begin(reader)
            target: tuple[int, Mapping[int, int]] | None = None
            while not self._stopping.is_set():
                target = self._target(asker) or target
                if target and all(positions.get(p, 0) >= end for p, end in target[1].items()):
                    self._put(Caught(target[0]))
                    target = None
                for message in reader.poll(AT_ONCE, WAIT_SECONDS if target is None else 0.01):
                    positions[message.partition] = message.offset + 1
                    self._put(message)
        finally:
            reader.close()
            asker.close()

    def _begin(self, reader: TopicReader) -> dict[int, int]:
        while not self._stopping.is_set():
            try:
                return dict(reader.start("beginning", REACH_SECONDS))
            except MessagingError as error:
                log.warning("suggestions cannot be read yet", error=str(error))
                self._stopping.wait(RETRY_SECONDS)
        return {}

    def _target(self, asker: TopicReader) -> tuple[int, Mapping[int, int]] | None:
        with self._lock:
            generation, self._asked = self._asked, None
        if generation is None:
            return None
        try:
            return generation, asker.ends(REACH_SECONDS)
        except MessagingError as error:
            log.warning("the end of the suggestions is not known yet", error=str(error))
            with self._lock:
                self._asked = self._asked if self._asked is not None else generation
            self._stopping.wait(RETRY_SECONDS)
            return None
