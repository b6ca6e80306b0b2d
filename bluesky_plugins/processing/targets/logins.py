"""A cluster whose jobs belong to several accounts: a connection and a queue for each of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from bluesky_plugins.processing.model import Found, Login, Observation, Submission
from bluesky_plugins.processing.targets.beamtime_files import unusable_key
from bluesky_plugins.processing.targets.ports import AttemptRef, Fault, Scheduler, TransportError

__all__ = ["LoginOf", "LoginScheduler"]

log = structlog.get_logger(__name__)
T = TypeVar("T")
# Connections that are kept; the one that was used last is let go last.
MOST = 8
# Key of a job -> its account; None: nobody knows.
LoginOf = Callable[[str], Login | None]


@dataclass
class _Open:
    scheduler: Scheduler
    users: int = 0


class LoginScheduler:
    """See `Scheduler`. An account that cannot be asked is missing in an answer.

    :param login_of: tells the account of a job.
    :param open_as: makes the scheduler of an account.
    :param most: connections at a time, at most.
    """

    def __init__(
        self, login_of: LoginOf, open_as: Callable[[Login], Scheduler], *, most: int = MOST
    ) -> None:
        self._login_of = login_of
        self._open_as = open_as
        self._most = most
        self._open: dict[Login, _Open] = {}
        self._slots = asyncio.Semaphore(most)

    @contextlib.asynccontextmanager
    async def _as(self, login: Login) -> AsyncIterator[Scheduler]:
        async with self._slots:
            fault = await asyncio.to_thread(unusable_key, Path(login.key))
            if fault is not None:
                raise TransportError(fault, doubtful=False, fault=Fault.AUTHENTICATION)
            one = self._open.pop(login, None) or _Open(self._open_as(login))
            self._open[login] = one
            one.users += 1
            try:
                for unused in self._surplus():
                    await unused.close()
                yield one.scheduler
            finally:
                one.users -= 1

    def _surplus(self) -> list[Scheduler]:
        """Those to be let go, the one that was used first before the others."""
        idle = [login for login, one in self._open.items() if one.users == 0]
        gone = idle[: max(0, len(self._open) - self._most)]
        return [self._open.pop(login).scheduler for login in gone]

    @contextlib.asynccontextmanager
    async def _of(self, key: str) -> AsyncIterator[Scheduler]:
        async with self._one(self._login_of(key)) as scheduler:
            yield scheduler

    # -- one job

    async def submit(self, submission: Submission) -> str:
        """See `Scheduler`."""
        async with self._of(submission.key) as scheduler:
            return await scheduler.submit(submission)

    async def cancel(self, key: str, attempt: int) -> None:
        """See `Scheduler`."""
        async with self._of(key) as scheduler:
            await scheduler.cancel(key, attempt)

    async def logs(self, key: str, attempt: int, limit: int) -> tuple[str, str]:
        """See `Scheduler`."""
        async with self._of(key) as scheduler:
            return await scheduler.logs(key, attempt, limit)

    async def expected_start(self, submission: Submission) -> float | None:
        """See `Scheduler`."""
        async with self._of(submission.key) as scheduler:
            return await scheduler.expected_start(submission)

    # -- many jobs

    async def find(self, keys: Sequence[str]) -> dict[str, list[Found]]:
        """See `Scheduler`."""
        answers = [self._find_as(*each) for each in self._by_login(keys, lambda key: key).items()]
        return _together(await asyncio.gather(*answers, return_exceptions=True))

    async def _find_as(self, login: Login | None, keys: Sequence[str]) -> dict[str, list[Found]]:
        async with self._one(login) as scheduler:
            return await scheduler.find(keys)

    async def poll(self, attempts: Sequence[AttemptRef]) -> dict[tuple[str, int], Observation]:
        """See `Scheduler`: one query for all jobs of an account."""
        grouped = self._by_login(attempts, lambda ref: ref[0])
        answers = [self._poll_as(*each) for each in grouped.items()]
        return _together(await asyncio.gather(*answers, return_exceptions=True))

    async def _poll_as(
        self, login: Login | None, attempts: Sequence[AttemptRef]
    ) -> dict[tuple[str, int], Observation]:
        async with self._one(login) as scheduler:
            return await scheduler.poll(attempts)

    async def reach(self, login: Login) -> None:
        """Ask the cluster for its queue as this account.

        :raises TransportError: if that fails.
        """
        async with self._as(login) as scheduler:
            await scheduler.find([])

    @contextlib.asynccontextmanager
    async def _one(self, login: Login | None) -> AsyncIterator[Scheduler]:
        if login is None:
            reason = "nobody knows as which account the job was submitted"
            raise TransportError(reason, doubtful=False, fault=Fault.AUTHENTICATION)
        async with self._as(login) as scheduler:
            yield scheduler

    def _by_login(
        self, things: Iterable[T], key: Callable[[T], str]
    ) -> dict[Login | None, list[T]]:
        grouped: dict[Login | None, list[T]] = {}
        for thing in things:
            grouped.setdefault(self._login_of(key(thing)), []).append(thing)
        return grouped

    async def close(self) -> None:
        """See `Scheduler`."""
        gone, self._open = [one.scheduler for one in self._open.values()], {}
        await asyncio.gather(*(scheduler.close() for scheduler in gone))


K = TypeVar("K")
V = TypeVar("V")


def _together(answers: Sequence[dict[K, V] | BaseException]) -> dict[K, V]:
    """All that was answered.

    :raises TransportError: if nobody answered.
    """
    failed: list[TransportError] = []
    all_of_them: dict[K, V] = {}
    for answer in answers:
        if isinstance(answer, dict):
            all_of_them |= answer
        elif isinstance(answer, TransportError):
            failed.append(answer)
        else:
            raise answer
    if failed and len(failed) == len(answers):
        raise failed[0]
    for error in failed:
        log.warning("an account cannot be asked", reason=error.reason)
    return all_of_them
