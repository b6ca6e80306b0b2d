"""The log of a part."""

import contextlib

import pytest

from bluesky_plugins.embedded.logs import MAX_LINE, PartLog, tail


@pytest.fixture
def make_log(tmp_path):
    with contextlib.ExitStack() as stack:

        def make(on_line, size=10_000, path=tmp_path / "log"):
            log = PartLog(path, size, on_line)
            stack.callback(log.close)
            return log

        yield make


def ignore(pid, line):
    pass


def say(log, text, pid=1, name="stdout"):
    log({"data": text.encode() if isinstance(text, str) else text, "pid": pid, "name": name})


def test_a_line_is_told_when_it_is_whole(make_log, tmp_path):
    lines = []
    log = make_log(lambda pid, line: lines.append((pid, line)))
    say(log, "rea")
    assert lines == []
    say(log, "dy\nand")
    assert lines == [(1, "ready")]


def test_half_a_line_of_one_process_is_not_joined_to_the_next_ones(make_log, tmp_path):
    lines = []
    log = make_log(lambda pid, line: lines.append((pid, line)))
    say(log, "rea")
    say(log, "dy\n", pid=2)
    assert lines == [(2, "dy")]


def test_stderr_is_written_and_is_no_ready_line(make_log, tmp_path):
    lines = []
    log = make_log(lambda pid, line: lines.append(line))
    say(log, "ready\n", name="stderr")
    assert lines == []
    assert tail(tmp_path / "log") == ["ready"]


def test_a_line_that_never_ends_does_not_fill_the_memory(make_log, tmp_path):
    log = make_log(ignore, 10_000_000)
    for _ in range(10):
        say(log, "x" * MAX_LINE)
    assert len(log._pending[1]) <= MAX_LINE


def test_a_log_never_takes_more_than_twice_its_size(make_log, tmp_path):
    log = make_log(ignore, 1000)
    for number in range(500):
        say(log, f"line {number}\n")
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == ["log", "log.1"]
    assert all(f.stat().st_size <= 1000 for f in files)
    assert tail(tmp_path / "log")[-1] == "line 499"


def test_a_log_that_cannot_be_written_does_not_stop_the_part(make_log, tmp_path):
    lines = []
    log = make_log(lambda pid, line: lines.append(line), path=tmp_path / "gone" / "log")
    say(log, "ready\n")
    assert lines == ["ready"]


def test_bytes_that_are_no_text_are_written_somehow(make_log, tmp_path):
    log = make_log(ignore, 1000)
    say(log, b"\xff\xfe\n")
    assert len(tail(tmp_path / "log")) == 1


def test_the_tail_of_no_log_is_empty(tmp_path):
    assert tail(tmp_path / "none") == []
