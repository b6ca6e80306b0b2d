"""One suite for every target: a fake, this machine, Slurm here and over both kinds of SSH."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from bluesky_plugins.processing.model import (
    EndReason,
    JobState,
    Observation,
    Resources,
    ResultRecord,
    ResultSpec,
    Submission,
    job_key,
)
from bluesky_plugins.processing.targets.command_runner import LocalRunner
from bluesky_plugins.processing.targets.local import LocalLimits, LocalScheduler
from bluesky_plugins.processing.targets.openssh import OpensshRunner
from bluesky_plugins.processing.targets.ports import CommandRunner, Scheduler
from bluesky_plugins.processing.targets.slurm import SlurmScheduler
from bluesky_plugins.processing.targets.ssh import AsyncsshRunner
from bluesky_plugins.testing.targets import FakeScheduler, Outcome
from tests.words import HOSTILE

pytestmark = [pytest.mark.contract, pytest.mark.asyncio, pytest.mark.timeout(400)]
DEADLINE = 90.0


@dataclass
class Target:
    """A scheduler, and programs that run on it."""

    scheduler: Scheduler
    python: str = sys.executable
    pause_s: float = 0.03
    unfinished: set[tuple[str, int]] = field(default_factory=set)

    def submission(self, code: str, *arguments: str, **fields: Any) -> Submission:
        key = job_key(f"run-{uuid4()}", "recipe", "1", {})
        argv = (self.python, "-S", "-c", code, *arguments)
        return Submission(**{"key": key, "attempt": 1, "argv": argv, **fields})

    async def submit(self, submission: Submission) -> str:
        self.unfinished.add((submission.key, submission.attempt))
        return await self.scheduler.submit(submission)

    async def see(self, submission: Submission, native_id: str | None = None) -> Observation:
        ref = (submission.key, submission.attempt)
        return (await self.scheduler.poll([(*ref, native_id)]))[ref]

    async def until(
        self, submission: Submission, what: Callable[[Observation], Any], why: str
    ) -> Observation:
        deadline = time.monotonic() + DEADLINE
        while not what(seen := await self.see(submission)):
            assert time.monotonic() < deadline, why
            await asyncio.sleep(self.pause_s)
        return seen

    async def record(self, submission: Submission) -> ResultRecord:
        seen = await self.until(submission, lambda seen: seen.record, "it ends")
        assert seen.record is not None
        self.unfinished.discard((submission.key, submission.attempt))
        return seen.record

    async def runs(self, submission: Submission) -> Observation:
        def running(seen: Observation) -> bool:
            alive = seen.heartbeat is not None
            return alive and seen.found is not None and seen.found.state is JobState.RUNNING

        return await self.until(submission, running, "it runs")


def fake_outcome(submission: Submission) -> Outcome | None:
    """What these tests' programs would do."""
    code, arguments = submission.argv[3], list(submission.argv[4:])
    if code == WAITS:
        limit = submission.resources.time_limit_s
        return None if limit is None else Outcome(EndReason.TIMED_OUT, None)
    if code == EXITS:
        return Outcome(exit_code=int(arguments[0]))
    if code == MEASURES:
        return Outcome(numbers={"width": 1.5}, stdout="measured\n", stderr="warned\n")
    return Outcome(stdout=json.dumps(arguments) + "\n")


WAITS = "import time; time.sleep(600)"  # longer than any test waits
EXITS = "import sys; sys.exit(int(sys.argv[1]))"
SHOWS = "import json, sys; print(json.dumps(sys.argv[1:]))"
MEASURES = (
    "import sys; open('numbers.json', 'w').write('{\"width\": 1.5}'); print('measured');"
    "print('warned', file=sys.stderr)"
)
COUNTS = "import sys; open(sys.argv[1], 'a').write('x')"


def over_slurm(site: Any, runner: CommandRunner) -> Target:
    scheduler = SlurmScheduler(
        runner, str(site.work_dir), python="/usr/bin/python3", heartbeat_s=0.1
    )
    return Target(scheduler, "/usr/bin/python3", pause_s=0.2)


