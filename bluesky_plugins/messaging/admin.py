"""Questions to the brokers, and why they were not answered."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bluesky_plugins.messaging.config import admin_config
from bluesky_plugins.messaging.errors import BrokerUnreachable
from bluesky_plugins.messaging.refusal import PRODUCER, Refusals, made
from bluesky_plugins.settings import Settings

__all__ = ["Admin"]


class Admin:
    """A client to ask with. Answers come only as long as it is held.

    :raises bluesky_plugins.settings.ConfigurationError: a property of `kafka.producer_config`
        cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._refusals = Refusals(PRODUCER)
        config = {**admin_config(settings), "error_cb": self._refusals.note}
        self.client = made(AdminClient, config, PRODUCER)

    def metadata(self, timeout: float) -> Any:
        """Brokers and topics, as librdkafka gives them.

        :raises BrokerUnreachable: if no broker answers within `timeout` seconds.
        """
        try:
            return self.client.list_topics(timeout=max(timeout, 0.1))
        except KafkaException as error:
            reason = self.reason(error)
            raise BrokerUnreachable(f"no broker answered in {timeout:.1f} s: {reason}") from error

    def reason(self, error: Exception) -> str:
        """Why we were refused, where that is known; else the error in words."""
        self.client.poll(0)  # reports what the client met meanwhile
        words = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        return self._refusals.last or words
