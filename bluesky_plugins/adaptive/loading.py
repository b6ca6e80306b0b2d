"""Reads the log of a batch that is not in memory: from Kafka, or from MongoDB."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog
from pymongo.errors import PyMongoError

from bluesky_plugins.adaptive.intake import Entry, Garbage, Intake
from bluesky_plugins.adaptive.keeper import Loaded
from bluesky_plugins.adaptive.log import Cause
from bluesky_plugins.adaptive.model import Suggestion
from bluesky_plugins.adaptive.state import Phase
from bluesky_plugins.adaptive.store import BatchStore
from bluesky_plugins.adaptive.stored import stored_entries
from bluesky_plugins.messaging import DecodingError, Message, MessagingError, TopicReader, decode
from bluesky_plugins.settings import Settings

__all__ = ["Loader"]

log = structlog.get_logger(__name__)
READ_AT_ONCE = 1000
RETRY_SECONDS = 1.0
REACH_SECONDS = 10.0


class Loader:
    """Loads logs, each in a thread of its own.

    :param done: called from that thread with what was loaded.
    """

    def __init__(
        self,
        settings: Settings,
        store: BatchStore,
        done: Callable[[Loaded], None],
        stopping: threading.Event,
    ) -> None:
        self._settings = settings
        self._store = store
        self._done = done
        self._stopping = stopping

    def load(self, batch_id: str, met: Cause) -> None:
        """Begin to load the log of a batch up to the message by which it was met."""
        threading.Thread(
            target=self._run, args=(batch_id, met), name=f"load {batch_id}", daemon=True
        ).start()

    def _run(self, batch_id: str, met: Cause) -> None:
        while not self._stopping.is_set():
            try:
                self._done(self._loaded(batch_id, met))
                return
            except MessagingError as error:
                log.warning("a batch cannot be loaded yet", batch_id=batch_id, error=str(error))
                self._stopping.wait(RETRY_SECONDS)

    def _loaded(self, batch_id: str, met: Cause) -> Loaded:
        record, suggestions = self._stored(batch_id)
        if record is None:
            return Loaded(batch_id, self._read(batch_id, met, 0), suggestions, None)
        here = record["partition"] == met.partition
        if here and record["state"] == Phase.ENDED and record["last_offset"] >= met.offset:
            return Loaded(batch_id, [], suggestions, record["last_offset"])
        if not here or record["first_offset"] >= met.offset:
            return Loaded(batch_id, [], suggestions, None)
        entries = self._read(batch_id, met, record["first_offset"])
        if not entries or entries[0].cause.offset != record["first_offset"]:
            entries = self._remembered(batch_id, met) or entries
        return Loaded(batch_id, entries, suggestions, None)

    def _stored(self, batch_id: str) -> tuple[Mapping[str, Any] | None, list[Suggestion]]:
        try:
            record = self._store.batch(batch_id)
            stored = self._store.batch_suggestions(batch_id)
        except PyMongoError as error:
            log.warning("MongoDB does not answer; Kafka alone", batch_id=batch_id, error=str(error))
            return None, []
        return record, [Suggestion.model_validate(doc) for doc in stored]

    def _remembered(self, batch_id: str, met: Cause) -> list[Entry]:
        """The log from MongoDB: Kafka has forgotten its beginning."""
        try:
            found = list(stored_entries(self._store, batch_id))
        except PyMongoError as error:
            log.warning("MongoDB does not answer", batch_id=batch_id, error=str(error))
            return []
        return [entry for _, entry in found if entry and entry.cause.offset < met.offset]

    def _read(self, batch_id: str, met: Cause, first: int) -> list[Entry]:
        entries: list[Entry] = []
        intake = Intake()
        for message in self._messages(met, first):
            try:
                routed = intake.read(*decode(message.value))
            except (Garbage, DecodingError):
                continue  # it was buried when it was first read
            cause = Cause(message.topic, message.partition, message.offset)
            entries += [
                Entry(one, cause, message.timestamp) for one in routed if one.batch_id == batch_id
            ]
        return entries

    def _messages(self, met: Cause, first: int) -> Iterator[Message]:
        if first >= met.offset:
            return
        reader = TopicReader(self._settings, met.topic)
        try:
            # The other partitions are left alone: they are read from their ends.
            ends = reader.ends(REACH_SECONDS)
            reader.start({**ends, met.partition: first}, REACH_SECONDS)
            while not self._stopping.is_set():
                for message in reader.poll(READ_AT_ONCE, 1.0):
                    if message.partition != met.partition:
                        continue
                    if message.offset >= met.offset:
                        return
                    yield message
        finally:
            reader.close()
