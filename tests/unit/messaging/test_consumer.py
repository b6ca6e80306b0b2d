"""What a consumer does where librdkafka has no deadline of its own."""

from __future__ import annotations

import threading
from typing import Any

from bluesky_plugins.messaging.consumer import FENCED_AGAIN_SECONDS, _Commit, _Fences


class Waiting:
    """A client whose commit waits for a `poll`, as librdkafka's does once membership was lost."""

    def __init__(self) -> None:
        self.polled = threading.Event()

    def commit(self, *, offsets: list[Any], asynchronous: bool) -> list[Any]:
        assert not asynchronous
        self.polled.wait(10.0)
        return offsets


def test_commit_that_is_not_answered_is_left_behind() -> None:
    client = Waiting()
    assert _Commit(client, []).result(0.05) is None
    client.polled.set()


def test_commit_returns_what_came_of_each_partition() -> None:
    client = Waiting()
    client.polled.set()
    assert _Commit(client, ["one"]).result(5.0) == ["one"]  # type: ignore[list-item]


def test_the_first_fence_may_be_a_ghost() -> None:
    assert _Fences().may_join_anew(0.0)


def test_a_second_fence_is_another_process() -> None:
    fences = _Fences()
    fences.may_join_anew(0.0)
    assert not fences.may_join_anew(FENCED_AGAIN_SECONDS - 1.0)


def test_a_fence_long_after_another_may_be_a_ghost() -> None:
    fences = _Fences()
    fences.may_join_anew(0.0)
    assert fences.may_join_anew(FENCED_AGAIN_SECONDS)


def test_each_broker_that_dies_excuses_a_fence() -> None:
    fences = _Fences()
    for second in range(3):
        fences.broker_gone()
        assert fences.may_join_anew(float(second))


def test_a_broker_that_died_before_the_last_fence_excuses_no_other() -> None:
    fences = _Fences()
    fences.broker_gone()
    fences.may_join_anew(0.0)
    assert not fences.may_join_anew(1.0)
