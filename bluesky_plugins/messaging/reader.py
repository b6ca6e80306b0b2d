"""Reading a whole topic without a group."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import confluent_kafka
from confluent_kafka import KafkaException, TopicPartition

from bluesky_plugins.messaging.config import reader_config
from bluesky_plugins.messaging.errors import BrokerUnreachable, MessagingError
from bluesky_plugins.messaging.message import Message
from bluesky_plugins.messaging.outage import Outage
from bluesky_plugins.messaging.refusal import CONSUMER, made
from bluesky_plugins.settings import Settings

__all__ = ["TopicReader"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
Where = Literal["beginning", "end"] | float | Mapping[int, int]

# One question to the broker, and the pause before it is asked again, s.
ASK_SECONDS = 2.0
ASK_AGAIN = 0.05


class TopicReader:
    """Reads all partitions of one topic; nothing is committed, nobody else is disturbed.

    Used from one thread. Partitions that are added while it reads are not seen.

    :param topic: full name.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self.topic = topic
        self._address = settings.kafka.address
        self._outage = Outage(logger, self._address, CONSUMER)
        group = f"{settings.beamline}.reader-{uuid.uuid4().hex}"
        config = {**reader_config(settings, group), "error_cb": self._outage.note}
        self._consumer = made(confluent_kafka.Consumer, config, CONSUMER)

    def start(self, where: Where, timeout: float) -> dict[int, int]:
        """Stand at a place in every partition; from now on nothing after it is missed.

        :param where: `beginning`, `end`, a time (float, seconds since the epoch: the first
            messages that are not older), or partition -> next offset (a partition that is not
            named starts at its beginning).
        :param timeout: seconds until the broker must have said where that is.
        :returns: partition -> next offset.
        :raises BrokerUnreachable: if it has not.
        :raises MessagingError: if the topic is not there, or not for this user.
        """
        deadline = time.monotonic() + timeout
        partitions = self._asked(self._partitions, deadline)
        begin = self._asked(lambda: self._offsets(partitions, where), deadline)
        self._consumer.assign([TopicPartition(self.topic, p, o) for p, o in begin.items()])
        return begin

    def ends(self, timeout: float) -> dict[int, int]:
        """Partition -> offset that the next message there will have.

        :raises BrokerUnreachable: if the broker does not say so within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        partitions = self._asked(self._partitions, deadline)
        return self._asked(lambda: self._offsets(partitions, "end"), deadline)

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        """The next messages: as many as there are, at most `max_messages`.

        Returns as soon as there is one, nothing after `timeout` seconds or in an outage.
        """
        first = self._consumer.poll(timeout)
        if first is None:
            return []
        raw = [first]
        if max_messages > 1:
            raw += self._consumer.consume(max_messages - 1, 0)
        return [Message.received(each) for each in raw if self._is_message(each)]

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

    def _is_message(self, raw: Any) -> bool:
        if raw.error() is not None:
            self._outage.note(raw.error())
            return False
        self._outage.over()
        return True

    def _partitions(self) -> list[int]:
        found = self._consumer.list_topics(self.topic, timeout=ASK_SECONDS).topics[self.topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return sorted(found.partitions)

    def _offsets(self, partitions: list[int], where: Where) -> dict[int, int]:
        if isinstance(where, Mapping):
            begin = self._watermarks(partitions, 0) if set(partitions) - set(where) else {}
            return {p: where.get(p, begin.get(p, 0)) for p in partitions}
        if isinstance(where, str):
            return self._watermarks(partitions, 1 if where == "end" else 0)
        milliseconds = int(where * 1000)
        wanted = [TopicPartition(self.topic, p, milliseconds) for p in partitions]
        found = {
            each.partition: each.offset
            for each in self._consumer.offsets_for_times(wanted, timeout=ASK_SECONDS)
        }
        ends = self._watermarks(partitions, 1)
        return {p: found[p] if found.get(p, -1) >= 0 else ends[p] for p in partitions}

    def _watermarks(self, partitions: list[int], side: int) -> dict[int, int]:
        return {
            p: self._consumer.get_watermark_offsets(
                TopicPartition(self.topic, p), timeout=ASK_SECONDS
            )[side]
            for p in partitions
        }

    def _asked(self, question: Callable[[], T], deadline: float) -> T:
        """The broker's answer; it is asked until it gives one or the deadline is over."""
        pause = threading.Event()
        while True:
            try:
                return question()
            except KafkaException as error:
                self._consumer.poll(0)  # reports what the client met meanwhile
                if time.monotonic() >= deadline:
                    raise self._unanswered(error) from error
            pause.wait(ASK_AGAIN)

    def _unanswered(self, error: KafkaException) -> MessagingError:
        if error.args[0].code() == confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART:
            return MessagingError(f"there is no topic {self.topic} at {self._address}")
        if error.args[0].code() == confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED:
            return MessagingError(f"no right to read topic {self.topic} at {self._address}")
        return BrokerUnreachable(f"{self._address}: {self._outage.refusals.last or error}")
