"""Drives jobs through their lives: one loop over the machine, the store and the targets.

Whatever a job becomes is stored before anything is done about it. What takes long, a target or
a broker that does not answer, holds up nothing but itself: every target is asked by a task of
its own, and every submission is one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from bluesky_plugins.processing.jobs.admission import admissions
from bluesky_plugins.processing.jobs.events import (
    Admitted,
    Announce,
    Announced,
    CancelRequested,
    Command,
    Event,
    Held,
    Publish,
    Published,
    Recovered,
    RetryRequested,
    Tick,
)
from bluesky_plugins.processing.jobs.job import JobRecord
from bluesky_plugins.processing.jobs.keeping import active_until
from bluesky_plugins.processing.jobs.machine import Rules, outstanding, step
from bluesky_plugins.processing.service.aside import Aside
from bluesky_plugins.processing.service.asker import Asker
from bluesky_plugins.processing.service.carrier import Carrier
from bluesky_plugins.processing.service.foreseeing import Foreseer
from bluesky_plugins.processing.service.pace import Pace
from bluesky_plugins.processing.service.postman import Postman
from bluesky_plugins.processing.service.requests import Post, PostKind
from bluesky_plugins.processing.service.store import JobStore, StoreDownError, UnstorableError
from bluesky_plugins.processing.service.tally import Tally
from bluesky_plugins.processing.service.threads import DaemonThreads
from bluesky_plugins.processing.service.troubles import Troubles
from bluesky_plugins.processing.targets.ports import Scheduler

__all__ = ["Driver", "Pace"]

log = structlog.get_logger(__name__)
T = TypeVar("T")
# Threads for the store and the broker, which know no event loop.
THREADS = 4


@dataclass
class _Live:
    """A job that is looked after. `publish`: its result is to go out."""

    job: JobRecord
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    publish: bool = False


class Driver:
    """Looks after the jobs while it has the lease.

    :param schedulers: target -> its scheduler.
    :param limits: line -> largest number of its jobs under way; see `admissions`.
    :param postman: sends messages; called from threads.
    :param owner: by this name it has the lease; two that run must not have the same one.
    :param clock: seconds since the epoch.
    """

    def __init__(
        self,
        store: JobStore,
        schedulers: Mapping[str, Scheduler],
        postman: Postman,
        *,
        owner: str,
        limits: Mapping[str, int] | None = None,
        rules: Rules | None = None,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._schedulers = schedulers
        self._postman = postman
        self._owner = owner
        self._limits = limits or {}
        self._rules = rules or Rules()
        self._pace = pace or Pace()
        self._clock = clock
        self._live: dict[str, _Live] = {}
        self._held_until = 0.0
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._sending: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] | None = None
        self._threads = DaemonThreads(THREADS, "processing-store")
        self._carrier = Carrier(schedulers, clock)
        self._foreseer = Foreseer(self._carrier.expect, self._tell, self._start, self.wake)
        self._asker = Asker(
            schedulers,
            self._rules,
            poll_s=self._pace.poll_s,
            clock=clock,
            jobs=lambda: self.jobs,
            tell=self._tell,
            said=self._asked_target,
        )
        self._aside = Aside(self._drop)
        self._troubles = Troubles()
        self.tally = Tally()

    @property
    def trouble(self) -> dict[str, str]:
        """Who does not answer, and which jobs cannot be driven -> why; from any thread."""
        return {**self._troubles.known, **self._aside.trouble}

    @property
    def leads(self) -> bool:
        """Whether the lease is ours, as far as this clock can tell."""
        return self._clock() < self._held_until

    @property
    def jobs(self) -> list[JobRecord]:
        """The jobs that are looked after; from any thread."""
        return [live.job for live in list(self._live.values())]

    def job(self, key: str) -> JobRecord | None:
        """A job that is looked after; from any thread."""
        live = self._live.get(key)
        return None if live is None else live.job

    def wake(self) -> None:
        """Something is to be done now; from the loop's thread."""
        self._wake.set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Look after jobs until `stopping` is set; they go on without us.

        :raises Exception: whatever a task of it raised; jobs are taken up again by another run.
        """
        self._stopping = stopping
        self._failure = asyncio.get_running_loop().create_future()
        try:
            while not stopping.is_set():
                await self._cycle()
                await self._pause(stopping)
        finally:
            await self._let_go()

    async def _pause(self, stopping: asyncio.Event) -> None:
        """Wait for news, for the next poll, or for the end."""
        waits = [asyncio.ensure_future(one.wait()) for one in (self._wake, stopping)]
        failure = self._failure
        try:
            both: list[asyncio.Future[Any]] = [*waits, *([failure] if failure else [])]
            await asyncio.wait(both, timeout=self._pace.poll_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        self._wake.clear()
        if failure is not None and failure.done():
            failure.result()

    async def _let_go(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # The lease stays where something may still be under way; it runs out by itself.
        self._threads.shutdown()
        for scheduler in self._schedulers.values():
            await scheduler.close()

    # ---- one turn

    async def _cycle(self) -> None:
        try:
            if not await self._lead():
                return
            await self._take_posts()
        except StoreDownError as error:
            self._troubles.told("the database", str(error))
            await asyncio.sleep(self._pace.retry_s)
            return
        self._troubles.told("the database", "")
        await self._admit()
        now = self._clock()
        for key in list(self._live):
            await self._tell_if_free(key, Tick(time=now))
        for target in self._schedulers:
            self._ask_when_due(target)
        self._send()
        self._forget()

    async def _lead(self) -> bool:
        now = self._clock()
        if now < self._held_until - self._pace.lease_s / 2:
            return True
        led = now < self._held_until
        ours = await self._in_thread(self._store.lease, self._owner, now, self._pace.lease_s)
        if not ours:
            self._held_until = 0.0
            self._live.clear()
            return False
        self._held_until = now + self._pace.lease_s
        if not led or self._troubles.known.get("the lease"):
            await self._take_up()
        return True

    async def _take_up(self) -> None:
        """All jobs that somebody has to care for, as they are stored."""
        self._live.clear()
        now = self._clock()
        for job in await self._in_thread(self._store.active, now):
            self._live[job.key] = _Live(job)
        self._troubles.told("the lease", "")
        log.info("jobs taken up", jobs=len(self._live), owner=self._owner)
        self._aside.begin(self._store.unreadable())
        for key in list(self._live):
            await self._tell(key, Recovered(time=now))

    async def _take_posts(self) -> None:
        for post in await self._in_thread(self._store.posts):
            if not self._aside.has(post.key):
                with self._aside.guard(post.key):
                    await self._take_post(post)

    async def _take_post(self, post: Post) -> None:
        if post.key not in self._live:
            job = await self._in_thread(self._store.job, post.key)
            if job is None:
                log.warning("nobody knows the job", key=post.key, asked=post.kind.value)
            else:
                self._live[job.key] = _Live(job)
                self._carry_out(job, outstanding(job)[1])
        # Of one that is accepted there is nothing to tell: it is looked after now.
        if post.kind is not PostKind.ACCEPTED:
            asked = CancelRequested if post.kind is PostKind.CANCEL else RetryRequested
            now = self._clock()
            event = asked(time=now, cause=post.cause, by=post.by, reason=post.reason)
            await self._tell(post.key, event, post.uid)
        await self._in_thread(self._store.settle, post.uid)

    async def _admit(self) -> None:
        now = self._clock()
        told: list[tuple[str, Event]] = []
        for one in admissions(self.jobs, self._limits, now):
            if one.held is not None:
                told.append((one.key, Held(time=now, reason=one.held)))
            elif not self._foreseer.busy(self._live[one.key].job):
                told.append((one.key, Admitted(time=now)))
        await asyncio.gather(*(self._tell_if_free(*each) for each in told))

    def _drop(self, key: str) -> None:
        self._live.pop(key, None)
        self._foreseer.forget(key)

    def _forget(self) -> None:
        now = self._clock()
        for key, live in list(self._live.items()):
            if not live.lock.locked() and active_until(self._rules, live.job) <= now:
                self._drop(key)

    # ---- a job and its next state

    async def _tell_if_free(self, key: str, event: Event) -> None:
        """For events that come again: not while the job waits for the store."""
        live = self._live.get(key)
        if live is not None and not live.lock.locked():
            await self._tell(key, event)

    async def _tell(self, key: str, event: Event, applied: str | None = None) -> None:
        live = self._live.get(key)
        if live is None:
            return
        async with live.lock:
            with self._aside.guard(key):
                job, commands = step(self._rules, live.job, event)
            if self._live.get(key) is not live:
                return
            if job.revision > live.job.revision and not await self._stored(live, job, applied):
                return
            self.tally.changed(live.job, job)
            live.job = job
        self._carry_out(job, commands)

    async def _stored(self, live: _Live, job: JobRecord, applied: str | None) -> bool:
        """Whether the job is stored; until the store answers, and while it is ours."""
        while self._live.get(job.key) is live and not self._stopping.is_set():
            try:
                write = self._store.write
                ours = await self._in_thread(write, job, live.job.revision, applied)
            except StoreDownError as error:
                self._troubles.told("the database", str(error))
                await asyncio.sleep(self._pace.retry_s)
                continue
            except UnstorableError as error:
                log.error("a job cannot be stored", key=job.key, reason=str(error))
                self._aside.put(job.key, f"it cannot be stored: {error}")
                return False
            if not ours:
                self._troubles.told("the lease", f"job {job.key} was written by somebody else")
                self._held_until = 0.0
            return ours
        return False

    def _carry_out(self, job: JobRecord, commands: tuple[Command, ...]) -> None:
        for command in commands:
            match command:
                case Publish():
                    if (live := self._live.get(job.key)) is not None:
                        live.publish = True
                    self._wake.set()
                case Announce():
                    self._wake.set()
                case _:
                    self._start(self._command(job, command))

    async def _command(self, job: JobRecord, command: Command) -> None:
        if not self.leads:
            return  # whoever leads now does it
        if (search := self._carrier.search_of(job, command)) is not None:
            self._asker.search(job.key, *search)
            self._wake.set()
            return
        with self._aside.guard(job.key):
            event = await self._carrier.carry_out(job, command)
            if event is not None:
                await self._tell(job.key, event)
                self._wake.set()

    # ---- targets

    def _ask_when_due(self, target: str) -> None:
        running = self._asking.get(target)
        if (running is None or running.done()) and self._asker.due(target):
            self._asking[target] = self._start(self._asker.ask(target))

    # ---- what goes out

    def _send(self) -> None:
        if self._sending is not None and not self._sending.done():
            return
        due = [
            live
            for live in self._live.values()
            if live.publish or live.job.announced < len(live.job.history)
        ]
        if due:
            self._sending = self._start(self._deliver(due))

    async def _deliver(self, due: list[_Live]) -> None:
        sent = [(live, live.job, live.publish) for live in due]
        letters = []
        for _, job, publish in sent:
            with self._aside.guard(job.key):
                letters.append(self._postman.letter(job, publish=publish))
        why = await self._in_thread(self._postman.deliver, letters)
        self._troubles.told("the broker", why or "")
        if why is not None:
            return  # the next turn tries again
        now = self._clock()
        for live, job, published in sent:
            if published:
                live.publish = False
                await self._tell(job.key, Published(time=now))
            await self._tell(job.key, Announced(time=now, changes=len(job.history)))

    # ---- tasks

    def _asked_target(self, target: str, reason: str) -> None:
        self._troubles.told(target, reason)
        self.tally.query(target, failed=bool(reason))
        self._wake.set()

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.wrap_future(self._threads.submit(work, *arguments))

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        failure = self._failure
        if not task.cancelled() and task.exception() and failure and not failure.done():
            failure.set_exception(task.exception() or RuntimeError("unknown"))
