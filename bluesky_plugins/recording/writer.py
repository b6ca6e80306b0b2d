"""Write one bulk while the next is being read and checked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import structlog

from bluesky_plugins.messaging import NotDelivered, dead_letter
from bluesky_plugins.recording.bulk import Bulk, Letter, Offsets, refusals
from bluesky_plugins.recording.documents import Record
from bluesky_plugins.recording.ports import LetterBox
from bluesky_plugins.recording.store import DocumentStore, StoreDownError, Written

__all__ = ["Writer", "record_bulk"]

SERVICE = "recorder"
# One bulk being written and one ready: more would only be more to repeat after a crash.
BULKS_HELD = 2
DELIVERY_SECONDS = 2.0

log = structlog.get_logger(__name__)

# Waits before the next attempt; False when there is to be none.
Wait = Callable[[], bool]


def record_bulk(
    bulk: Bulk, stores: Mapping[str, DocumentStore], letter_box: LetterBox, wait: Wait
) -> bool:
    """Store a bulk and deliver its dead letters, however long the servers are away.

    :param stores: by topic.
    :param wait: called before each further attempt; False gives up.
    :returns: True when all is done and the offsets may be committed, False when given up.
    """
    written = Written()
    for topic, records in bulk.records.items():
        outcome = _until_written(stores[topic], records, wait)
        if outcome is None:
            return False
        written += outcome
    letters = [*bulk.letters, *refusals(bulk, written.refused)]
    _log(bulk, written, letters)
    return not letters or _until_delivered(letters, letter_box, wait)


class Writer:
    """A thread that records bulks in the order in which they are handed over.

    :param retry_seconds: pause before a server is tried again.
    """

    def __init__(
        self, stores: Mapping[str, DocumentStore], letter_box: LetterBox, retry_seconds: float
    ) -> None:
        self._stores = stores
        self._letter_box = letter_box
        self._retry_seconds = retry_seconds
        self._changed = threading.Condition()
        self._waiting: deque[Bulk] = deque()
        self._in_hand = 0
        self._recorded: dict[tuple[str, int], int] = {}
        self._finishing = False
        self._giving_up = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="recorder-writer", daemon=True)
        self._thread.start()

    def put(self, bulk: Bulk) -> None:
        """Hand over a bulk; only when there is room."""
        with self._changed:
            self._waiting.append(bulk)
            self._in_hand += 1
            self._changed.notify_all()

    def wait_for_room(self, timeout: float) -> bool:
        """Whether another bulk may be handed over within `timeout` seconds.

        :raises Exception: what ended the thread, if it ended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failure or self._has_room(), timeout)
            self._raise_failure()
            return self._has_room()

    def take_recorded(self) -> Offsets:
        """The offsets that may be committed since the last call."""
        with self._changed:
            recorded, self._recorded = self._recorded, {}
            return recorded

    def finish(self, timeout: float) -> bool:
        """Take no more bulks; True when what is in hand is recorded within `timeout` seconds."""
        with self._changed:
            self._finishing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._failure or self._in_hand == 0, timeout)
            self._raise_failure()
            return self._in_hand == 0

    def abandon(self) -> None:
        """End the thread at its next step, whatever is in hand."""
        self._giving_up.set()
        with self._changed:
            self._finishing = True
            self._waiting.clear()
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._in_hand < BULKS_HELD

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while (bulk := self._next()) is not None:
                if not record_bulk(bulk, self._stores, self._letter_box, self._wait):
                    return
                self._done(bulk)
        except BaseException as error:  # noqa: BLE001 (the service's own thread raises it)
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _next(self) -> Bulk | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._finishing)
            return self._waiting.popleft() if self._waiting else None

    def _done(self, bulk: Bulk) -> None:
        with self._changed:
            self._recorded.update(bulk.offsets)
            self._in_hand -= 1
            self._changed.notify_all()

    def _wait(self) -> bool:
        return not self._giving_up.wait(self._retry_seconds)


def _until_written(store: DocumentStore, records: Sequence[Record], wait: Wait) -> Written | None:
    down = False
    while True:
        try:
            written = store.write(records)
        except StoreDownError as error:
            if not down:
                log.warning("mongo does not take documents; waiting", reason=str(error))
            down = True
        else:
            if down:
                log.info("mongo takes documents again")
            return written
        if not wait():
            return None


def _until_delivered(letters: Sequence[Letter], letter_box: LetterBox, wait: Wait) -> bool:
    messages = [dead_letter(letter.message, letter.reason, SERVICE) for letter in letters]
    while True:
        try:
            letter_box.deliver(messages, DELIVERY_SECONDS)
        except NotDelivered as error:
            log.warning("dead letters cannot be delivered; waiting", reason=str(error))
        else:
            return True
        if not wait():
            return False


def _log(bulk: Bulk, written: Written, letters: Sequence[Letter]) -> None:
    log.debug(
        "recorded",
        messages=len(bulk.messages),
        stored=written.stored,
        repeated=written.repeated,
        dead_letters=len(letters),
    )
    for letter in letters:
        place = f"{letter.message.topic}/{letter.message.partition}/{letter.message.offset}"
        log.warning("dead letter", message=place, reason=letter.reason)
