"""Reads the topics: documents of runs, ends of batches, requests of people."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import ValidationError

from bluesky_plugins.messaging import (
    CommitFailed,
    Consumer,
    DecodingError,
    Message,
    MessagingError,
    NotDelivered,
    Undeliverable,
    dead_letter,
    decode,
)
from bluesky_plugins.processing.recipes.evaluation import Ending
from bluesky_plugins.processing.service.acceptance import Acceptance, RunSource, documents_of
from bluesky_plugins.processing.service.endings import MalformedError, Orphan, Place, Runs
from bluesky_plugins.processing.service.postman import Mail
from bluesky_plugins.processing.service.requests import parse_request
from bluesky_plugins.processing.service.store import StoreDownError
from bluesky_plugins.settings import Settings

__all__ = ["Reader"]

log = structlog.get_logger(__name__)
READ = ("documents", "analysis", "adaptive", "jobs")
WANTED = {"adaptive": b"batch_event", "jobs": b"request"}
AT_ONCE = 500
POLL_S = 0.1
RETRY_S = 0.5
COMMIT_S = 1.0
DELIVER_S = 5.0
SERVICE = "processing"


@dataclass
class _Later:
    """Something that is over and whose documents the database does not have yet."""

    run: str | None
    batch: Mapping[str, Any] | None
    outcome: str
    place: Place
    deadline: float
    due: float = 0.0


class Reader:
    """One member of the group that reads what is over.

    :param taken: called when something was stored for whoever drives the jobs.
    :param ready: called when partitions are assigned.
    """

    def __init__(
        self,
        settings: Settings,
        acceptance: Acceptance,
        runs: RunSource,
        *,
        mail: Mail,
        taken: Callable[[], None],
        ready: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._acceptance = acceptance
        self._source = runs
        self._mail = mail
        self._taken = taken
        self._ready = ready
        self._runs = Runs()
        self._over: deque[tuple[Ending, Place]] = deque()
        self._later: list[_Later] = []
        self._positions: dict[tuple[str, int], int] = {}
        self._committed: dict[tuple[str, int], int] = {}
        self._todo: deque[Message] = deque()
        self._short = {settings.topic(name): name for name in READ}
        self._commit_at = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Read until the end.

        :raises MessagingError: if Kafka refuses us for a reason that does not pass by itself.
        """
        processing = self._settings.processing
        consumer = Consumer(
            self._settings,
            list(self._short),
            group_id=f"{self._settings.beamline}.{processing.group_id}",
            instance=self._settings.adaptive.instance,
            on_assign=self._assigned,
            on_revoke=self._revoked,
            # What was over before there was any processing is not processed.
            offset_reset="latest",
        )
        try:
            while not stopping.is_set():
                self._turn(consumer, stopping)
            self._commit(consumer)
        finally:
            consumer.close()

    def _turn(self, consumer: Consumer, stopping: threading.Event) -> None:
        self._todo.extend(consumer.poll(AT_ONCE, POLL_S))
        held = False
        while (self._todo or self._over or self._later_due()) and not stopping.is_set():
            try:
                self._work()
            except StoreDownError as error:
                if not held:
                    log.warning("waiting for the database", reason=str(error))
                    consumer.pause()
                    held = True
                # Paused, this gives nothing and keeps the membership.
                self._todo.extend(consumer.poll(1, RETRY_S))
        if held:
            consumer.resume()
        if time.monotonic() >= self._commit_at:
            self._commit(consumer)
            self._commit_at = time.monotonic() + COMMIT_S

    def _work(self) -> None:
        """All that waits; what could not be done is still there when this raises."""
        for later in self._later_due():
            self._try_later(later)
        self._accept()
        while self._todo:
            self._read(self._todo[0])
            self._todo.popleft()
            self._accept()

    def _accept(self) -> None:
        while self._over:
            self._end(*self._over[0])
            self._over.popleft()

    def _end(self, ending: Ending, place: Place) -> None:
        """Make its jobs. What cannot be processed at all keeps nothing else from it."""
        try:
            if self._acceptance.ending(ending, str(place)):
                self._taken()
        except (StoreDownError, MessagingError):
            raise
        except Exception as error:
            log.exception("it cannot be processed", about=ending.subject.uid)
            self._acceptance.unforeseen(ending, f"{type(error).__name__}: {error}")

    # ---- messages

    def _read(self, message: Message) -> None:
        where = (message.topic, message.partition)
        if where not in self._positions:
            return  # it is somebody else's now
        place = Place(message.topic, message.partition, message.offset)
        short = self._short[message.topic]
        if _may_matter(short, message):
            self._handle_or_bury(short, message, place)
        self._positions[where] = message.offset + 1

    def _handle_or_bury(self, short: str, message: Message, place: Place) -> None:
        try:
            name, doc = decode(message.value)
            self._handle(short, name, doc, place)
        except (DecodingError, MalformedError, ValidationError, Refused) as error:
            # Of documents the recorder tells.
            if short == "jobs":
                self._bury(message, str(error))
        except (StoreDownError, MessagingError):
            raise
        except Exception as error:
            log.exception("a message is set aside", place=str(place))
            self._bury(message, f"{type(error).__name__}: {error}")

    def _handle(self, short: str, name: str, doc: dict[str, Any], place: Place) -> None:
        if short == "jobs":
            if name == "request":
                self._request(doc, place)
        elif short == "adaptive":
            if name == "batch_event" and doc.get("event") == "ended":
                self._batch_ended(doc, place)
        else:
            for over in self._runs.read(name, doc, place):
                if isinstance(over, Orphan):
                    self._put_off(over.uid, None, "", place)
                else:
                    self._over.append((over, place))

    def _request(self, doc: dict[str, Any], place: Place) -> None:
        refused = self._acceptance.request(parse_request(doc), str(place), self._source)
        self._taken()
        if refused is not None:
            raise Refused(refused)

    def _bury(self, message: Message, reason: str) -> None:
        log.warning("a request cannot be carried out", reason=reason)
        try:
            self._mail.deliver([dead_letter(message, reason, SERVICE)], DELIVER_S)
        except (NotDelivered, Undeliverable) as error:
            log.warning("a dead letter was not sent", reason=str(error))

    # ---- what the database has to tell

    def _batch_ended(self, doc: dict[str, Any], place: Place) -> None:
        batch = {"batch_id": str(doc.get("batch_id")), "batch_count": None}
        self._put_off(None, batch, str(doc.get("outcome")), place)

    def _put_off(
        self, run: str | None, batch: Mapping[str, Any] | None, outcome: str, place: Place
    ) -> None:
        deadline = time.monotonic() + self._settings.processing.stored_seconds
        self._later.append(_Later(run, batch, outcome, place, deadline))

    def _later_due(self) -> list[_Later]:
        now = time.monotonic()
        return [one for one in self._later if one.due <= now]

    def _try_later(self, later: _Later) -> None:
        ending = self._stored_ending(later)
        if ending is None and time.monotonic() < later.deadline:
            later.due = time.monotonic() + RETRY_S
            return
        if ending is None:
            about = later.run or (later.batch or {}).get("batch_id")
            log.warning("not recorded in time: not processed", about=about)
        else:
            self._end(ending, later.place)
        self._later.remove(later)

    def _stored_ending(self, later: _Later) -> Ending | None:
        batch = later.batch
        uid = later.run
        if batch is not None:
            uid = self._source.last_of_batch(str(batch["batch_id"]))
        run = None if uid is None else documents_of(self._source, uid)
        if run is None:
            return None
        if batch is not None:
            return Ending.of_batch(run, batch, later.outcome)
        return Ending.of_run(run)

    # ---- partitions

    def _assigned(self, partitions: list[tuple[str, int, int]]) -> None:
        for topic, partition, offset in partitions:
            self._positions[topic, partition] = offset
            # Committed at once: where reading began must not move with a restart.
            self._committed.pop((topic, partition), None)
        self._commit_at = 0.0

    def _revoked(self, partitions: list[tuple[str, int]]) -> None:
        for topic, partition in partitions:
            self._positions.pop((topic, partition), None)
            self._committed.pop((topic, partition), None)
            self._runs.revoked(topic, partition)
            gone = (topic, partition)
            self._later = [one for one in self._later if one.place[:2] != gone]
            self._over = deque(one for one in self._over if one[1][:2] != gone)

    def _commit(self, consumer: Consumer) -> None:
        """Up to what has its effect stored, and to the oldest run that is under way."""
        offsets: dict[tuple[str, int], int] = {}
        for (topic, partition), position in self._positions.items():
            places = [*(one.place for one in self._later), *(place for _, place in self._over)]
            waiting = [one.offset for one in places if one[:2] == (topic, partition)]
            oldest = self._runs.oldest(topic, partition)
            offset = min([position, *waiting, *([] if oldest is None else [oldest])])
            if self._committed.get((topic, partition)) != offset:
                offsets[topic, partition] = offset
        try:
            consumer.commit(offsets)
        except CommitFailed as error:
            log.warning("offsets are not committed yet", reason=str(error))
        else:
            self._committed.update(offsets)
            if self._committed:
                self._ready()


def _may_matter(short: str, message: Message) -> bool:
    """Whether it is worth decoding: the name of a document stands at its beginning."""
    wanted = WANTED.get(short)
    return wanted is None or wanted in (message.value or b"")[:32]


class Refused(ValueError):  # noqa: N818 - an answer, not a failure
    """A request cannot be carried out; the text says why."""
