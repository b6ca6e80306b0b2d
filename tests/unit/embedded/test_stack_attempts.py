"""Counting the starts that do not get ready."""

from hypothesis import given
from hypothesis import strategies as st

from bluesky_plugins.embedded.attempts import Attempts
from bluesky_plugins.embedded.parts import PartState

MOST = 3


def fail(attempts: Attempts, pid: int) -> None:
    attempts.started(pid)
    attempts.ended(pid, "exit status 1")


def test_a_part_is_given_up_after_that_many_ends_without_getting_ready():
    attempts = Attempts(MOST)
    attempts.wanted()
    for pid in range(MOST):
        assert attempts.may_start()
        fail(attempts, pid)
    assert not attempts.may_start()
    attempts.stopped()
    assert attempts.record.state is PartState.FAILED
    assert attempts.record.reason == (
        "ended 3 times in a row without getting ready (exit status 1)"
    )


def test_getting_ready_once_makes_the_count_begin_again():
    attempts = Attempts(MOST)
    fail(attempts, 1)
    fail(attempts, 2)
    attempts.started(3)
    assert attempts.ready(3)
    attempts.ended(3, "signal 9")
    assert attempts.record.failures == 0
    assert attempts.may_start()


def test_an_end_that_nobody_saw_is_counted_at_the_next_start():
    attempts = Attempts(MOST)
    attempts.started(1)
    attempts.started(2)
    assert attempts.record.failures == 1


def test_readiness_of_a_process_that_is_gone_is_not_readiness_of_the_next():
    attempts = Attempts(MOST)
    attempts.started(1)
    attempts.started(2)
    assert not attempts.ready(1)
    assert attempts.record.state is PartState.STARTING


def test_a_part_that_failed_may_be_started_by_a_person():
    attempts = Attempts(1)
    fail(attempts, 1)
    attempts.stopped()
    attempts.wanted()
    assert attempts.may_start()


def test_a_part_that_was_stopped_is_not_failed():
    attempts = Attempts(MOST)
    attempts.wanted()
    attempts.started(1)
    attempts.stopped()
    assert attempts.record.state is PartState.STOPPED
    assert attempts.record.pid is None


steps = st.lists(st.tuples(st.sampled_from(["start", "ready", "end", "stop"]), st.integers(0, 5)))


@given(steps)
def test_a_pid_is_told_only_while_its_process_is_started_and_not_ended(steps):
    attempts = Attempts(MOST)
    alive = None
    for what, pid in steps:
        if what == "start":
            attempts.started(pid)
            alive = pid
        elif what == "ready":
            assert attempts.ready(pid) == (pid == alive)
        elif what == "end":
            attempts.ended(pid, "")
            alive = None if pid == alive else alive
        else:
            attempts.stopped()
            alive = None
        assert attempts.record.pid == alive
        assert (attempts.record.state in (PartState.RUNNING, PartState.STARTING)) == (
            alive is not None
        )