def runner_to(site: Any, kind: str) -> CommandRunner:
    login = {
        "port": site.ssh_port,
        "keys": [site.folder / "user_key"],
        "known_hosts": site.known_hosts(),
    }
    if kind == "slurm":
        return LocalRunner(environment=site.environment)
    if kind == "asyncssh":
        return AsyncsshRunner("127.0.0.1", config=[], **login)
    return OpensshRunner("127.0.0.1", config=Path(os.devnull), **login)


@pytest_asyncio.fixture(params=["fake", "local", "slurm", "asyncssh", "openssh"])
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    if request.param == "fake":
        yield Target(FakeScheduler(fake_outcome))
        return
    if request.param == "local":
        limits = LocalLimits(jobs=8, memory_mb=4000)
        made = Target(LocalScheduler(tmp_path / "work", limits=limits, heartbeat_s=0.1))
    else:
        site = request.getfixturevalue("slurm_site")
        made = over_slurm(site, runner_to(site, request.param))
    yield made
    for key, attempt in made.unfinished:
        await made.scheduler.cancel(key, attempt)
    await made.scheduler.close()


async def eventually(what: Callable[[], Awaitable[Any]], why: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not await what():
        assert time.monotonic() < deadline, why
        await asyncio.sleep(0.1)


async def test_a_job_runs_and_its_record_comes_back(target: Target) -> None:
    submission = target.submission(MEASURES, result=ResultSpec(numbers=("width",)))

    native_id = await target.submit(submission)
    record = await target.record(submission)

    assert (record.key, record.attempt) == (submission.key, 1)
    assert (record.state, record.exit_code) == (JobState.SUCCEEDED, 0)
    assert record.native_id == native_id
    assert record.numbers == {"width": 1.5}
    assert (record.stdout, record.stderr) == ("measured\n", "warned\n")


async def test_the_exit_code_comes_back(target: Target) -> None:
    submission = target.submission(EXITS, "7")

    await target.submit(submission)
    record = await target.record(submission)

    assert (record.state, record.exit_code) == (JobState.FAILED, 7)


async def test_arguments_arrive_as_they_are(target: Target) -> None:
    submission = target.submission(SHOWS, *HOSTILE)

    await target.submit(submission)

    assert json.loads((await target.record(submission)).stdout) == list(HOSTILE)


async def test_what_runs_is_seen_to_run(target: Target) -> None:
    submission = target.submission(WAITS)

    native_id = await target.submit(submission)
    seen = await target.runs(submission)

    assert seen.found is not None
    assert (seen.found.native_id, seen.found.state) == (native_id, JobState.RUNNING)
    assert (seen.record, seen.gone) == (None, False)
    assert seen.heartbeat is not None
    assert seen.heartbeat < 20


async def test_by_its_id_it_is_the_same_attempt(target: Target) -> None:
    submission = target.submission(WAITS)

    native_id = await target.submit(submission)
    await target.runs(submission)

    seen = await target.see(submission, native_id)
    assert seen.found is not None
    assert seen.found.native_id == native_id


async def test_a_job_is_found_by_its_key(target: Target) -> None:
    submission, other = target.submission(WAITS), target.submission(WAITS)

    native_id = await target.submit(submission)
    await target.runs(submission)
    found = await target.scheduler.find([submission.key, other.key])

    assert found[other.key] == []
    assert [(one.native_id, one.attempt) for one in found[submission.key]] == [(native_id, 1)]
    assert not found[submission.key][0].state.final


async def test_a_job_that_ended_at_once_is_still_found(target: Target) -> None:
    submission = target.submission(EXITS, "0")

    native_id = await target.submit(submission)
    await target.record(submission)
    (found,) = (await target.scheduler.find([submission.key]))[submission.key]

    assert found.native_id == native_id


async def test_what_was_never_submitted_is_gone(target: Target) -> None:
    other, submission = target.submission(EXITS, "0"), target.submission(EXITS, "0")
    await target.submit(other)  # a target has its folder by then
    await target.record(other)

    assert (await target.see(submission)) == Observation(gone=True)
    assert (await target.see(submission, "999999")) == Observation(gone=True)


async def test_the_same_attempt_twice_works_once(target: Target, tmp_path: Path) -> None:
    count = tmp_path / "count"
    submission = target.submission(COUNTS, str(count))

    await target.submit(submission)
    first = await target.record(submission)
    await target.submit(submission)

    async def ended() -> bool:
        found = (await target.scheduler.find([submission.key]))[submission.key]
        return all(one.state.final for one in found)

    await eventually(ended, "the duplicate ends")
    assert await target.record(submission) == first
    if isinstance(target.scheduler, FakeScheduler):
        assert target.scheduler.starts == [(submission.key, 1)]
    else:
        assert count.read_text() == "x"


async def test_the_next_attempt_is_another(target: Target) -> None:
    submission = target.submission(EXITS, "3")
    again = submission.model_copy(update={"attempt": 2})

    ids = []
    for attempt in (submission, again):
        ids.append(await target.submit(attempt))
        assert (await target.record(attempt)).attempt == attempt.attempt

    assert len(set(ids)) == 2


async def test_a_cancelled_job_ends(target: Target) -> None:
    submission = target.submission(WAITS)
    await target.submit(submission)
    await target.runs(submission)

    await target.scheduler.cancel(submission.key, 1)
    record = await target.record(submission)

    assert (record.state, record.reason) == (JobState.CANCELLED, EndReason.CANCELLED)


async def test_only_that_attempt_is_cancelled(target: Target) -> None:
    submission = target.submission(WAITS)
    again = submission.model_copy(update={"attempt": 2})
    for attempt in (submission, again):
        await target.submit(attempt)
        await target.runs(attempt)

    await target.scheduler.cancel(submission.key, 1)

    assert (await target.record(submission)).state is JobState.CANCELLED
    assert (await target.see(again)).record is None


async def test_what_is_cancelled_before_it_comes_does_not_start(target: Target) -> None:
    await test_the_exit_code_comes_back(target)
    submission = target.submission(WAITS)

    await target.scheduler.cancel(submission.key, 1)
    await target.submit(submission)

    assert (await target.record(submission)).reason is EndReason.CANCELLED


async def test_to_cancel_what_ended_changes_nothing(target: Target) -> None:
    submission = target.submission(EXITS, "0")
    await target.submit(submission)
    first = await target.record(submission)

    await target.scheduler.cancel(submission.key, 1)

    assert await target.record(submission) == first


async def test_to_cancel_what_is_not_there_is_no_error(target: Target) -> None:
    await target.scheduler.cancel(target.submission(WAITS).key, 1)


async def test_the_time_limit_ends_it(target: Target) -> None:
    submission = target.submission(WAITS, resources=Resources(time_limit_s=0.5))

    await target.submit(submission)

    assert (await target.record(submission)).state is JobState.TIMED_OUT


async def test_logs_are_read(target: Target) -> None:
    submission = target.submission(MEASURES)
    await target.submit(submission)
    await target.record(submission)

    assert await target.scheduler.logs(submission.key, 1, 1000) == ("measured\n", "warned\n")
    assert await target.scheduler.logs(submission.key, 1, 4) == ("red\n", "ned\n")


async def test_there_are_no_logs_of_what_is_not_there(target: Target) -> None:
    await test_the_exit_code_comes_back(target)

    assert await target.scheduler.logs(target.submission(WAITS).key, 1, 100) == ("", "")


async def test_an_idle_target_would_start_it_soon(target: Target) -> None:
    start = await target.scheduler.expected_start(target.submission(WAITS))

    now = 1000.0 if isinstance(target.scheduler, FakeScheduler) else time.time()
    assert start is not None
    assert abs(start - now) < 120


async def test_many_are_asked_about_at_once(target: Target) -> None:
    submissions = [target.submission(EXITS, str(number)) for number in range(4)]
    for submission in submissions:
        await target.submit(submission)

    async def ended() -> bool:
        seen = await target.scheduler.poll([(one.key, 1, None) for one in submissions])
        records = [seen[one.key, 1].record for one in submissions]
        return [record and record.exit_code for record in records] == [0, 1, 2, 3]

    await eventually(ended, "all have ended")


async def test_nothing_is_asked_about(target: Target) -> None:
    await test_the_exit_code_comes_back(target)

    assert await target.scheduler.poll([]) == {}
    assert await target.scheduler.find([]) == {}
