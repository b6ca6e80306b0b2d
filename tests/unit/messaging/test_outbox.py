import tempfile
from collections import deque
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bluesky_plugins.messaging.outbox import Outbox
from bluesky_plugins.messaging.segment import Record
from bluesky_plugins.messaging.spool import Spool


class Sending(RuleBasedStateMachine):
    """Any order of sends, outages, acknowledgements, fatal errors and ends of the process."""

    ROOM = 5

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.sent = 0
        self.arrived: list[int] = []
        self.begin()

    def begin(self) -> None:
        self.queue: deque[tuple[int, int]] = deque()
        spool = Spool(Path(self.folder.name), 10**9, segment_bytes=150)
        spool.take_over()
        self.outbox = Outbox(self.hand, spool)

    def hand(self, ticket: int, record: Record) -> bool:
        if len(self.queue) >= self.ROOM:
            return False
        self.queue.append((ticket, record.seq))
        return True

    @rule(keep=st.booleans(), count=st.integers(1, 8))
    def send(self, keep: bool, count: int) -> None:
        for _ in range(count):
            self.sent += 1
            self.outbox.put(Record(self.sent, "t", b"k", b"value"), keep=keep)

    @rule(count=st.integers(1, 6))
    def acknowledge(self, count: int) -> None:
        for _ in range(min(count, len(self.queue))):
            ticket, seq = self.queue.popleft()
            self.arrived.append(seq)
            assert self.outbox.record(ticket) is not None
            self.outbox.settled(ticket)

    @rule(limit=st.integers(1, 10))
    def drain(self, limit: int) -> None:
        self.outbox.drain(limit)

    @rule()
    def save(self) -> None:
        assert self.outbox.save() == 0

    @rule()
    def fatal_error(self) -> None:
        self.queue.clear()
        self.outbox.all_failed()

    @rule()
    def all_given_back(self) -> None:
        while self.queue:
            self.outbox.failed(self.queue.popleft()[0])

    @rule()
    def end(self) -> None:
        assert self.outbox.close() == 0
        self.begin()

    @rule()
    def killed_in_an_outage(self) -> None:
        self.outbox.save()
        self.outbox.forsake()
        before = len(self.arrived)
        self.begin()
        self.everything_arrives()
        # Doubles of what was not yet removed are allowed here, and only here.
        fresh = [s for s in self.arrived[before:] if s not in set(self.arrived[:before])]
        self.arrived[before:] = fresh

    def everything_arrives(self) -> None:
        while self.outbox.unsent:
            self.outbox.drain(10)
            self.acknowledge(10)

    @invariant()
    def nothing_overtakes_or_doubles(self) -> None:
        assert self.arrived == list(range(1, len(self.arrived) + 1))

    @invariant()
    def everything_is_accounted_for(self) -> None:
        assert self.outbox.unsent == self.sent - len(self.arrived)

    def teardown(self) -> None:
        with self.folder:
            self.everything_arrives()
            assert self.arrived == list(range(1, self.sent + 1))
            self.outbox.close()
            assert list(Path(self.folder.name).iterdir()) == []


TestSending = Sending.TestCase
TestSending.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


def never(ticket: int, record: Record) -> bool:
    return False


def test_without_a_spool_what_does_not_fit_is_lost_loudly(caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox(never, None)
    outbox.put(Record(1, "t", b"k", b"v"))
    assert outbox.lost == 1
    assert "LOST" in caplog.text


def test_full_spool_loses_loudly_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = Outbox(never, Spool(tmp_path, 200))
    for seq in range(1, 101):
        outbox.put(Record(seq, "t", b"k", bytes(20)))
    assert outbox.lost + outbox.unsent == 100
    assert outbox.lost > 50
    assert 0 < len([r for r in caplog.records if "LOST" in r.message]) < 10
    outbox.close()


def test_folder_that_cannot_be_made_loses_loudly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    outbox = Outbox(never, Spool(tmp_path / "file", 10**9))
    outbox.put(Record(1, "t", b"k", b"v"))
    assert outbox.lost == 1
    assert "LOST" in caplog.text
