"""The topics: their names, and how they are made."""

from __future__ import annotations

import threading
import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from bluesky_plugins.messaging.config import admin_config
from bluesky_plugins.messaging.errors import BrokerUnreachable, MessagingError
from bluesky_plugins.messaging.refusal import PRODUCER, Refusals, made
from bluesky_plugins.settings import Settings

__all__ = ["TOPICS", "broker_count", "make_topics", "partition_counts"]

TOPICS: tuple[str, ...] = (
    "documents",
    "adaptive",
    "suggestions",
    "analysis",
    "jobs",
    "session_data",
    "metadata",
    "alerts",
    "dead_letters",
)
# How long a broker may take to tell of a topic that it has just made, seconds between looks.
LOOK_AGAIN = 0.05


def make_topics(settings: Settings, timeout: float = 10.0) -> None:
    """Make the topics of the beamline that are not there yet, and wait until they can be used.

    A topic that exists is left as it is: the number of partitions decides which key lies
    where, so it never changes.

    :param timeout: seconds until the topics must be there.
    :raises BrokerUnreachable: if no broker answers in that time.
    :raises MessagingError: if the broker refuses to make one; the message says why.
    """
    deadline = time.monotonic() + timeout
    asked = _Asked(settings)
    wanted = {settings.topic(name) for name in TOPICS}
    missing = wanted - asked.counts(timeout).keys()
    if missing:
        _create(asked.client, settings, sorted(missing), deadline)
        _wait_for(asked, wanted, deadline)


def partition_counts(settings: Settings, timeout: float = 10.0) -> dict[str, int | None]:
    """How many partitions each topic of the beamline has; None for one that is not there.

    :raises BrokerUnreachable: if no broker answers within `timeout` seconds.
    """
    counts = _Asked(settings).counts(timeout)
    return {full: counts.get(full) for full in map(settings.topic, TOPICS)}


def broker_count(settings: Settings, timeout: float = 10.0) -> int:
    """How many brokers there are.

    :raises BrokerUnreachable: if none answers within `timeout` seconds.
    """
    return len(_Asked(settings).metadata(timeout).brokers)


class _Asked:
    """A client to ask with, which knows why it was refused."""

    def __init__(self, settings: Settings) -> None:
        self._refusals = Refusals(PRODUCER)
        config = {**admin_config(settings), "error_cb": self._refusals.note}
        self.client = made(AdminClient, config, PRODUCER)

    def metadata(self, timeout: float) -> Any:
        try:
            return self.client.list_topics(timeout=max(timeout, 0.1))
        except KafkaException as error:
            self.client.poll(0)  # reports what the client met meanwhile
            reason = self._refusals.instead_of(error)
            raise BrokerUnreachable(f"no broker answered in {timeout:.1f} s: {reason}") from error

    def counts(self, timeout: float) -> dict[str, int]:
        """Topics whose partitions all have a leader."""
        return {
            name: len(topic.partitions)
            for name, topic in self.metadata(timeout).topics.items()
            if topic.error is None and all(p.leader >= 0 for p in topic.partitions.values())
        }


def _create(client: AdminClient, settings: Settings, names: list[str], deadline: float) -> None:
    kafka = settings.kafka
    new = [
        NewTopic(
            name,
            num_partitions=kafka.partitions,
            replication_factor=kafka.replication_factor,
            config={"max.message.bytes": str(kafka.max_message_bytes)},
        )
        for name in names
    ]
    seconds = max(deadline - time.monotonic(), 0.1)
    for name, future in client.create_topics(
        new, operation_timeout=seconds, request_timeout=seconds
    ).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise MessagingError(f"topic {name} could not be made: {error}") from error


def _wait_for(asked: _Asked, wanted: set[str], deadline: float) -> None:
    pause = threading.Event()
    while missing := wanted - asked.counts(deadline - time.monotonic()).keys():
        if time.monotonic() > deadline:
            raise MessagingError(f"made, but not ready in time: {', '.join(sorted(missing))}")
        pause.wait(LOOK_AGAIN)
