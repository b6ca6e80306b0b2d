"""Says once that the broker is away and once that it is back."""

from __future__ import annotations

import logging
import time

from confluent_kafka import KafkaError

from bluesky_plugins.messaging.codes import NOBODY_ANSWERS, QUIET

__all__ = ["Outage"]

# Any other error is logged at most this often, s.
AGAIN_AFTER = 60.0


class Outage:
    """Turns a flood of errors into a line when it begins and a line when it ends."""

    def __init__(self, logger: logging.Logger, address: str) -> None:
        self._logger = logger
        self._address = address
        self._logged: dict[int, float] = {}
        self.away = False

    def note(self, error: KafkaError) -> None:
        """Take in an error of librdkafka."""
        if error.code() == NOBODY_ANSWERS:
            if not self.away:
                self.away = True
                self._logger.warning("Kafka at %s does not answer", self._address)
            return
        now = time.monotonic()
        if now - self._logged.get(error.code(), -AGAIN_AFTER) >= AGAIN_AFTER:
            self._logged[error.code()] = now
            level = logging.ERROR if error.fatal() else logging.WARNING
            self._logger.log(logging.DEBUG if error.code() in QUIET else level, "Kafka: %s", error)

    def over(self) -> None:
        """Take in that the broker answered."""
        if self.away:
            self.away = False
            self._logger.warning("Kafka at %s answers again", self._address)
