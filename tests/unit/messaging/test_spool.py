import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bluesky_plugins.messaging.segment import Record
from bluesky_plugins.messaging.spool import Spool, SpoolFull

MANY = 10**9


def record(seq: int, size: int = 10) -> Record:
    return Record(seq, "topic", b"key", seq.to_bytes(8, "big") + bytes(size))


def drained(spool: Spool) -> list[int]:
    seqs = []
    while (found := spool.next()) is not None:
        seqs.append(found[0].seq)
    return seqs


def died(spool: Spool) -> None:
    """What the kernel does when a process is killed."""
    assert spool._lock is not None
    os.close(spool._lock)
    spool._lock = None


def filled(root: Path, seqs: range, **more: Any) -> Spool:
    spool = Spool(root, MANY, **more)
    for seq in seqs:
        spool.append(record(seq))
    return spool


def test_records_come_back_in_order_over_many_segments(tmp_path: Path) -> None:
    spool = filled(tmp_path, range(100), segment_bytes=200)
    assert len(list(tmp_path.glob("*/*.spool"))) > 10
    assert drained(spool) == list(range(100))
    assert spool.unread == 0


def test_records_come_back_while_others_are_appended(tmp_path: Path) -> None:
    spool = filled(tmp_path, range(3))
    assert drained(spool) == [0, 1, 2]
    spool.append(record(3))
    assert drained(spool) == [3]


def test_acknowledged_segments_are_removed(tmp_path: Path) -> None:
    spool = filled(tmp_path, range(20), segment_bytes=200)
    while (found := spool.next()) is not None:
        spool.release(found[1])
    spool.close(lambda segment, record: True)
    assert list(tmp_path.iterdir()) == []


def test_spool_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    died(filled(tmp_path, range(5)))
    spool = Spool(tmp_path, MANY)
    assert spool.take_over() == 5
    spool.append(record(5))
    assert drained(spool) == [0, 1, 2, 3, 4, 5]


def test_spool_of_a_living_process_is_not_taken_over(tmp_path: Path) -> None:
    living = filled(tmp_path, range(5))
    assert Spool(tmp_path, MANY).take_over() == 0
    assert drained(living) == [0, 1, 2, 3, 4]


def test_process_that_is_killed_leaves_its_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from bluesky_plugins.messaging.spool import Spool\n"
        "from bluesky_plugins.messaging.segment import Record\n"
        "spool = Spool(Path(sys.argv[1]), 10**9)\n"
        "for n in range(7): spool.append(Record(n, 'topic', b'k', b'v'))\n"
        "os.kill(os.getpid(), 9)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(argv, timeout=30, check=False).returncode == -9
    spool = Spool(tmp_path, MANY)
    assert spool.take_over() == 7
    assert drained(spool) == list(range(7))


def test_two_dead_processes_are_both_taken_over_and_their_folders_removed(tmp_path: Path) -> None:
    died(filled(tmp_path, range(3)))
    died(filled(tmp_path, range(10, 13)))
    spool = Spool(tmp_path, MANY)
    assert spool.take_over() == 6
    assert drained(spool) == [0, 1, 2, 10, 11, 12]
    assert len(list(tmp_path.iterdir())) == 1


def test_one_of_two_takes_it_over(tmp_path: Path) -> None:
    died(filled(tmp_path, range(3)))
    first, second = Spool(tmp_path, MANY), Spool(tmp_path, MANY)
    assert (first.take_over(), second.take_over()) == (3, 0)


def test_torn_end_is_left_out(tmp_path: Path) -> None:
    spool = filled(tmp_path, range(5))
    died(spool)
    [path] = tmp_path.glob("*/*.spool")
    os.truncate(path, path.stat().st_size - 3)
    again = Spool(tmp_path, MANY)
    assert again.take_over() == 4
    assert drained(again) == [0, 1, 2, 3]


def test_damaged_segment_is_set_aside_and_the_others_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    died(filled(tmp_path, range(20), segment_bytes=200))
    path = sorted(tmp_path.glob("*/*.spool"))[0]
    whole = bytearray(path.read_bytes())
    whole[20] ^= 0xFF
    path.write_bytes(whole)
    again = Spool(tmp_path, MANY)
    again.take_over()
    seqs = []
    while (found := again.next()) is not None:
        seqs.append(found[0].seq)
        again.release(found[1])
    assert seqs == list(range(5, 20))
    again.close(lambda segment, record: False)
    assert [p.suffix for p in tmp_path.iterdir()] == [".damaged"]
    assert "cannot be read" in caplog.text


def test_full_spool_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.append(record(1, 400))
    with pytest.raises(SpoolFull, match="spool_max_mb"):
        spool.append(record(2, 900))
    spool.append(record(3, 100))
    assert drained(spool) == [1, 3]


def test_full_disk_leaves_whole_records_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = filled(tmp_path, range(2))
    write = os.pwrite
    full: list[int] = []

    def short(file: int, data: bytes, offset: int) -> int:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        full.append(1)
        return write(file, data[:5], offset)

    monkeypatch.setattr(os, "pwrite", short)
    with pytest.raises(OSError, match="No space"):
        spool.append(record(2))
    monkeypatch.undo()
    spool.append(record(3))
    died(spool)
    again = Spool(tmp_path, MANY)
    again.take_over()
    assert drained(again) == [0, 1, 3]


def test_close_keeps_only_what_is_unsent(tmp_path: Path) -> None:
    spool = filled(tmp_path, range(6))
    for _ in range(4):
        found = spool.next()
        assert found is not None
        if found[0].seq != 2:
            spool.release(found[1])
    spool.close(lambda segment, record: record.seq == 2)
    again = Spool(tmp_path, MANY)
    again.take_over()
    assert drained(again) == [2, 4, 5]


def test_journal_comes_before_what_was_spooled_later_and_after_what_was_before(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path, MANY, segment_bytes=1)
    for seq in (3, 6):
        spool.append(record(seq))
    spool.journal(map(record, (1, 2, 4, 5, 7)))
    assert drained(spool) == [3, 6]  # the others were handed on already
    died(spool)
    again = Spool(tmp_path, MANY)
    again.take_over()
    assert drained(again) == [1, 2, 3, 4, 5, 6, 7]


def test_journal_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 200)
    with pytest.raises(SpoolFull):
        spool.journal(record(seq, 50) for seq in range(10))
    assert spool.size == 0
    assert not list(tmp_path.glob("*/*.spool"))


def test_folder_is_never_seen_unlocked(tmp_path: Path) -> None:
    spool = filled(tmp_path, range(1))
    [folder] = tmp_path.iterdir()
    other = os.open(folder / "lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    died(spool)
