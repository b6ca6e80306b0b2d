"""Asks a target how long a job would wait, before it is given to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bluesky_plugins.processing.jobs.attempts import may_move
from bluesky_plugins.processing.jobs.events import Event
from bluesky_plugins.processing.jobs.job import JobRecord

__all__ = ["Foreseer"]


class Foreseer:
    """Once for each attempt of a job that would go elsewhere rather than wait too long.

    :param expect: asks the job's target; None: not known.
    :param tell: tells a job, by its key, what was said.
    :param start: starts a task.
    :param wake: called when a job may go on.
    """

    def __init__(
        self,
        expect: Callable[[JobRecord], Awaitable[Event | None]],
        tell: Callable[[str, Event], Awaitable[None]],
        start: Callable[[Awaitable[None]], object],
        wake: Callable[[], None],
    ) -> None:
        self._expect = expect
        self._tell = tell
        self._start = start
        self._wake = wake
        self._asking: set[str] = set()
        self._asked: dict[str, int] = {}

    def busy(self, job: JobRecord) -> bool:
        """Whether the answer is awaited; asks if that was not done for its attempt."""
        if job.key in self._asking:
            return True
        if not may_move(job) or self._asked.get(job.key) == job.attempt.number:
            return False
        self._asking.add(job.key)
        self._start(self._foresee(job))
        return True

    async def _foresee(self, job: JobRecord) -> None:
        try:
            event = await self._expect(job)
            if event is not None:
                await self._tell(job.key, event)
        finally:
            self._asked[job.key] = job.attempt.number
            self._asking.discard(job.key)
        self._wake()

    def forget(self, key: str) -> None:
        """Nobody looks after the job any more."""
        self._asked.pop(key, None)
