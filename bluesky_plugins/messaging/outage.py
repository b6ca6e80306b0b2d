"""Says once that the broker is away and once that it is back."""

from __future__ import annotations

import logging
import time

from confluent_kafka import KafkaError

from bluesky_plugins.messaging.codes import NOBODY_ANSWERS, QUIET
from bluesky_plugins.messaging.refusal import Refusals

__all__ = ["Outage"]

# Any other error is logged at most this often, s.
AGAIN_AFTER = 60.0


class Outage:
    """Turns a flood of errors into a line when it begins and a line when it ends.

    :param at: setting that the client's properties come from.
    """

    def __init__(self, logger: logging.Logger, address: str, at: str) -> None:
        self._logger = logger
        self._address = address
        self._logged: dict[int, float] = {}
        self.away = False
        self.refusals = Refusals(at)

    def note(self, error: KafkaError) -> None:
        """Take in an error of librdkafka."""
        if error.code() == NOBODY_ANSWERS:
            if not self.away:
                self.away = True
                self._logger.warning("Kafka at %s does not answer", self._address)
            return
        self.refusals.note(error)
        now = time.monotonic()
        if now - self._logged.get(error.code(), -AGAIN_AFTER) >= AGAIN_AFTER:
            self._logged[error.code()] = now
            self._log(error)

    def over(self) -> None:
        """Take in that the broker answered."""
        self.refusals.last = None
        if self.away:
            self.away = False
            self._logger.warning("Kafka at %s answers again", self._address)

    def _log(self, error: KafkaError) -> None:
        if refusal := self.refusals.of(error):
            self._logger.error("Kafka: %s", refusal)
            return
        level = logging.ERROR if error.fatal() else logging.WARNING
        self._logger.log(logging.DEBUG if error.code() in QUIET else level, "Kafka: %s", error)
