"""A member of a consumer group: static membership, offsets committed by hand."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from bluesky_plugins.messaging.codes import BROKER_GONE, FATAL
from bluesky_plugins.messaging.config import consumer_config
from bluesky_plugins.messaging.errors import CommitFailed, Fenced
from bluesky_plugins.messaging.message import Message
from bluesky_plugins.messaging.outage import Outage
from bluesky_plugins.messaging.refusal import CONSUMER, made
from bluesky_plugins.settings import Settings

__all__ = ["Consumer"]

logger = logging.getLogger(__name__)

OnAssign = Callable[[list[tuple[str, int, int]]], None]
OnRevoke = Callable[[list[tuple[str, int]]], None]

# One question about offsets; what is not answered is asked again at the next poll.
ASK_SECONDS = 2.0
# Fenced again within this time, while all brokers were there, it was another process.
FENCED_AGAIN_SECONDS = 60.0
# A commit that a broker has not answered by then has failed, and `poll` must be called again: when
# the membership was lost meanwhile, librdkafka lets a commit wait for a callback that only `poll`
# can make, for ever.
COMMIT_SECONDS = 3.0


class Consumer:
    """One slot of a consumer group; used from one thread.

    A process that is killed and started again under the same instance goes on at once, where
    the last commit was. Topics with as many partitions each are shared out alike, so that
    partition n of every topic belongs to the same member.

    :param topics: full names.
    :param group_id: name of the group, prefixed by the beamline if it is not yet.
    :param instance: this process's slot; two processes must not have the same one.
    :param on_assign: called from `poll` with (topic, partition, next offset) of the
        partitions that belong to this member now, before a message of them is returned.
    :param on_revoke: called from `poll` or `close` with (topic, partition) of those that no
        longer do. Offsets may still be committed in it.
    :param offset_reset: where to start without a committed offset: earliest or latest.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[str],
        *,
        group_id: str,
        instance: str,
        on_assign: OnAssign | None = None,
        on_revoke: OnRevoke | None = None,
        offset_reset: str = "earliest",
    ) -> None:
        prefix = f"{settings.beamline}."
        self.group_id = group_id if group_id.startswith(prefix) else prefix + group_id
        self.instance = instance
        self._on_assign = on_assign
        self._on_revoke = on_revoke
        self._reset_to_start = offset_reset in ("earliest", "smallest", "beginning")
        self._unplaced: list[TopicPartition] | None = None
        self._assigned: list[TopicPartition] = []
        self._paused = False
        self._member = False
        self._fatal: KafkaError | None = None
        self._fences = _Fences()
        self._outage = Outage(logger, settings.kafka.address, CONSUMER)
        self._topics = list(topics)
        self._config = consumer_config(settings, self.group_id, instance, offset_reset)
        self._consumer = self._joined()

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        """The next messages: as many as there are, at most `max_messages`.

        Returns as soon as there is one, and nothing after `timeout` seconds, while the
        broker is down, or while paused.

        :raises Fenced: if another process took over this instance id.
        """
        self._recover()
        first = self._consumer.poll(timeout)
        raw = [] if first is None else [first]
        if self._unplaced is not None:
            self._place()
        if first is not None and max_messages > 1:
            raw += self._consumer.consume(max_messages - 1, 0)
        return [Message.received(each) for each in raw if self._is_message(each)]

    def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Store where to go on after a restart; returns when the broker has stored it.

        :param offsets: (topic, partition) -> offset of the next message to read.
        :raises CommitFailed: if it has not; nothing is lost by trying again, after a `poll`.
        """
        if not offsets:
            return
        if not self._member:
            # The broker would call it a fence.
            raise CommitFailed(f"{self.group_id}-{self.instance} has not joined its group yet")
        wanted = [TopicPartition(t, p, offset) for (t, p), offset in offsets.items()]
        commit = _Commit(self._consumer, wanted)
        try:
            done = commit.result(COMMIT_SECONDS)
        except KafkaException as error:
            self._remember_fatal(error.args[0])
            raise CommitFailed(str(error)) from error
        if done is None:
            raise CommitFailed(f"the broker has not answered in {COMMIT_SECONDS:g} s")
        if failed := [each for each in done if each.error is not None]:
            raise CommitFailed(f"{failed[0].topic}[{failed[0].partition}]: {failed[0].error}")

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Go on at `offset` of a partition that belongs to this member."""
        self._consumer.seek(TopicPartition(topic, partition, offset))

    def pause(self) -> None:
        """Let `poll` return nothing, but keep the membership: for the time of a computation."""
        self._paused = True
        if self._assigned:
            self._consumer.pause(self._assigned)

    def resume(self) -> None:
        """End a pause: `poll` goes on where it was."""
        self._paused = False
        if self._assigned:
            self._consumer.resume(self._assigned)

    def close(self) -> None:
        """Leave; with static membership the group waits a session for this slot to return."""
        self._consumer.close()

    def _taken(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._member = True
        # The offsets are asked for outside of this callback: while a broker is away that
        # takes time, and may fail. Until then nothing is fetched.
        consumer.assign([])
        self._unplaced = list(partitions)

    def _place(self) -> None:
        """Find where each new partition starts, tell, and begin to fetch."""
        waiting = self._unplaced or []
        try:
            placed = [self._start_of(each) for each in self._committed(waiting)]
        except KafkaException as error:
            logger.debug("the offsets of the new partitions are not known yet: %s", error)
            return
        self._unplaced = None
        self._assigned = placed
        if self._on_assign is not None:
            self._on_assign([(each.topic, each.partition, each.offset) for each in placed])
        self._consumer.assign(placed)
        if self._paused and placed:
            self._consumer.pause(placed)

    def _committed(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return self._consumer.committed(partitions, timeout=ASK_SECONDS) if partitions else []

    def _start_of(self, committed: TopicPartition) -> TopicPartition:
        if committed.error is not None:
            raise KafkaException(committed.error)
        low, high = self._consumer.get_watermark_offsets(committed, timeout=ASK_SECONDS)
        offset = committed.offset
        if not low <= offset <= high:
            offset = low if self._reset_to_start else high
        return TopicPartition(committed.topic, committed.partition, offset)

    def _given(self, _consumer: Any, partitions: list[TopicPartition]) -> None:
        told = self._unplaced is None
        self._unplaced = None
        self._assigned = []
        if told and self._on_revoke is not None:
            self._on_revoke([(each.topic, each.partition) for each in partitions])
        self._member = False

    def _is_message(self, raw: Any) -> bool:
        error = raw.error()
        if error is None:
            self._outage.over()
            return True
        self._error(error)
        return False

    def _error(self, error: KafkaError) -> None:
        self._remember_fatal(error)
        if error.code() in BROKER_GONE:
            self._fences.broker_gone()
        self._outage.note(error)

    def _remember_fatal(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in (FATAL, KafkaError.FENCED_INSTANCE_ID):
            self._fatal = error

    def _joined(self) -> Any:
        consumer = made(
            confluent_kafka.Consumer, {**self._config, "error_cb": self._error}, CONSUMER
        )
        consumer.subscribe(
            self._topics, on_assign=self._taken, on_revoke=self._given, on_lost=self._given
        )
        return consumer

    def _recover(self) -> None:
        """After a fatal error: join anew, unless another process is this instance."""
        error, self._fatal = self._fatal, None
        if error is None:
            return
        if not self._fences.may_join_anew(time.monotonic()):
            self._fatal = error
            raise Fenced(f"{self.group_id}-{self.instance}: {error}")
        logger.warning("%s-%s joins anew: %s", self.group_id, self.instance, error)
        self._consumer.close()
        # Closing tells the same error again, which is not one of the new member.
        self._fatal = None
        self._member = False
        if self._assigned:
            self._given(None, self._assigned)
        self._consumer = self._joined()


class _Fences:
    """Tells whether a fence may be this member's own ghost.

    A broker that dies while a member joins may keep that member's ghost, which then fences the
    member itself: once for each such death.
    """

    def __init__(self) -> None:
        self._last = -math.inf
        self._broker_was_gone = False

    def broker_gone(self) -> None:
        """Take in that a broker went away: what fences next may be a ghost of that time."""
        self._broker_was_gone = True

    def may_join_anew(self, now: float) -> bool:
        """Take in a fence, at a monotonic time in s."""
        ghost = self._broker_was_gone or now - self._last >= FENCED_AGAIN_SECONDS
        self._last, self._broker_was_gone = now, False
        return ghost


class _Commit:
    """A synchronous commit that can be left behind: librdkafka's own has no deadline."""

    def __init__(self, consumer: Any, offsets: list[TopicPartition]) -> None:
        self._done: list[TopicPartition] | None = None
        self._error: KafkaException | None = None
        self._ended = threading.Event()
        threading.Thread(
            target=self._run, args=(consumer, offsets), name="commit", daemon=True
        ).start()

    def result(self, timeout: float) -> list[TopicPartition] | None:
        """What came of each partition; None when that is not known after `timeout` seconds.

        :raises KafkaException: if the commit failed as a whole.
        """
        if not self._ended.wait(timeout):
            return None
        if self._error is not None:
            raise self._error
        return self._done

    def _run(self, consumer: Any, offsets: list[TopicPartition]) -> None:
        try:
            self._done = consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            self._error = error
        finally:
            self._ended.set()
