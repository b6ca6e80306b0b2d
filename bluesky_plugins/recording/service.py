"""The recorder: every document from Kafka into MongoDB, once.

Read, check and encode (one thread); write, deliver dead letters (the writer's thread); commit
the offsets (the first again). Killed anywhere in between, the messages are read again, and
the store knows what it has.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

import structlog

from bluesky_plugins.messaging import (
    BrokerUnreachable,
    CommitFailed,
    Consumer,
    MessagingError,
    Producer,
    make_topics,
)
from bluesky_plugins.recording.beat import Beat, beat_file
from bluesky_plugins.recording.bulk import make_bulk
from bluesky_plugins.recording.ports import LetterBox, Source
from bluesky_plugins.recording.store import (
    DocumentStore,
    MongoDocumentStore,
    StoreDownError,
    StoreUnusableError,
    connect,
)
from bluesky_plugins.recording.writer import Writer
from bluesky_plugins.settings import Settings

__all__ = ["RecorderService", "serve_recorder"]

# Topic and database carry the same short name.
RECORDED = ("documents", "analysis")
POLL_SECONDS = 0.05
# After this, a consumer that cannot hand over its bulk is paused and polled, to stay in its group.
ROOM_SECONDS = 1.0
# What is in hand is finished, then Kafka is told goodbye; both together.
FINISH_SECONDS = 1.5
STOP_SECONDS = 2.5
TOPICS_SECONDS = 2.0
CLOSE_SECONDS = 0.5

OnAssign = Callable[[list[tuple[str, int, int]]], None]
OnRevoke = Callable[[list[tuple[str, int]]], None]
MakeSource = Callable[[OnAssign, OnRevoke], Source]

log = structlog.get_logger(__name__)


class RecorderService:
    """One recorder of its consumer group.

    :param settings: sections `kafka`, `mongo` and `recording`.
    :param ready: called once with a line for a person, when there is an assignment and MongoDB
        answers.
    :param stores: by full topic name; by default MongoDB, connected to when it runs.
    :param source: called with what to do when partitions come and go; by default a Kafka consumer.
    :param letter_box: takes the dead letters; by default a Kafka producer.
    :param beat: called at every turn of the loop, also while a server is waited for.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        ready: Callable[[str], None] | None = None,
        stores: Mapping[str, DocumentStore] | None = None,
        source: MakeSource | None = None,
        letter_box: LetterBox | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._ready = ready
        self._stores = stores
        self._make_source = source or self._consumer
        self._letter_box = letter_box
        self._beat = beat
        self._stopping = threading.Event()
        self._over = threading.Event()
        self._failure: BaseException | None = None
        # None until the group has spoken; empty when there are more recorders than partitions.
        self._assignment: frozenset[tuple[str, int]] | None = None
        self._told_ready = False
        self._held = False
        self._finish_seconds = FINISH_SECONDS
        self._uncommitted: dict[tuple[str, int], int] = {}

    def stop(self) -> None:
        """Have `run` finish what it holds and return, within 5 s."""
        self._stopping.set()
        self._over.set()

    def run(self) -> None:
        """Record until `stop`, whatever the servers do.

        When stopped while a server hangs, it returns without saying goodbye to it; what was not
        committed is read again by the next recorder.

        :raises MessagingError: Kafka refuses us for a reason that does not pass by itself.
        :raises StoreUnusableError: the database holds what forbids the layout.
        """
        # A thread, because a last commit to a Kafka that is away cannot be broken off.
        work = threading.Thread(target=self._work, name="recorder", daemon=True)
        work.start()
        self._over.wait()
        work.join(STOP_SECONDS)
        if work.is_alive():
            log.warning("a server does not answer; left without goodbye")
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            self._record_when_ready(self._stores or self._mongo_stores())
        except BaseException as error:  # noqa: BLE001 (`run` raises it)
            self._failure = error
        finally:
            self._over.set()

    def _record_when_ready(self, stores: Mapping[str, DocumentStore]) -> None:
        try:
            if self._until("kafka", self._make_topics) and self._until(
                "mongo", lambda: _prepare(stores)
            ):
                self._record(stores)
        finally:
            for store in stores.values():
                store.close()

    def _record(self, stores: Mapping[str, DocumentStore]) -> None:
        letter_box = self._letter_box or self._producer()
        source = self._make_source(self._assigned, self._revoked)
        writer = Writer(stores, letter_box, self._settings.recording.retry_seconds)
        try:
            while not self._stopping.is_set():
                self._step(source, writer)
            writer.finish(self._finish_seconds)
            self._commit(source, writer)
        finally:
            writer.abandon()
            source.close()
            letter_box.close(CLOSE_SECONDS)

    def _step(self, source: Source, writer: Writer) -> None:
        self._beat()
        if not writer.wait_for_room(ROOM_SECONDS):
            self._hold(source)
            return
        if self._held:
            source.resume()
            self._held = False
        messages = source.poll(self._settings.recording.bulk_size, POLL_SECONDS)
        self._tell_ready()
        if messages:
            writer.put(make_bulk(messages))
        self._commit(source, writer)

    def _hold(self, source: Source) -> None:
        """Stay in the group while nothing can be written."""
        if not self._held:
            source.pause()
            self._held = True
        # Paused, this gives nothing; a message that came all the same would be lost.
        if late := source.poll(1, 0.0):
            raise RuntimeError(f"a paused consumer gave {len(late)} messages")

    def _commit(self, source: Source, writer: Writer) -> None:
        """Commit what is recorded of the partitions that are still ours.

        What was taken from us is read again by its new owner; the store knows it already.
        """
        self._uncommitted.update(writer.take_recorded())
        offsets = {p: o for p, o in self._uncommitted.items() if p in (self._assignment or ())}
        if not offsets:
            return
        try:
            source.commit(offsets)
        except CommitFailed as error:
            log.warning("offsets not committed; tried again with the next", reason=str(error))
        else:
            self._uncommitted.clear()

    def _assigned(self, partitions: Sequence[tuple[str, int, int]]) -> None:
        now = {(topic, number) for topic, number, _ in partitions}
        self._assignment = (self._assignment or frozenset()) | now
        log.info("partitions assigned", partitions=sorted(self._assignment))

    def _revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        self._assignment = (self._assignment or frozenset()) - set(partitions)

    def _tell_ready(self) -> None:
        if self._assignment is None or self._told_ready:
            return
        self._told_ready = True
        if self._ready is not None:
            count = len(self._assignment)
            self._ready(
                f"recorder ready: {count} partitions of {self._settings.beamline}'s documents"
            )

    def _until(self, server: str, act: Callable[[], None]) -> bool:
        """Wait for a server before the work begins. False when stopped meanwhile."""
        told = False
        while not self._stopping.is_set():
            self._beat()
            try:
                act()
            except (BrokerUnreachable, StoreDownError) as error:
                if not told:
                    log.warning("waiting for a server", server=server, reason=str(error))
                told = True
                self._stopping.wait(self._settings.recording.retry_seconds)
            else:
                return True
        return False

    def _make_topics(self) -> None:
        make_topics(self._settings, timeout=TOPICS_SECONDS)

    def _mongo_stores(self) -> dict[str, DocumentStore]:
        client = connect(self._settings)
        return {
            self._settings.topic(name): MongoDocumentStore(client, self._settings.database(name))
            for name in RECORDED
        }

    def _producer(self) -> LetterBox:
        return Producer(self._settings, client_id="recorder", spool=False)

    def _consumer(self, on_assign: OnAssign, on_revoke: OnRevoke) -> Source:
        recording = self._settings.recording
        return Consumer(
            self._settings,
            [self._settings.topic(name) for name in RECORDED],
            group_id=f"{self._settings.beamline}.{recording.group_id}",
            instance=recording.instance,
            on_assign=on_assign,
            on_revoke=on_revoke,
        )


def serve_recorder(settings: Settings) -> int:
    """Record until SIGTERM or SIGINT; one line on the standard output when ready.

    :returns: the exit status: 0, or 1 when Kafka or the database refuses this recorder for good.
    """
    service = RecorderService(settings, ready=_say, beat=Beat(beat_file(settings)))

    def stop(_signal: int, _frame: FrameType | None) -> None:
        service.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        service.run()
    except (MessagingError, StoreUnusableError) as error:
        log.error("the recorder cannot work", reason=str(error))
        return 1
    return 0


def _prepare(stores: Mapping[str, DocumentStore]) -> None:
    for store in stores.values():
        store.prepare()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
