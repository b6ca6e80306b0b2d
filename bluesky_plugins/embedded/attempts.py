"""Counting the starts of a part that do not get ready: no clock, no processes."""

from __future__ import annotations

from bluesky_plugins.embedded.parts import PartRecord, PartState

__all__ = ["Attempts"]


class Attempts:
    """The life of one part as its supervisor sees it.

    :param max_failures: ends in a row without getting ready after which it is not started
        again.
    """

    def __init__(self, max_failures: int) -> None:
        self._max = max_failures
        self._pid: int | None = None
        self._ready = False
        self._wanted = False
        self._failures = 0
        self._exit: str = ""

    @property
    def record(self) -> PartRecord:
        """What is to be told of the part now."""
        return PartRecord(
            state=self._state(), pid=self._pid, failures=self._failures, reason=self._reason()
        )

    @property
    def probed(self) -> int | None:
        """Pid of the process that is not known to be ready yet."""
        return None if self._ready else self._pid

    def wanted(self) -> None:
        """A person or `up` wants it started: what went wrong before does not count."""
        self._wanted = True
        self._failures = 0

    def may_start(self) -> bool:
        """Whether one more process may be started."""
        return self._failures < self._max

    def started(self, pid: int) -> None:
        """Process `pid` was started."""
        self._lost()
        self._pid, self._ready = pid, False

    def ready(self, pid: int) -> bool:
        """Process `pid` is ready; False when it is not (or no more) the process of the part."""
        if pid != self._pid:
            return False
        self._ready, self._failures = True, 0
        return True

    def ended(self, pid: int, how: str) -> None:
        """Process `pid` is gone."""
        if pid == self._pid:
            self._exit = how
            self._lost()

    def stopped(self) -> None:
        """The supervisor has stopped the part (or has given it up)."""
        if self._failures < self._max:
            self._wanted = False
            self._failures = 0
        self._pid, self._ready = None, False

    def _lost(self) -> None:
        if self._pid is not None and not self._ready:
            self._failures += 1
        self._pid, self._ready = None, False

    def _state(self) -> PartState:
        if self._pid is not None:
            return PartState.RUNNING if self._ready else PartState.STARTING
        if self._failures >= self._max:
            return PartState.FAILED
        return PartState.STARTING if self._wanted else PartState.STOPPED

    def _reason(self) -> str | None:
        if not self._failures:
            return None
        times = "once" if self._failures == 1 else f"{self._failures} times in a row"
        return f"ended {times} without getting ready{f' ({self._exit})' if self._exit else ''}"
