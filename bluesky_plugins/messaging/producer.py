"""One idempotent producer, which neither blocks nor raises into the RunEngine."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from bluesky_plugins.messaging.codec import encode
from bluesky_plugins.messaging.codes import FATAL, PURGED, REFUSED
from bluesky_plugins.messaging.config import producer_config
from bluesky_plugins.messaging.dead_letters import is_dead_letters, unsendable
from bluesky_plugins.messaging.errors import (
    EncodingError,
    MessageTooLarge,
    NotDelivered,
)
from bluesky_plugins.messaging.outage import Outage
from bluesky_plugins.messaging.outbox import Outbox
from bluesky_plugins.messaging.receipt import Receipt
from bluesky_plugins.messaging.refusal import PRODUCER, made
from bluesky_plugins.messaging.segment import Record
from bluesky_plugins.messaging.spool import open_spool
from bluesky_plugins.settings import Settings

__all__ = ["Producer"]

logger = logging.getLogger(__name__)

Outgoing = tuple[str, str, str, Mapping[str, Any]]

# The background thread looks this often whether something is to be done, s.
TEND_SECONDS = 0.25
# The same while messages wait until librdkafka's queue has room for them, s.
ROOM_SECONDS = 0.005
# After a message was given back for a reason that may pass, s.
RETRY_SECONDS = 1.0
# Messages handed on from the spool before others get their turn.
DRAIN_AT_ONCE = 100
# A single question, or look at the delivery reports, s.
PROBE_SECONDS = 1.0
REPORT_SECONDS = 0.01
# While librdkafka flushes it sends at once; it needs no longer than this to begin, s.
SOON_SECONDS = 0.001


class Producer:
    """Sends documents; what cannot be sent now is kept, in order, and sent later.

    Thread-safe. Nothing expires in it. When its bounded queue overflows, and while nobody
    answers, messages go to a spool on disk, from which they are sent in order. What is unsent
    at the end stays there, and the next process sends it first.

    :param client_id: as which it shows in the broker's log.
    :param spool: False: nothing on disk; for services, which use `deliver`.
    """

    def __init__(
        self, settings: Settings, *, client_id: str = "bluesky-plugins", spool: bool = True
    ) -> None:
        self._settings = settings
        self._spools = spool
        self._config = producer_config(settings, client_id)
        self._limit = int(self._config["message.max.bytes"])
        self._last_seq = 0
        self._generation = 0
        self._begin()
        _ALIVE.add(self)

    def _begin(self) -> None:
        settings = self._settings
        self._inherited = False
        self._lock = threading.Lock()
        self._outage = Outage(logger, settings.kafka.address, PRODUCER)
        self._outbox = Outbox(self._hand, open_spool(settings) if self._spools else None)
        self._receipts: dict[tuple[str, bytes, bytes], Receipt] = {}
        self._retry_at = 0.0
        self._broken = False
        self._closing = self._closed = False
        self._kafka = self._connect()
        self._wake = threading.Event()
        name = f"{self._config['client.id']}-producer"
        self._thread = threading.Thread(target=self._tend, name=name, daemon=True)
        self._thread.start()

    @property
    def unsent(self) -> int:
        """Number of messages that are not acknowledged."""
        return self._outbox.unsent + len(self._receipts)

    @property
    def lost(self) -> int:
        """Number of messages that could neither be sent nor kept."""
        return self._outbox.lost

    @property
    def healthy(self) -> bool:
        """Whether a broker answers, as far as is known."""
        return not self._outage.away

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing

    def send(
        self, topic: str, key: str, name: str, doc: Mapping[str, Any], *, soon: bool = False
    ) -> None:
        """Send a document, and return at once. Never raises for what is wrong with it.

        A document that cannot be encoded, or is larger than the broker takes, is logged and
        becomes a dead letter.

        :param topic: full name.
        :param key: documents with the same key stay in order.
        :param name: name of the document.
        :param soon: somebody waits for it: it is not gathered with others for some
            milliseconds. This may take up to a millisecond.
        """
        if self._inherited:
            self._begin()
        try:
            value = self._encoded(key, name, doc)
        except EncodingError as error:
            self._bury(topic, key, name, doc, str(error))
        except MessageTooLarge as error:
            self._bury(topic, key, name, encode(name, doc), str(error))
        else:
            self._put(topic, key.encode(), value)
        if soon and self.healthy:
            self._kafka.flush(SOON_SECONDS)
        else:
            self._kafka.poll(0)

    def flush(self, timeout: float) -> int:
        """Wait until everything is acknowledged, or nobody answers.

        :param timeout: seconds, at most.
        :returns: number of messages that are not acknowledged.
        """
        if self._inherited:
            return 0
        deadline = time.monotonic() + timeout
        self._kafka.poll(0)
        while self.unsent and self.healthy and time.monotonic() < deadline:
            if self._outbox.waiting:
                self._wake.set()
            self._kafka.flush(REPORT_SECONDS)
        return self.unsent

    def deliver(self, messages: Iterable[Outgoing], timeout: float) -> None:
        """Send, and wait until all are acknowledged. Nothing of it goes to the spool.

        :param messages: (topic, key, name, document) each.
        :param timeout: seconds, for all together.
        :raises NotDelivered: if one is not acknowledged in that time. It may still arrive: the
            same message sent again while it is under way is not sent twice.
        :raises Undeliverable: if one cannot be encoded or is too large; sending it again is of
            no use.
        """
        if self._inherited:
            self._begin()
        deadline = time.monotonic() + timeout
        encoded = [(t, k.encode(), self._encoded(k, n, d)) for t, k, n, d in messages]
        receipts = [self._under_way(each, deadline) for each in encoded]
        while not all(receipt.done for receipt in receipts):
            if time.monotonic() >= deadline:
                missing = sum(not receipt.done for receipt in receipts)
                raise NotDelivered(f"{missing} of {len(receipts)} messages after {timeout} s")
            self._kafka.flush(REPORT_SECONDS)
        for receipt in receipts:
            receipt.raise_error()

    def close(self, timeout: float = 5.0) -> int:
        """Send what can be sent; what is unsent goes to the spool.

        :param timeout: seconds, for all of it; for acknowledgements only if a broker answers.
        :returns: number of messages that are unsent.
        """
        if self._inherited:
            return 0
        deadline = time.monotonic() + timeout
        with self._lock:
            if self._closing:
                return 0
            self._closing = True
        self.flush(timeout)
        with self._lock:
            unsent = self.unsent
            # Written down first: from here on the process may be killed.
            self._outbox.close()
            self._closed = True
            self._generation += 1
        self._wake.set()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if unsent:
            logger.warning("%d messages are unsent at the end", unsent)
        _abandon(self._kafka, max(REPORT_SECONDS, deadline - time.monotonic()))
        return unsent

    def _leave_to_parent(self) -> None:
        """In a forked child: librdkafka's threads are not here. Begin anew when used."""
        # Destroying it would wait for those threads.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._kafka))
        self._outbox.forsake()
        self._inherited = True

    def _encoded(self, key: str, name: str, doc: Mapping[str, Any]) -> bytes:
        value = encode(name, doc)
        if len(value) + len(key) > self._limit:
            raise MessageTooLarge(f"{name} document of {len(value)} bytes; limit {self._limit}")
        return value

    def _put(self, topic: str, key: bytes, value: bytes) -> None:
        with self._lock:
            if self._closed:
                logger.error("LOST: a message for %s came after the producer was closed", topic)
                return
            self._last_seq = max(self._last_seq + 1, time.time_ns())
            record = Record(self._last_seq, topic, key, value)
            self._outbox.put(record, keep=self._outage.away)

    def _bury(
        self, topic: str, key: str, name: str, content: bytes | Mapping[str, Any], reason: str
    ) -> None:
        logger.error("not sent to %s: %s", topic, reason)
        if is_dead_letters(topic):
            return
        to, letter_key, letter_name, doc = unsendable(topic, key, name, content, reason)
        self._put(to, letter_key.encode(), encode(letter_name, doc))

    def _hand(self, ticket: int, record: Record) -> bool:
        report = partial(self._report, self._generation, ticket)
        try:
            self._kafka.produce(record.topic, record.value, record.key, on_delivery=report)
        except BufferError:
            return False
        except KafkaException as error:
            if error.args[0].code() in REFUSED:
                logger.error("LOST: a message for %s: %s", record.topic, error)
                self._outbox.refused(ticket)
                return True
            self._note(error.args[0])
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return False
        return True

    def _report(self, generation: int, ticket: int, error: KafkaError | None, _: Any) -> None:
        if generation != self._generation:
            return
        if error is None:
            with self._lock:
                self._outbox.settled(ticket)
            self._outage.over()
        elif error.code() in REFUSED:
            # Its dead letter comes first: between the two the process may end.
            if (record := self._outbox.record(ticket)) is not None:
                key = record.key.decode()
                self._bury(record.topic, key, "", record.value, f"refused by Kafka: {error}")
            with self._lock:
                self._outbox.settled(ticket)
        elif error.code() not in PURGED:
            self._note(error)
            with self._lock:
                self._outbox.failed(ticket)
                self._retry_at = time.monotonic() + RETRY_SECONDS

    def _under_way(self, message: tuple[str, bytes, bytes], deadline: float) -> Receipt:
        """A message's receipt: the one of its first copy if that is still under way."""
        while True:
            with self._lock:
                receipt = self._receipts.get(message)
                if receipt is None and (receipt := self._produced(message)) is not None:
                    self._receipts[message] = receipt
            if receipt is not None:
                return receipt
            if time.monotonic() >= deadline:
                raise NotDelivered("the queue of unsent messages is full")
            self._kafka.poll(REPORT_SECONDS)

    def _produced(self, message: tuple[str, bytes, bytes]) -> Receipt | None:
        topic, key, value = message
        receipt = Receipt()
        report = partial(self._received, self._generation, message, receipt)
        try:
            self._kafka.produce(topic, value, key, on_delivery=report)
        except BufferError:
            return None
        except KafkaException as error:
            self._note(error.args[0])
            raise NotDelivered(str(error)) from error
        return receipt

    def _received(
        self,
        generation: int,
        message: tuple[str, bytes, bytes],
        receipt: Receipt,
        error: KafkaError | None,
        _: Any,
    ) -> None:
        if generation == self._generation:
            self._receipts.pop(message, None)
        receipt.settle(error)
        if error is None:
            self._outage.over()
        elif error.code() not in REFUSED and error.code() not in PURGED:
            self._note(error)

    def _note(self, error: KafkaError) -> None:
        self._broken = self._broken or error.fatal() or error.code() == FATAL
        self._outage.note(error)
        if self._outage.away:
            self._wake.set()

    def _connect(self) -> Any:
        return made(confluent_kafka.Producer, {**self._config, "error_cb": self._note}, PRODUCER)

    def _tend(self) -> None:
        """The background thread: reports, outages, the spool."""
        saved = False
        while not self._closed:
            self._wake.wait(ROOM_SECONDS if self._may_drain() else TEND_SECONDS)
            self._wake.clear()
            self._kafka.poll(0)
            if self._broken:
                self._reconnect()
            if self._outage.away:
                saved = saved or self._save()
                self._probe()
            else:
                saved = False
                self._drain()

    def _may_drain(self) -> bool:
        waits = self._outbox.waiting > 0
        return waits and self.healthy and time.monotonic() >= self._retry_at

    def _drain(self) -> None:
        while self._may_drain():
            with self._lock:
                if self._closed:
                    return
                done = self._outbox.drain(DRAIN_AT_ONCE)
            self._kafka.poll(0)
            if done < DRAIN_AT_ONCE:
                return

    def _save(self) -> bool:
        with self._lock:
            return self._closed or self._outbox.save() == 0

    def _probe(self) -> None:
        """Nothing under way would show that the broker is back, so it is asked."""
        if self._outbox.handed or self._receipts:
            return
        try:
            self._kafka.list_topics(timeout=PROBE_SECONDS)
        except KafkaException:
            return
        self._outage.over()
        self._wake.set()

    def _reconnect(self) -> None:
        """After a fatal error librdkafka's producer is of no use: take a new one."""
        logger.error("Kafka's producer had a fatal error; a new one goes on")
        with self._lock:
            if self._closed:
                return
            old, self._kafka = self._kafka, self._connect()
            self._generation += 1
            self._broken = False
            self._receipts.clear()
            self._outbox.all_failed()
        _abandon(old, PROBE_SECONDS)


def _abandon(kafka: Any, timeout: float) -> None:
    """End a producer of librdkafka without waiting for what it still has."""
    kafka.purge()
    kafka.flush(timeout)


# What a forked child inherits.
_ALIVE: weakref.WeakSet[Producer] = weakref.WeakSet()


def _after_fork() -> None:
    for producer in list(_ALIVE):
        producer._leave_to_parent()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork)
