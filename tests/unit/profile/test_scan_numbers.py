import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_plugins.profile.scan_numbers import ScanNumbers, next_number


class Counter:
    """Redis as the numbers see it: it answers, or not."""

    def __init__(self, last: int = 0) -> None:
        self.last = last
        self.away = False

    def __call__(self, above: int) -> int | None:
        if self.away:
            return None
        self.last = max(self.last, above) + 1
        return self.last


def test_numbers_follow_each_other(tmp_path: Path):
    numbers = ScanNumbers(Counter(41), tmp_path / "scan_id")
    assert [numbers(), numbers()] == [42, 43]


def test_numbers_go_on_after_a_restart(tmp_path: Path):
    counter = Counter()
    assert ScanNumbers(counter, tmp_path / "scan_id")() == 1
    assert ScanNumbers(counter, tmp_path / "scan_id")() == 2


def test_numbers_go_on_while_redis_is_away_and_not_back_after(tmp_path: Path):
    counter = Counter(10)
    numbers = ScanNumbers(counter, tmp_path / "scan_id")
    seen = [numbers()]
    counter.away = True
    seen += [numbers(), numbers()]
    counter.away, counter.last = False, 2  # Redis came back from an older file
    seen += [numbers()]
    assert seen == [11, 12, 13, 14]


def test_two_processes_share_numbers_while_redis_is_away(tmp_path: Path):
    here, there = (ScanNumbers(lambda _: None, tmp_path / "scan_id") for _ in range(2))
    assert [here(), there(), here()] == [1, 2, 3]


def test_scan_is_numbered_where_nothing_can_be_kept(tmp_path: Path):
    (tmp_path / "file").write_text("")
    numbers = ScanNumbers(lambda _: None, tmp_path / "file" / "scan_id")
    assert [numbers(), numbers()] == [1, 2]


def test_file_with_rubbish_is_no_number(tmp_path: Path):
    (tmp_path / "scan_id").write_text("rubbish")
    assert ScanNumbers(lambda _: None, tmp_path / "scan_id")() == 1


@given(local=st.integers(0, 10**6), shared=st.none() | st.integers(0, 10**6))
def test_number_is_above_all_that_this_machine_used(local: int, shared: int | None):
    assert next_number(local, shared) > local


def _draw(path: Path, count: int, out: "multiprocessing.Queue[list[int]]") -> None:
    numbers = ScanNumbers(lambda _: None, path)
    out.put([numbers() for _ in range(count)])


@pytest.mark.timeout(240)
def test_no_number_is_given_twice_to_racing_processes(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    racers = [context.Process(target=_draw, args=(tmp_path / "n", 50, out)) for _ in range(3)]
    for racer in racers:
        racer.start()
    drawn = [number for _ in racers for number in out.get(timeout=120)]
    for racer in racers:
        racer.join(30)
    assert sorted(drawn) == list(range(1, 151))
