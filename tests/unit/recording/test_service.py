"""The recorder on fakes: crashes between any two steps, servers that are away."""

import threading
from collections.abc import Callable
from typing import Any

from bluesky_plugins.messaging import CommitFailed, encode
from bluesky_plugins.recording import RecorderService
from bluesky_plugins.settings import Settings
from bluesky_plugins.testing.recording import (
    MemoryDocumentStore,
    MemoryLetterBox,
    MemoryLog,
    MemorySource,
)
from bluesky_plugins.testing.runs import composed_event, composed_run

TOPIC = "mad.bluesky.documents"


class Crash(BaseException):
    """The process dies here."""


class Bench:
    """What outlives a recorder's process, and a way to run one on it."""

    def __init__(self, log: MemoryLog, **recording: Any) -> None:
        self.log = log
        self.store = MemoryDocumentStore()
        self.letter_box = MemoryLetterBox()
        self.said: list[str] = []
        self.settings = Settings(
            beamline="mad", recording={"bulk_size": 3, "retry_seconds": 0.01, **recording}
        )

    def service(
        self,
        step: Callable[[str], None] = lambda _: None,
        source: type[MemorySource] = MemorySource,
    ) -> RecorderService:
        self.store.step = step
        self.letter_box._step = step

        def make_source(on_assign: Any, _on_revoke: Any) -> MemorySource:
            reader = source(self.log, step, on_empty=lambda: service.stop())
            on_assign(reader.assigned)
            return reader

        service = RecorderService(
            self.settings,
            ready=self.said.append,
            stores={TOPIC: self.store},
            source=make_source,
            letter_box=self.letter_box,
        )
        service._make_topics = lambda: None  # type: ignore[method-assign]
        return service

    def stored(self) -> dict[str, list[str]]:
        return {name: sorted(docs) for name, docs in self.store.documents.items() if docs}


def log_of_runs() -> MemoryLog:
    """Two runs on two partitions; three messages that cannot be recorded among them."""
    log = MemoryLog()
    for partition in (0, 1):
        for name, doc in composed_run(3, camera=partition == 0):
            log.append(TOPIC, encode(name, doc), partition=partition)
        log.append(TOPIC, b"garbage", partition=partition)
    (event, *_) = (doc for name, doc in composed_run() if name == "event")
    log.append(TOPIC, encode("event", event))
    log.append(TOPIC, encode("event", {**event, "time": 0.0}))
    return log


def counted(crash_at: int | None = None) -> tuple[Callable[[str], None], list[str]]:
    steps: list[str] = []
    lock = threading.Lock()

    def step(name: str) -> None:
        with lock:
            steps.append(name)
            if len(steps) == crash_at:
                raise Crash(name)

    return step, steps


def test_everything_is_recorded_and_committed() -> None:
    bench = Bench(log_of_runs())
    bench.service().run()
    assert {name: len(uids) for name, uids in bench.stored().items()} == {
        "start": 2,
        "descriptor": 2,
        "resource": 1,
        "datum": 3,
        "event": 7,
        "stop": 2,
    }
    assert bench.log.committed == {p: len(m) for p, m in bench.log.messages.items()}
    assert len(bench.letter_box.reasons) == 3
    assert len(bench.said) == 1


def test_killed_before_any_step_every_document_is_there_once_and_every_letter_is_sent() -> None:
    log = log_of_runs()
    undisturbed = Bench(log)
    step, steps = counted()
    undisturbed.service(step).run()
    crashes = 0
    for crash_at in range(1, len(steps) + 5):
        bench = Bench(MemoryLog())
        bench.log.messages = log.messages
        try:
            bench.service(counted(crash_at)[0]).run()
        except Crash:
            crashes += 1
        bench.service().run()
        assert bench.stored() == undisturbed.stored()
        assert bench.log.committed == {p: len(m) for p, m in log.messages.items()}
        assert sorted(bench.letter_box.reasons) == sorted(undisturbed.letter_box.reasons)
    # How often it commits between its writes is a matter of time.
    assert crashes >= len([name for name in steps if name != "commit"])


def test_offsets_are_committed_after_the_write_and_after_the_dead_letters() -> None:
    bench = Bench(log_of_runs(), bulk_size=1000)
    step, steps = counted()
    bench.service(step).run()
    committed = steps.index("commit")
    done = [i for i, name in enumerate(steps) if name.startswith("write") or name == "deliver"]
    assert max(done) < committed


def test_a_store_that_is_away_loses_nothing_and_the_group_is_kept() -> None:
    bench = Bench(log_of_runs())
    polled_while_down = threading.Event()

    class Polled(MemorySource):
        def poll(self, max_messages: int, timeout: float) -> list[Any]:
            if self._paused:
                polled_while_down.set()
                bench.store.down = False
            return super().poll(max_messages, timeout)

    def down_after_start(name: str) -> None:
        if name == "write start" and not polled_while_down.is_set():
            bench.store.down = True

    bench.service(down_after_start, Polled).run()
    assert polled_while_down.is_set()
    assert len(bench.store.documents["event"]) == 7
    assert bench.log.committed == {p: len(m) for p, m in bench.log.messages.items()}


def test_a_failed_commit_is_made_good_by_the_next() -> None:
    bench = Bench(log_of_runs())
    failures = iter([True, True])

    class Unlucky(MemorySource):
        def commit(self, offsets: Any) -> None:
            if next(failures, False):
                raise CommitFailed("the coordinator is loading")
            super().commit(offsets)

    bench.service(source=Unlucky).run()
    assert bench.log.committed == {p: len(m) for p, m in bench.log.messages.items()}


def test_offsets_of_partitions_that_were_taken_away_are_not_committed() -> None:
    bench = Bench(log_of_runs())
    service = bench.service()
    taken: list[Any] = []

    def make_source(on_assign: Any, on_revoke: Any) -> MemorySource:
        def revoke_last_partition() -> None:
            on_revoke([(TOPIC, 1)])
            service.stop()

        reader = MemorySource(bench.log, on_empty=revoke_last_partition)
        on_assign([place for place in reader.assigned if place[1] == 0])
        taken.append(reader)
        return reader

    service._make_source = make_source
    service.run()
    assert set(bench.log.committed) == {(TOPIC, 0)}


def test_stopped_while_the_store_is_away_it_ends_without_a_commit() -> None:
    bench = Bench(log_of_runs())

    class StoppedWhenHeld(MemorySource):
        def poll(self, max_messages: int, timeout: float) -> list[Any]:
            if self._paused:
                service.stop()
            return super().poll(max_messages, timeout)

    service = bench.service(
        lambda name: setattr(bench.store, "down", "write" in name), StoppedWhenHeld
    )
    service._finish_seconds = 0.1
    service.run()
    assert bench.log.committed == {}


def test_the_ready_line_comes_without_partitions_too() -> None:
    bench = Bench(MemoryLog())
    bench.service().run()
    assert bench.said == ["recorder ready: 0 partitions of mad's documents"]


def test_a_bad_document_does_not_block_the_others_of_its_bulk() -> None:
    log = MemoryLog()
    for i in range(5):
        bad = {"data": {"x": 2**70}} if i == 2 else {}
        log.append(TOPIC, encode("event", composed_event(uid=str(i))) if not bad else b"\x92")
    bench = Bench(log, bulk_size=100)
    bench.service().run()
    assert bench.stored() == {"event": ["0", "1", "3", "4"]}
