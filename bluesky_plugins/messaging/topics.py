"""The topics: their names, and how they are made."""

from __future__ import annotations

import threading
import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from bluesky_plugins.messaging.admin import Admin
from bluesky_plugins.messaging.errors import BrokerUnreachable, MessagingError
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
# No refusals: a broker that has no time, or a cluster that has no controller just now.
NO_ANSWER = frozenset(
    {
        KafkaError._TIMED_OUT,  # noqa: SLF001 - librdkafka's own errors begin so
        KafkaError._TRANSPORT,  # noqa: SLF001 - librdkafka's own errors begin so
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 - librdkafka's own errors begin so
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_CONTROLLER,
    }
)


def make_topics(settings: Settings, timeout: float = 30.0) -> None:
    """Make the topics of the beamline that are not there yet, and wait until they can be used.

    A topic that exists is left as it is: the number of partitions decides which key lies
    where, so it never changes.

    :param timeout: seconds until the topics must be there.
    :raises BrokerUnreachable: if no broker answers in that time, or they are not there by then.
    :raises MessagingError: if the broker refuses to make one; the message says why.
    """
    deadline = time.monotonic() + timeout
    admin = Admin(settings)
    wanted = {settings.topic(name) for name in TOPICS}
    missing = wanted - _counts(admin, timeout).keys()
    if missing:
        _create(admin.client, settings, sorted(missing), deadline)
        _wait_for(admin, wanted, deadline)


def partition_counts(settings: Settings, timeout: float = 10.0) -> dict[str, int | None]:
    """How many partitions each topic of the beamline has; None for one that is not there.

    :raises BrokerUnreachable: if no broker answers within `timeout` seconds.
    """
    counts = _counts(Admin(settings), timeout)
    return {full: counts.get(full) for full in map(settings.topic, TOPICS)}


def broker_count(settings: Settings, timeout: float = 10.0) -> int:
    """How many brokers there are.

    :raises BrokerUnreachable: if none answers within `timeout` seconds.
    """
    return len(Admin(settings).metadata(timeout).brokers)


def _counts(admin: Admin, timeout: float) -> dict[str, int]:
    """Topics whose partitions all have a leader."""
    return {
        name: len(topic.partitions)
        for name, topic in admin.metadata(timeout).topics.items()
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
            code = error.args[0].code()
            if code == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            kind = BrokerUnreachable if code in NO_ANSWER else MessagingError
            raise kind(f"topic {name} could not be made: {error}") from error


def _wait_for(admin: Admin, wanted: set[str], deadline: float) -> None:
    pause = threading.Event()
    while missing := wanted - _counts(admin, deadline - time.monotonic()).keys():
        if time.monotonic() > deadline:
            raise BrokerUnreachable(f"made, but not ready in time: {', '.join(sorted(missing))}")
        pause.wait(LOOK_AGAIN)
