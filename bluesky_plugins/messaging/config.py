"""Properties of librdkafka's clients, and its chatter turned down."""

from __future__ import annotations

import logging
from typing import Any

from bluesky_plugins.settings import Settings

__all__ = ["admin_config", "consumer_config", "producer_config", "reader_config"]

# After an outage the broker is tried again at least this often, ms.
RECONNECT = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 1000}


class _Chatter:
    """librdkafka's own log, one line per connection attempt: for debugging only.

    What a person should know (the broker is gone, it is back) this package logs itself.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"bluesky_plugins.messaging.{name}.librdkafka")

    def log(self, level: int, text: str, *args: Any) -> None:
        self._logger.debug("(level %d) " + text, level, *args)


def _common(settings: Settings, client_id: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": settings.kafka.address,
        "client.id": client_id,
        "log.connection.close": False,
        **RECONNECT,
    }


def admin_config(settings: Settings) -> dict[str, Any]:
    """Properties and the logger of an AdminClient."""
    # What says how to connect (SASL, TLS) is the same for all clients.
    own = {k: v for k, v in settings.kafka.producer_config.items() if _connects(k)}
    config = {**_common(settings, "bluesky-plugins-admin"), **own}
    return {**config, "logger": _Chatter("admin")}


def _connects(key: str) -> bool:
    return key.startswith(
        ("sasl.", "ssl.", "security.", "socket.", "enable.ssl", "test.", "broker.")
    )


def producer_config(settings: Settings, client_id: str) -> dict[str, Any]:
    """Idempotent, and nothing expires."""
    return {
        **_common(settings, client_id),
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": 0,
        # A connection whose other end has gone without a word (a network cut and mended) is given
        # up after this, not after a minute: a plan waits no longer for its answer.
        "socket.timeout.ms": 10_000,
        # A request for each document costs a scan 8 % more than one for what comes in 5 ms.
        # What is waited for goes out at once (`send(soon=True)`, `flush`, `deliver`).
        "linger.ms": 5,
        # Measured: half the time a message, and not slower where it does not shrink.
        "compression.type": "lz4",
        "message.max.bytes": settings.kafka.max_message_bytes,
        "queue.buffering.max.messages": 100_000,
        "queue.buffering.max.kbytes": 65_536,
        **settings.kafka.producer_config,
        "logger": _Chatter("producer"),
    }


def consumer_config(
    settings: Settings, group_id: str, instance: str, offset_reset: str
) -> dict[str, Any]:
    """Static membership, a short session, offsets committed by hand."""
    return {
        **_common(settings, f"{group_id}-{instance}"),
        "group.id": group_id,
        "group.instance.id": f"{group_id}-{instance}",
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 1000,
        "max.poll.interval.ms": 600_000,
        # Topics with as many partitions each are shared out alike: partition 2 of one and
        # partition 2 of the other belong to the same member.
        "partition.assignment.strategy": "range",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": offset_reset,
        "socket.timeout.ms": 10_000,
        "topic.metadata.refresh.interval.ms": 5000,
        **settings.kafka.consumer_config,
        "logger": _Chatter("consumer"),
    }


def reader_config(settings: Settings, group_id: str) -> dict[str, Any]:
    """Without a group: partitions are assigned by hand, nothing is ever committed."""
    return {
        **_common(settings, group_id),
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "socket.timeout.ms": 10_000,
        **settings.kafka.consumer_config,
        "logger": _Chatter("reader"),
    }
