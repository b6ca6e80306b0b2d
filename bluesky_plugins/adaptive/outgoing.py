"""What the service sends: in order, and again until it is acknowledged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from bluesky_plugins.adaptive.metrics import Metrics
from bluesky_plugins.messaging import Message, NotDelivered, Producer, Undeliverable, dead_letter

__all__ = ["Outgoing"]

log = structlog.get_logger(__name__)
DELIVERY_SECONDS = 1.5
Parts = tuple[str, str, str, Mapping[str, Any]]


class Outgoing:
    """Messages that wait to be sent, and what became of the others."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._waiting: list[Parts] = []

    @property
    def waiting(self) -> bool:
        """Whether a message is not acknowledged yet."""
        return bool(self._waiting)

    def put(self, topic: str, key: str, name: str, doc: Mapping[str, Any]) -> None:
        """Have a message sent; `topic` is the full name."""
        self._waiting.append((topic, key, name, doc))

    def bury(self, message: Message, reason: str, service: str) -> None:
        """Have a message sent to the dead letters."""
        log.warning(
            "a message cannot be used",
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            reason=reason,
        )
        self._metrics.dead_letters.inc()
        self._waiting.append(dead_letter(message, reason, service))

    def deliver(self, producer: Producer) -> bool:
        """Send what waits, in order; whether all of it is acknowledged."""
        if not self._waiting:
            return True
        try:
            producer.deliver(self._waiting, DELIVERY_SECONDS)
        except NotDelivered as error:
            log.warning("Kafka does not take messages; they are sent again", error=str(error))
            return False
        except Undeliverable:
            return self._one_by_one(producer)
        self._settle(self._waiting)
        self._waiting = []
        return True

    def _one_by_one(self, producer: Producer) -> bool:
        """Send each alone, so that the one that cannot travel stops no other."""
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            try:
                producer.deliver([message], DELIVERY_SECONDS)
            except NotDelivered:
                self._waiting.append(message)
            except Undeliverable as error:
                log.error("a message cannot be sent", topic=message[0], reason=str(error))
                self._metrics.unsendable.inc()
            else:
                self._settle([message])
        return not self._waiting

    def _settle(self, messages: list[Parts]) -> None:
        for _, _, name, doc in messages:
            self._metrics.sent(name, doc)
