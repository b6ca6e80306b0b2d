"""Threads that recommenders compute in."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

__all__ = ["Workers"]


class Workers:
    """As many threads as there is work at the same time; each is kept for the next.

    They are daemons: a recommender that never returns keeps its thread, and nothing else.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0

    def run(self, work: Callable[[], None]) -> None:
        """Have it done now; `work` raises nothing."""
        with self._lock:
            needed = self._idle == 0
            if not needed:
                self._idle -= 1
        if needed:
            threading.Thread(target=self._labour, name="recommender", daemon=True).start()
        self._work.put(work)

    def _labour(self) -> None:
        while True:
            self._work.get()()
            with self._lock:
                self._idle += 1
