"""The driver with a store and targets in memory: what it does about jobs, whatever fails."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from bluesky_plugins.messaging import NotDelivered
from bluesky_plugins.processing import JobRecord, JobState, Rules, accept
from bluesky_plugins.processing.jobs.attempts import Step
from bluesky_plugins.processing.jobs.events import Event
from bluesky_plugins.processing.jobs.job import Subject
from bluesky_plugins.processing.jobs.machine import step
from bluesky_plugins.processing.model import Submission
from bluesky_plugins.processing.service import driver as driving
from bluesky_plugins.processing.service.driver import Driver, Pace
from bluesky_plugins.processing.service.postman import Postman
from bluesky_plugins.processing.service.requests import Post, PostKind
from bluesky_plugins.testing import FakeScheduler, MemoryJobStore, Outcome
from bluesky_plugins.testing.jobs import unaccepted

RULES = Rules(
    submit_s=0.3, search_s=0.02, doubt_s=0.05, gone_s=0.05, gone_polls=2, backoff_s=0.02, beat_s=0.0
)
FOUND = Outcome(numbers={"peak": 3.25})
DEADLINE = 10.0


class MemoryMail:
    """Keeps what is sent. `down`: nobody acknowledges."""

    def __init__(self) -> None:
        self.down = False
        self.sent: list[tuple[str, str, str, Mapping[str, Any]]] = []
        self._lock = threading.Lock()

    def deliver(
        self, messages: Iterable[tuple[str, str, str, Mapping[str, Any]]], timeout: float
    ) -> None:
        if self.down:
            raise NotDelivered("nobody acknowledges")
        with self._lock:
            self.sent += messages

    def uids(self, topic: str, name: str) -> list[str]:
        return [doc["uid"] for t, _, n, doc in self.sent if (t, n) == (topic, name)]


class World:
    """Everything a driver works with; it may be killed and started again."""

    def __init__(self, outcome: Outcome | None = FOUND) -> None:
        self.store = MemoryJobStore(RULES)
        self.slurm = FakeScheduler(lambda submission: outcome)
        self.local = FakeScheduler(lambda submission: outcome)
        self.mail = MemoryMail()
        self.limits: dict[str, int] = {}

    def accept(self, run: str = "run", *targets: str, **changes: Any) -> str:
        job = accept(
            unaccepted(targets or ("slurm",), subject=Subject(run=run, batch_id="b"), **changes)
        )
        self.store.accept(job)
        self.post(job.key, PostKind.ACCEPTED, uid=f"accepted-{job.key}")
        return job.key

    def post(self, key: str, kind: PostKind, uid: str) -> None:
        self.store.post(Post(uid=uid, key=key, kind=kind, time=1.0, by="me", reason="so"))

    def job(self, key: str) -> JobRecord:
        found = self.store.job(key)
        assert found is not None
        return found

    @asynccontextmanager
    async def driven(self, owner: str = "a", **pace: float) -> AsyncIterator[Driver]:
        """A driver at work. At the end it is killed: nothing is finished or given back."""
        driver = Driver(
            self.store,
            {"slurm": self.slurm, "local": self.local},
            Postman(self.mail, lambda short: short),
            owner=owner,
            limits=self.limits,
            rules=RULES,
            pace=Pace(**{"poll_s": 0.01, "lease_s": 0.2, "retry_s": 0.01, **pace}),
        )
        stopping = asyncio.Event()
        task = asyncio.ensure_future(driver.run(stopping))
        try:
            yield driver
        finally:
            if not task.done():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled() and (error := task.exception()):
            raise error

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():  # noqa: ASYNC110 - what is waited for knows no event
                await asyncio.sleep(0.005)

    async def state(self, key: str, state: JobState) -> None:
        await self.until(lambda: self.job(key).state is state, f"{state} of {key}")

    async def deferred(self, key: str, reason: str) -> None:
        # Looked at once: the next try may be under way already.
        def deferred(job: JobRecord) -> bool:
            return job.state is JobState.DEFERRED and reason in job.reason

        await self.until(lambda: deferred(self.job(key)), f"{reason} of {key}")

    def has_started(self, expected: list[tuple[str, int]]) -> bool:
        # Those that may start at the same time are written down by threads, in any order.
        assert len(self.slurm.starts) <= len(expected)
        return sorted(self.slurm.starts) == sorted(expected)

    async def settled(self, key: str) -> None:
        """Ended, published and announced."""
        await self.until(
            lambda: (
                self.job(key).state.final
                and self.job(key).announced == len(self.job(key).history)
                and (self.job(key).published or not self.job(key).numbers)
            ),
            f"{key} settled",
        )


Test = Callable[[], Awaitable[None]]


def run(test: Test) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_a_job_is_done_and_its_result_goes_out_once() -> None:
    async def test() -> None:
        world = World()
        key = world.accept()
        async with world.driven():
            await world.settled(key)
        assert world.job(key).numbers == {"peak": 3.25}
        assert len(world.mail.uids("analysis", "start")) == 1
        assert len(world.mail.uids("adaptive", "result")) == 1
        changes = world.mail.uids("jobs", "change")
        assert len(changes) == len(set(changes)) == len(world.job(key).history)
        assert list(world.store.posts()) == []

    run(test)


def test_of_many_jobs_no_more_than_the_limit_are_under_way() -> None:
    async def test() -> None:
        world = World(outcome=None)
        world.limits = {"slurm": 2}
        keys = [world.accept(f"run-{n}", time=1000.0 + n) for n in range(5)]
        async with world.driven():
            for done in range(5):
                expected = [(key, 1) for key in keys[: done + 2]]
                await world.until(partial(world.has_started, expected), "starts")
                world.slurm.finish(keys[done], FOUND)
            for key in keys:
                await world.settled(key)

    run(test)


def test_a_job_that_would_wait_too_long_is_never_given_to_that_target() -> None:
    async def test() -> None:
        world = World()
        world.slurm.foreseen = time.time() + 3600.0
        now = time.time()
        moved = world.accept("run-1", "slurm", "local", wait_s=60.0, time=now)
        stays = world.accept("run-2", "slurm", "local")
        async with world.driven():
            await world.settled(moved)
            await world.settled(stays)
        assert (world.slurm.starts, world.local.starts) == ([(stays, 1)], [(moved, 2)])
        assert "s more, as slurm expects) is longer than the 60 s" in str(world.job(moved).history)

    run(test)


def test_a_target_that_cannot_tell_the_wait_is_given_the_job() -> None:
    async def test() -> None:
        world = World()
        world.slurm.full = True
        key = world.accept("run", "slurm", "local", wait_s=60.0, time=time.time())
        async with world.driven():
            await world.deferred(key, "the queue is full")
            world.slurm.full = False
            await world.settled(key)
        assert world.slurm.starts == [(key, 1)]

    run(test)


def test_a_lost_reply_starts_nothing_twice() -> None:
    async def test() -> None:
        world = World()
        world.slurm.lose_reply = True
        key = world.accept()
        async with world.driven():
            await world.settled(key)
        assert world.job(key).state is JobState.SUCCEEDED
        assert len(world.slurm.submissions) == 1

    run(test)


def test_a_target_that_is_down_defers_and_loses_nothing() -> None:
    async def test() -> None:
        world = World()
        world.slurm.down = True
        keys = [world.accept(f"run-{n}") for n in range(3)]
        async with world.driven() as driver:
            for key in keys:
                await world.deferred(key, "nobody answers")
            world.slurm.down = False
            for key in keys:
                await world.settled(key)
            assert driver.trouble == {}
        assert len(world.slurm.starts) == 3

    run(test)


def test_while_the_store_is_down_nothing_is_done_that_is_not_written_down() -> None:
    async def test() -> None:
        world = World(outcome=None)
        key = world.accept()
        async with world.driven(lease_s=30.0) as driver:
            await world.state(key, JobState.RUNNING)
            world.store.down = True
            world.slurm.finish(key, FOUND)
            await world.until(lambda: "the database" in driver.trouble, "trouble")
            assert world.mail.uids("analysis", "start") == []
            world.store.down = False
            await world.settled(key)
        assert len(world.mail.uids("analysis", "start")) == 1

    run(test)


def test_while_the_broker_is_down_jobs_go_on_and_their_results_wait() -> None:
    async def test() -> None:
        world = World()
        world.mail.down = True
        key = world.accept()
        async with world.driven() as driver:
            await world.state(key, JobState.SUCCEEDED)
            await world.until(lambda: "the broker" in driver.trouble, "trouble")
            world.mail.down = False
            await world.settled(key)
        assert len(world.mail.uids("analysis", "start")) == 1

    run(test)


def test_a_person_cancels_and_tries_again() -> None:
    async def test() -> None:
        world = World(outcome=None)
        key = world.accept()
        async with world.driven() as driver:
            await world.state(key, JobState.RUNNING)
            world.post(key, PostKind.CANCEL, "c")
            driver.wake()
            await world.settled(key)
            assert world.job(key).state is JobState.CANCELLED
            assert world.job(key).reason == "cancelled by me: so"
            world.post(key, PostKind.RETRY, "r")
            driver.wake()
            await world.until(lambda: len(world.slurm.starts) == 2, "second start")
            world.slurm.finish(key, FOUND)
            await world.settled(key)
        assert world.slurm.starts == [(key, 1), (key, 2)]
        assert world.job(key).numbers == {"peak": 3.25}

    run(test)


def test_the_batch_hears_of_an_end_without_a_result() -> None:
    async def test() -> None:
        world = World(outcome=Outcome(exit_code=3))
        key = world.accept()
        async with world.driven():
            await world.settled(key)
        (result,) = [doc for topic, _, _, doc in world.mail.sent if topic == "adaptive"]
        assert result["state"] == "failed"
        assert result["values"] == {}
        assert "exited with 3" in result["reason"]

    run(test)


def test_what_happens_to_jobs_and_targets_is_counted() -> None:
    async def test() -> None:
        world = World(outcome=None)
        key = world.accept(time=time.time())
        async with world.driven() as driver:
            await world.state(key, JobState.RUNNING)
            world.slurm.down = True
            await world.until(lambda: driver.tally.failed["slurm"], "a query that failed")
            world.slurm.down = False
            world.slurm.finish(key, FOUND)
            await world.settled(key)
            tally = driver.tally
            assert dict(tally.ended) == {("slurm", "succeeded"): 1}
            assert (dict(tally.began), set(tally.waited_s)) == ({"slurm": 1}, {"slurm"})
            assert 0.0 <= tally.waited_s["slurm"] < DEADLINE
            assert tally.asked["slurm"] > tally.failed["slurm"]

    run(test)


def test_one_of_two_drivers_has_the_jobs_and_the_other_takes_them_over() -> None:
    async def test() -> None:
        world = World(outcome=None)
        key = world.accept()
        lease = {"lease_s": 1.5}  # no loop stands still for so long, on a busy machine either
        async with world.driven("a", **lease):
            await world.state(key, JobState.RUNNING)
            async with world.driven("b", **lease) as second:
                await asyncio.sleep(0.3)
                assert second.jobs == []
        async with world.driven("b", **lease):
            world.slurm.finish(key, FOUND)
            await world.settled(key)
        assert world.slurm.starts == [(key, 1)]
        assert len(set(world.mail.uids("analysis", "start"))) == 1

    run(test)


@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_moment_there_is_one_start_and_one_result(seed: int) -> None:
    async def test() -> None:
        world = World()
        world.slurm.lose_reply = seed % 3 == 0
        keys = [world.accept(f"run-{n}") for n in range(4)]
        for kill in range(12):
            async with world.driven():
                await asyncio.sleep(0.002 + 0.003 * ((seed * 7 + kill * 5) % 11))
        async with world.driven():
            for key in keys:
                await world.settled(key)
        assert sorted(world.slurm.starts) == sorted((key, 1) for key in keys)
        assert len(set(world.mail.uids("analysis", "start"))) == 4
        assert len(set(world.mail.uids("adaptive", "result"))) == 4

    run(test)


def test_a_job_that_cannot_be_driven_is_set_aside_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        world = World()
        poison, good = world.accept("poison"), world.accept("good")
        submit = world.slurm.submit

        async def breaks(submission: Submission) -> str:
            if submission.key == poison:
                raise ZeroDivisionError("nobody foresaw this")
            return await submit(submission)

        monkeypatch.setattr(world.slurm, "submit", breaks)
        async with world.driven(lease_s=60.0) as driver:
            await world.settled(good)
            await world.until(lambda: f"job {poison[:12]}" in driver.trouble, "trouble")
            later = world.accept("later")
            driver.wake()
            await world.settled(later)
            reason = driver.trouble[f"job {poison[:12]}"]
            assert reason == "ZeroDivisionError: nobody foresaw this"
        monkeypatch.setattr(world.slurm, "submit", submit)
        async with world.driven(lease_s=60.0) as driver:
            await world.settled(poison)
            assert driver.trouble == {}

    run(test)


def test_a_job_whose_next_step_raises_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        world = World()
        poison, good = world.accept("poison"), world.accept("good")

        def breaks(rules: Rules, job: JobRecord, event: Event) -> Step:
            if job.key == poison:
                raise ValueError("a bug")
            return step(rules, job, event)

        monkeypatch.setattr(driving, "step", breaks)
        async with world.driven(lease_s=60.0) as driver:
            await world.settled(good)
            await world.until(lambda: driver.trouble, "trouble")
            assert driver.trouble == {f"job {poison[:12]}": "ValueError: a bug"}
            assert [job.key for job in driver.jobs if job.key == poison] == []

    run(test)


def test_a_job_that_another_version_wrote_is_told_of_and_left_alone() -> None:
    async def test() -> None:
        world = World()
        world.store.unreadable = lambda: {"ab" * 32: "an unknown field"}  # type: ignore[method-assign]
        good = world.accept("good")
        async with world.driven(lease_s=60.0) as driver:
            await world.settled(good)
            reason = driver.trouble["job abababababab"]
            assert reason == "it cannot be read: an unknown field"

    run(test)
