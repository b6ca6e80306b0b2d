"""The order in which a process sends: which message is where, and who is next.

A message is handed to librdkafka at once while there is room and nothing older waits.
Otherwise it goes to the spool, behind what is there already. No threads, no clock, no Kafka
in here: who calls decides when, and passes what hands on.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable
from dataclasses import dataclass

from bluesky_plugins.messaging.segment import Record, Segment
from bluesky_plugins.messaging.spool import Spool

__all__ = ["Outbox"]

logger = logging.getLogger(__name__)

# hand(ticket, record): False if there is no room just now.
Hand = Callable[[int, Record], bool]


@dataclass(slots=True)
class _Entry:
    record: Record
    segment: Segment | None  # where it lies on disk, if it does

    def __lt__(self, other: _Entry) -> bool:
        return self.record.seq < other.record.seq


class Outbox:
    """Everything that is not acknowledged yet, in order. Not thread-safe.

    :param hand: gives a record to librdkafka; whatever becomes of it is reported to
        `settled` or `failed` under the same ticket.
    :param spool: None: nothing is kept on disk, and what does not fit is lost.
    """

    def __init__(self, hand: Hand, spool: Spool | None) -> None:
        self._hand = hand
        self._spool = spool
        self._tickets = 0
        self._handed: dict[int, _Entry] = {}
        self._again: list[_Entry] = []
        self.lost = 0

    @property
    def waiting(self) -> int:
        """Number of messages that are still to be handed on."""
        return len(self._again) + (self._spool.unread if self._spool else 0)

    @property
    def handed(self) -> int:
        """Number of messages that were handed on and are not acknowledged."""
        return len(self._handed)

    @property
    def unsent(self) -> int:
        """Number of messages that are not acknowledged."""
        return self.handed + self.waiting

    def put(self, record: Record, *, keep: bool = False) -> None:
        """Send a message, after all before it.

        :param keep: to the spool, even if it could be handed on (nobody answers).
        """
        if self.waiting == 0 and not (keep and self._spool):
            if self._spool is not None:
                # A segment is read as a whole: none may reach over what goes directly.
                self._spool.seal()
            if self._give(_Entry(record, None)):
                return
            logger.warning("the queue of unsent messages is full; they go to the spool now")
        self._keep(record)

    def drain(self, limit: int) -> int:
        """Hand on what waits, oldest first, as long as there is room.

        :param limit: at most so many.
        :returns: how many were handed on.
        """
        done = 0
        while done < limit and (entry := self._next()) is not None:
            if not self._give(entry):
                heapq.heappush(self._again, entry)
                break
            done += 1
        return done

    def record(self, ticket: int) -> Record | None:
        """A message that was handed on and is not settled."""
        entry = self._handed.get(ticket)
        return None if entry is None else entry.record

    def settled(self, ticket: int) -> None:
        """A message is acknowledged, or given up: it is forgotten here."""
        entry = self._handed.pop(ticket, None)
        if entry is not None and entry.segment is not None and self._spool is not None:
            self._spool.release(entry.segment)

    def failed(self, ticket: int) -> None:
        """A message was given back: it will be handed on again, before what is behind it."""
        entry = self._handed.pop(ticket, None)
        if entry is not None:
            heapq.heappush(self._again, entry)

    def all_failed(self) -> None:
        """Everything that was handed on is to be handed on again."""
        self._again += self._handed.values()
        heapq.heapify(self._again)
        self._handed.clear()

    def save(self) -> int:
        """Write what is only in memory to the spool as well.

        :returns: number of messages that are in memory only: lost if the process ends now.
        """
        memory = [e for e in (*self._again, *self._handed.values()) if e.segment is None]
        if not memory or self._spool is None:
            return len(memory)
        memory.sort()
        try:
            segments = self._spool.journal(each.record for each in memory)
        except OSError as error:
            logger.error("%d unsent messages are in memory only: %s", len(memory), error)
            return len(memory)
        for entry, segment in zip(memory, segments, strict=True):
            entry.segment = segment
        return 0

    def close(self) -> int:
        """Write down what is unsent, for the next process.

        :returns: number of messages that could not be written and are lost.
        """
        lost = self.save()
        if self._spool is not None:
            entries = (*self._again, *self._handed.values())
            unsent = {(id(e.segment), e.record.seq) for e in entries}
            try:
                self._spool.close(lambda segment, record: (id(segment), record.seq) in unsent)
            except OSError as error:
                logger.error("the spool could not be closed: %s", error)
        self.lost += lost
        return lost

    def refused(self, ticket: int) -> None:
        """A message can never be sent: it is lost."""
        self.settled(ticket)
        self.lost += 1

    def forsake(self) -> None:
        """Leave everything to the parent process; for a forked child."""
        if self._spool is not None:
            self._spool.unlock()

    def _next(self) -> _Entry | None:
        if self._again:
            return heapq.heappop(self._again)
        found = self._spool.next() if self._spool else None
        return None if found is None else _Entry(*found)

    def _give(self, entry: _Entry) -> bool:
        self._tickets += 1
        ticket = self._tickets
        self._handed[ticket] = entry
        if self._hand(ticket, entry.record):
            return True
        del self._handed[ticket]
        return False

    def _keep(self, record: Record) -> None:
        try:
            if self._spool is None:
                raise OSError("this producer has no spool")
            self._spool.append(record)
        except OSError as error:
            self.lost += 1
            # The first, then 2, 4, 8...: loud, but no flood.
            if self.lost & (self.lost - 1) == 0:
                logger.error(
                    "LOST: a message for %s could neither be sent nor kept (%s); %d so far",
                    record.topic,
                    error,
                    self.lost,
                )
