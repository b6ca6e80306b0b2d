"""Threads for what knows no event loop, and that nobody waits for at the end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["DaemonThreads"]

T = TypeVar("T")


class DaemonThreads:
    """A pool whose threads do not keep the process: a server that hangs must not.

    :param number: of threads.
    """

    def __init__(self, number: int, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._number = number
        for index in range(number):
            threading.Thread(target=self._labour, name=f"{name}-{index}", daemon=True).start()

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have it done as soon as a thread is free."""
        done: Future[T] = Future()

        def carry_out() -> None:
            if not done.set_running_or_notify_cancel():
                return
            try:
                result = work(*arguments)
            except BaseException as error:  # noqa: BLE001 (whoever waits for it raises it)
                done.set_exception(error)
            else:
                done.set_result(result)

        self._work.put(carry_out)
        return done

    def shutdown(self) -> None:
        """Let the threads end when they have done what they have; does not wait."""
        for _ in range(self._number):
            self._work.put(None)

    def _labour(self) -> None:
        while (work := self._work.get()) is not None:
            work()
