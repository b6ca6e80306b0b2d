"""This machine as a target, with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bluesky_plugins.processing.model import (
    JobState,
    Observation,
    Resources,
    Submission,
    job_key,
)
from bluesky_plugins.processing.targets.local import LocalLimits, LocalScheduler, running_below
from bluesky_plugins.processing.targets.ports import Fault, SubmitRefused, TransportError

pytestmark = [pytest.mark.system, pytest.mark.asyncio, pytest.mark.timeout(240)]
# Records are on the disk before they are there, and images are built on the same one.
DEADLINE = 60.0
WAITS = "import time; time.sleep(300)"
ALL = "import json, os; print(json.dumps(dict(os.environ)))"


def job(code: str, name: str = "", **fields: Any) -> Submission:
    key = job_key("run", "recipe", "1", {"code": code, "name": name})
    argv = (sys.executable, "-S", "-c", code)
    return Submission(**{"key": key, "attempt": 1, "argv": argv, **fields})


@pytest_asyncio.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., LocalScheduler]]:
    """`make(**limits)`: a scheduler; all of them share one folder."""
    work = tmp_path / "work dir"

    def made(environment: dict[str, str] | None = None, **limits: Any) -> LocalScheduler:
        return LocalScheduler(work, limits=LocalLimits(**limits), environment=environment)

    yield made
    for one in running_below(str(work)):
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself just now
            os.kill(one.pid, signal.SIGKILL)


async def see(target: LocalScheduler, submission: Submission) -> Observation:
    ref = (submission.key, submission.attempt)
    return (await target.poll([(*ref, None)]))[ref]


async def until(
    target: LocalScheduler, submission: Submission, what: Callable[[Observation], Any]
) -> Observation:
    deadline = time.monotonic() + DEADLINE
    while not what(seen := await see(target, submission)):
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.02)
    return seen


async def beats(target: LocalScheduler, submission: Submission) -> Observation:
    return await until(target, submission, lambda seen: seen.heartbeat is not None)


async def test_a_service_that_starts_again_finds_what_runs(make: Any) -> None:
    submission = job(WAITS)
    native_id = await make().submit(submission)
    await beats(make(), submission)

    again = make()
    (found,) = (await again.find([submission.key]))[submission.key]

    assert (found.native_id, found.attempt, found.state) == (native_id, 1, JobState.RUNNING)
    await again.cancel(submission.key, 1)
    ended = await until(again, submission, lambda seen: seen.record)
    assert ended.record is not None
    assert ended.record.state is JobState.CANCELLED


async def test_what_ended_while_no_service_ran_is_found(make: Any) -> None:
    submission = job("import sys; sys.exit(3)")
    native_id = await make().submit(submission)
    await until(make(), submission, lambda seen: seen.record and seen.found is None)

    (found,) = (await make().find([submission.key]))[submission.key]

    assert (found.native_id, found.attempt, found.state) == (native_id, 1, JobState.FAILED)


async def test_a_wrapper_that_was_killed_is_gone(make: Any) -> None:
    target, submission = make(), job(WAITS)
    native_id = await target.submit(submission)
    await beats(target, submission)

    os.kill(int(native_id.partition(":")[0]), signal.SIGKILL)

    seen = await until(target, submission, lambda seen: seen.gone)
    assert seen.record is None


async def test_over_the_number_of_jobs_is_pressure(make: Any) -> None:
    target = make(jobs=1)
    await target.submit(job(WAITS, "a"))

    with pytest.raises(SubmitRefused, match="1 jobs run on this machine, and 1 may") as refused:
        await make(jobs=1).submit(job(WAITS, "b"))
    assert (refused.value.permanent, refused.value.pressure) == (False, True)
    assert await target.expected_start(job(WAITS, "b")) is None


async def test_room_comes_back_when_a_job_ends(make: Any) -> None:
    target, first, second = make(jobs=1), job(WAITS, "a"), job("pass", "b")
    await target.submit(first)
    await beats(target, first)

    await target.cancel(first.key, 1)
    await until(target, first, lambda seen: seen.record and seen.found is None)
    await target.submit(second)

    assert (await until(target, second, lambda seen: seen.record)).record is not None


async def test_many_at_once_do_not_pass_the_limit(make: Any) -> None:
    target = make(jobs=2)

    results = await asyncio.gather(
        *(target.submit(job(WAITS, str(number))) for number in range(5)), return_exceptions=True
    )

    assert sum(isinstance(result, SubmitRefused) for result in results) == 3


async def test_over_the_memory_together_is_pressure(make: Any) -> None:
    target = make(memory_mb=1000, jobs=9)
    await target.submit(job(WAITS, "a", resources=Resources(memory_mb=600)))

    with pytest.raises(SubmitRefused, match="600 of 1000 MB are taken") as refused:
        await target.submit(job(WAITS, "b", resources=Resources(memory_mb=600)))
    assert refused.value.pressure


async def test_more_memory_than_there_is_is_refused_for_ever(make: Any) -> None:
    with pytest.raises(SubmitRefused, match="this machine gives 100 MB") as refused:
        await make(memory_mb=100).submit(job(WAITS, resources=Resources(memory_mb=101)))
    assert refused.value.permanent


async def test_a_viewer_has_the_display_and_no_time_limit(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":7")
    limit = Resources(time_limit_s=0.1)
    viewer = job(f"{ALL}; import time; time.sleep(0.5)", kind="viewer", resources=limit)
    target = make(jobs=1)
    await target.submit(job(WAITS))

    await target.submit(viewer)  # jobs take no room from viewers
    ended = await until(target, viewer, lambda seen: seen.record)

    assert ended.record is not None
    assert ended.record.state is JobState.SUCCEEDED
    assert json.loads(ended.record.stdout)["DISPLAY"] == ":7"


async def test_a_job_sees_no_display_and_no_secret(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setenv("BLUESKY_PLUGINS_TEST_PASSWORD", "secret")
    submission, target = job(ALL, environment={"MINE": "1"}), make()

    await target.submit(submission)
    ended = await until(target, submission, lambda seen: seen.record)

    assert ended.record is not None
    environment = json.loads(ended.record.stdout)
    assert environment["MINE"] == "1"
    assert "PATH" in environment
    assert not [name for name in environment if name == "DISPLAY" or "BLUESKY" in name]


async def test_two_working_folders_do_not_mix(make: Any, tmp_path: Path) -> None:
    submission = job(WAITS)
    await make().submit(submission)
    other = LocalScheduler(tmp_path / "other")

    assert (await other.find([submission.key])) == {submission.key: []}
    await other.cancel(submission.key, 1)
    assert (await beats(make(), submission)).record is None


async def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    target = LocalScheduler(tmp_path / "file" / "work")

    with pytest.raises(TransportError) as error:
        await target.submit(job(WAITS))
    assert (error.value.fault, error.value.doubtful) == (Fault.FOLDER, False)


async def test_a_folder_that_is_not_there_is_not_an_end(tmp_path: Path) -> None:
    with pytest.raises(TransportError) as error:
        await see(LocalScheduler(tmp_path / "not mounted"), job(WAITS))
    assert error.value.fault is Fault.FOLDER


async def test_a_record_that_makes_no_sense_is_none(make: Any, tmp_path: Path) -> None:
    target, submission = make(), job(WAITS)
    await target.submit(submission)
    await beats(target, submission)
    folder = tmp_path / "work dir" / submission.key[:2] / submission.key / "1"

    for text in ("{", "[]", '{"key": 1}', json.dumps({"key": "0" * 64})):
        (folder / "result.json").write_text(text)
        seen = await see(target, submission)
        assert (seen.record, seen.gone) == (None, False)


def open_files(pid: int) -> set[str]:
    return {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}


async def test_a_job_keeps_no_file_and_no_port_of_the_service(
    make: Callable[..., LocalScheduler], tmp_path: Path
) -> None:
    target, submission = make(), job(f"print('on', flush=True); {WAITS}")
    said = tmp_path / "work dir" / submission.key[:2] / submission.key / "1" / "stdout"
    with socket.create_server(("127.0.0.1", 0)) as port, (tmp_path / "log").open("w") as log:
        for opened in (port, log):
            os.set_inheritable(opened.fileno(), True)
        await target.submit(submission)
        # Before it only waits, the wrapper opens and closes files.
        await until(target, submission, lambda _: said.exists() and said.read_text())
        (wrapper,) = running_below(str(tmp_path / "work dir"))
        kept = await asyncio.to_thread(open_files, wrapper.pid)
    own = str(tmp_path / "work dir")
    assert [one for one in kept if not one.startswith((own, "/dev/null", "pipe:"))] == []
    assert os.getsid(wrapper.pid) == wrapper.pid
