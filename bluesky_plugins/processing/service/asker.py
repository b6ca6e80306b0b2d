"""Asks the targets how their jobs are: each by one query for all, at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from bluesky_plugins.processing.jobs.events import Event, Observed, PollFailed, Searched
from bluesky_plugins.processing.jobs.job import JobRecord
from bluesky_plugins.processing.jobs.machine import Rules
from bluesky_plugins.processing.jobs.observing import to_poll
from bluesky_plugins.processing.targets.ports import Scheduler, TransportError

__all__ = ["Asker"]

# A poll may come this much early, rather than a whole turn late.
EARLY = 0.9
# Of what is missing in an answer nothing is known.
NOT_ASKED = "the answer says nothing of it"


class Asker:
    """Polls, and looks for what is doubtful.

    :param poll_s: between two polls of a target, s.
    :param clock: seconds since the epoch.
    :param jobs: the jobs that are looked after.
    :param tell: tells a job, by its key, what was seen.
    :param said: called with a target that was asked, and why it did not answer, or nothing.
    """

    def __init__(
        self,
        schedulers: Mapping[str, Scheduler],
        rules: Rules,
        *,
        poll_s: float,
        clock: Callable[[], float],
        jobs: Callable[[], list[JobRecord]],
        tell: Callable[[str, Event], Awaitable[None]],
        said: Callable[[str, str], None],
    ) -> None:
        self._schedulers = schedulers
        self._rules = rules
        self._poll_s = poll_s
        self._clock = clock
        self._jobs = jobs
        self._tell = tell
        self._said = said
        self._asked: dict[str, float] = {}
        self._searches: dict[str, dict[str, int]] = {}

    def search(self, key: str, target: str, attempt: int) -> None:
        """Look for a job the next time, which is now."""
        self._searches.setdefault(target, {})[key] = attempt
        self._asked.pop(target, None)

    def due(self, target: str) -> bool:
        """Whether it is time to ask."""
        return self._clock() - self._asked.get(target, 0.0) >= EARLY * self._poll_s

    async def ask(self, target: str) -> None:
        """One query for all jobs of a target, and one for those that are searched."""
        self._asked[target] = self._clock()
        # What can be polled and what can be found are two questions: one may fail alone.
        searches = self._searches.pop(target, {})
        said = [await self._search(target, searches), await self._poll(target)]
        reasons = [reason for reason in said if reason is not None]
        if reasons:
            self._said(target, max(reasons))

    async def _search(self, target: str, searches: Mapping[str, int]) -> str | None:
        """Look for jobs; empty, or why that was not possible. None: nothing to look for."""
        if not searches:
            return None
        asked = self._clock()
        try:
            found = await self._schedulers[target].find(list(searches))
        except TransportError as error:
            await self._tell_failed(searches, asked, error.reason)
            return error.reason
        await self._tell_failed(searches.keys() - found.keys(), asked, NOT_ASKED)
        for key, seen in found.items():
            told = Searched(time=asked, attempt=searches[key], found=tuple(seen))
            await self._tell(key, told)
        return ""

    async def _poll(self, target: str) -> str | None:
        """Ask how all jobs of a target are; empty, or why that was not possible.

        None: there is nothing to ask.
        """
        asked = self._clock()
        polled = (to_poll(self._rules, job, asked) for job in self._jobs())
        refs = [ref for pairs in polled for where, ref in pairs if where == target]
        if not refs:
            return None
        try:
            observed = await self._schedulers[target].poll(refs)
        except TransportError as error:
            await self._tell_failed([key for key, _, _ in refs], asked, error.reason)
            return error.reason
        told = (
            self._tell(key, Observed(time=asked, attempt=attempt, observation=seen))
            for (key, attempt), seen in observed.items()
        )
        await asyncio.gather(*told)
        unsaid = {(key, number) for key, number, _ in refs} - observed.keys()
        await self._tell_failed((key for key, _ in unsaid), asked, NOT_ASKED)
        return ""

    async def _tell_failed(self, keys: Iterable[str], asked: float, reason: str) -> None:
        for key in set(keys):
            await self._tell(key, PollFailed(time=asked, reason=reason))
