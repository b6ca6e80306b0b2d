"""What a consumer does where librdkafka has no deadline of its own."""

from __future__ import annotations

import threading
from typing import Any

from bluesky_plugins.messaging.consumer import _Commit


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
