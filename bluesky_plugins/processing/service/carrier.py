"""Carries out at a target what the machine of a job asks for, and says what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypedDict

import structlog

from bluesky_plugins.processing.jobs.events import (
    Cancel,
    Command,
    Doubtful,
    Event,
    Expected,
    Find,
    NotSent,
    Refused,
    Submit,
    Submitted,
)
from bluesky_plugins.processing.jobs.job import JobRecord, submission_of
from bluesky_plugins.processing.targets.ports import Scheduler, SubmitRefused, TransportError

__all__ = ["Carrier"]

log = structlog.get_logger(__name__)


class _Which(TypedDict):
    attempt: int
    submission: int


class Carrier:
    """Submits and cancels.

    :param schedulers: target -> its scheduler.
    :param clock: seconds since the epoch.
    """

    def __init__(self, schedulers: Mapping[str, Scheduler], clock: Callable[[], float]) -> None:
        self._schedulers = schedulers
        self._clock = clock

    @staticmethod
    def search_of(job: JobRecord, command: Command) -> tuple[str, int] | None:
        """The target and attempt of a search; None for any other command."""
        return (command.target, command.attempt) if isinstance(command, Find) else None

    async def carry_out(self, job: JobRecord, command: Command) -> Event | None:
        """Submit or cancel; what is to be told of it."""
        match command:
            case Submit():
                return await self._submit(job, command)
            case Cancel():
                await self._cancel(job, command)
                return None
            case _:
                return None

    async def expect(self, job: JobRecord) -> Event | None:
        """When the newest attempt would start if it were submitted now; None: not known."""
        attempt, scheduler = job.attempt.number, self._schedulers.get(job.place.target)
        if scheduler is None:
            return None
        try:
            start = await scheduler.expected_start(submission_of(job, attempt))
        except (SubmitRefused, TransportError) as error:
            # The submission itself says so, where it counts.
            log.info("no start is foreseen", key=job.key, reason=error.reason)
            return None
        if start is None:
            return None
        now = self._clock()
        return Expected(time=now, attempt=attempt, seconds=max(0.0, start - now))

    async def _submit(self, job: JobRecord, command: Submit) -> Event:
        scheduler = self._schedulers.get(command.target)
        which: _Which = {"attempt": command.attempt, "submission": command.submission}
        if scheduler is None:
            # It was there when the job was accepted.
            reason = f"no target is called {command.target} any more"
            return Refused(time=self._clock(), reason=reason, permanent=True, **which)
        try:
            native_id = await scheduler.submit(submission_of(job, command.attempt))
        except SubmitRefused as error:
            why, for_good = error.reason, error.permanent
            return Refused(time=self._clock(), reason=why, permanent=for_good, **which)
        except TransportError as error:
            told = Doubtful if error.doubtful else NotSent
            return told(time=self._clock(), reason=error.reason, **which)
        log.info("submitted", key=job.key, target=command.target, native_id=native_id)
        return Submitted(time=self._clock(), attempt=command.attempt, native_id=native_id)

    async def _cancel(self, job: JobRecord, command: Cancel) -> None:
        scheduler = self._schedulers.get(command.target)
        if scheduler is None:
            return
        try:
            await scheduler.cancel(job.key, command.attempt)
        except TransportError as error:
            # The machine asks again until its end is seen.
            log.warning("not cancelled yet", key=job.key, reason=error.reason)
