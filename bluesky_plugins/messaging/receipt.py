"""What became of a message that somebody waits for."""

from __future__ import annotations

from confluent_kafka import KafkaError

from bluesky_plugins.messaging.codes import REFUSED
from bluesky_plugins.messaging.errors import MessageTooLarge, MessagingError, NotDelivered

__all__ = ["Receipt"]


class Receipt:
    """Of one message; `done` when the broker acknowledged or refused it."""

    def __init__(self) -> None:
        self.done = False
        self._error: KafkaError | None = None

    def settle(self, error: KafkaError | None) -> None:
        """Take in the delivery report."""
        self._error = error
        self.done = True

    def raise_error(self) -> None:
        """Raise what it says.

        :raises MessageTooLarge: if the broker will never take it.
        :raises NotDelivered: for any other error.
        """
        if self._error is None:
            return
        kind: type[MessagingError] = NotDelivered
        if self._error.code() in REFUSED:
            kind = MessageTooLarge
        raise kind(str(self._error))
