"""A target that is this machine: every attempt is a process group of its own.

Wrappers are no children of the service: jobs outlive it, and a service that starts finds them
again by their command lines. Nothing about them is kept in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bluesky_plugins.processing.model import Found, JobState, Observation, Submission
from bluesky_plugins.processing.targets import job_report, job_wrapper
from bluesky_plugins.processing.targets.command_runner import clean_environment, run_program
from bluesky_plugins.processing.targets.folders import (
    HEARTBEAT_S,
    LOG_MB,
    checked_work_dir,
    folder_of,
    observation,
    specification,
)
from bluesky_plugins.processing.targets.ports import (
    AttemptRef,
    Fault,
    SubmitRefused,
    TransportError,
)

__all__ = ["LocalLimits", "LocalScheduler"]

START_S = 20.0


@dataclass(frozen=True)
class LocalLimits:
    """What this machine takes at a time; what is over a limit waits."""

    jobs: int = 2
    viewers: int = 4
    memory_mb: int | None = None  # of all jobs together, as far as they name theirs


@dataclass(frozen=True)
class _Running:
    """A wrapper that lives."""

    pid: int
    native_id: str
    key: str
    attempt: int
    viewer: bool
    memory_mb: int

    @property
    def began(self) -> int:
        """Clock ticks since the machine started."""
        return int(self.native_id.partition(":")[2])


class LocalScheduler:
    """See `Scheduler`.

    :param work_dir: folder of the attempts; made if it is not there.
    :param environment: of the programs; None: what `clean_environment` keeps of our own.
    """

    def __init__(
        self,
        work_dir: str | Path,
        *,
        limits: LocalLimits | None = None,
        environment: Mapping[str, str] | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        log_mb: int = LOG_MB,
    ) -> None:
        self._work_dir = checked_work_dir(str(work_dir))
        self._limits = limits or LocalLimits()
        self._environment = environment
        self._heartbeat_s = heartbeat_s
        self._log_mb = log_mb
        self._one_at_a_time = asyncio.Lock()

    async def submit(self, submission: Submission) -> str:
        """See `Scheduler`."""
        async with self._one_at_a_time:
            running = await asyncio.to_thread(running_below, self._work_dir)
            self._make_room(submission, running)
            folder = await asyncio.to_thread(self._write, submission)
            return await self._start(folder, submission)

    def _make_room(self, submission: Submission, running: Sequence[_Running]) -> None:
        limits, wanted = self._limits, submission.resources.memory_mb or 0
        viewer = submission.kind == "viewer"
        most = limits.viewers if viewer else limits.jobs
        number = sum(1 for one in running if one.viewer == viewer)
        if number >= most:
            what = "viewers" if viewer else "jobs"
            reason = f"{number} {what} run on this machine, and {most} may"
            raise SubmitRefused(reason, permanent=False, pressure=True)
        if limits.memory_mb is None:
            return
        if wanted > limits.memory_mb:
            reason = f"{wanted} MB are asked for, and this machine gives {limits.memory_mb} MB"
            raise SubmitRefused(reason, permanent=True)
        taken = sum(one.memory_mb for one in running)
        if taken + wanted > limits.memory_mb:
            reason = f"{wanted} MB are asked for, {taken} of {limits.memory_mb} MB are taken"
            raise SubmitRefused(reason, permanent=False, pressure=True)

    def _write(self, submission: Submission) -> Path:
        folder = Path(folder_of(self._work_dir, submission.key, submission.attempt))
        try:
            Path(self._work_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = specification(submission, self._heartbeat_s, self._log_mb).decode()
            job_wrapper.write_whole(folder / "spec.json", text)
            (folder / "viewer").touch() if submission.kind == "viewer" else None
        except OSError as error:
            raise _folder_error(error) from None
        return folder

    async def _start(self, folder: Path, submission: Submission) -> str:
        environment = self._environment
        if environment is None:
            display = submission.kind == "viewer"
            environment = clean_environment(os.environ, display=display)
        argv = [sys.executable, "-I", "-S", str(job_wrapper.__file__), "start", str(folder)]
        done = await run_program(argv, within=START_S, environment=environment)
        native_id = done.stdout.decode(errors="replace").strip()
        if done.exit_status != 0 or not native_id:
            said = done.stderr.decode(errors="replace").strip()
            reason = f"the job wrapper did not start: {said[-500:]}"
            raise TransportError(reason, doubtful=True, fault=Fault.ANSWER)
        return native_id

    async def find(self, keys: Sequence[str]) -> dict[str, list[Found]]:
        """See `Scheduler`. A process that ended is known by its record."""
        return await asyncio.to_thread(self._find, keys)

    def _find(self, keys: Sequence[str]) -> dict[str, list[Found]]:
        running = {(one.key, one.attempt): one for one in running_below(self._work_dir)}
        found: dict[str, list[Found]] = {}
        for key in keys:
            folders = Path(folder_of(self._work_dir, key, 1)).parent.glob("[1-9]*")
            attempts = sorted(int(folder.name) for folder in folders if folder.name.isdigit())
            states = (self._found(key, number, running.get((key, number))) for number in attempts)
            found[key] = [state for state in states if state is not None]
        return found

    def _found(self, key: str, attempt: int, lives: _Running | None) -> Found | None:
        if lives is not None:
            return _alive(lives)
        (seen,) = job_report.look(self._work_dir, [[key, attempt]])
        record = observation(key, attempt, None, seen).record
        if record is None:
            return None
        return Found(
            native_id=record.native_id,
            attempt=attempt,
            state=record.state,
            reason=record.detail,
        )

    async def poll(self, attempts: Sequence[AttemptRef]) -> dict[tuple[str, int], Observation]:
        """See `Scheduler`."""
        return await asyncio.to_thread(self._poll, attempts)

    def _poll(self, attempts: Sequence[AttemptRef]) -> dict[tuple[str, int], Observation]:
        # First who lives, then who has a record: whoever ends in between is not gone.
        running = {(one.key, one.attempt): one for one in running_below(self._work_dir)}
        try:
            seen = job_report.look(self._work_dir, [[key, number] for key, number, _ in attempts])
        except (OSError, ValueError) as error:
            raise _folder_error(error) from None
        observations = {}
        for (key, number, _), one in zip(attempts, seen, strict=True):
            lives = running.get((key, number))
            found = _alive(lives) if lives else None
            observations[key, number] = observation(key, number, found, one)
        return observations

    async def cancel(self, key: str, attempt: int) -> None:
        """See `Scheduler`."""
        await asyncio.to_thread(self._cancel, key, attempt)

    def _cancel(self, key: str, attempt: int) -> None:
        folder = Path(folder_of(self._work_dir, key, attempt))
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "cancel").touch()
        except OSError as error:
            raise _folder_error(error) from None
        for one in running_below(self._work_dir):
            if (one.key, one.attempt) == (key, attempt):
                _end(one)

    async def logs(self, key: str, attempt: int, limit: int) -> tuple[str, str]:
        """See `Scheduler`."""
        try:
            out, err = await asyncio.to_thread(
                job_report.logs, self._work_dir, [key, attempt], limit
            )
        except OSError as error:
            raise _folder_error(error) from None
        return out, err

    async def expected_start(self, submission: Submission) -> float | None:
        """See `Scheduler`: now, or not known."""
        running = await asyncio.to_thread(running_below, self._work_dir)
        try:
            self._make_room(submission, running)
        except SubmitRefused as refused:
            if refused.permanent:
                raise
            return None
        return time.time()

    async def close(self) -> None:
        """See `Scheduler`."""


def _alive(one: _Running) -> Found:
    return Found(native_id=one.native_id, attempt=one.attempt, state=JobState.RUNNING)


def _folder_error(error: Exception) -> TransportError:
    return TransportError(f"the working folder: {error}", doubtful=False, fault=Fault.FOLDER)


def _end(one: _Running) -> None:
    """SIGTERM to a wrapper, and to no other process that got its number meanwhile."""
    with contextlib.suppress(OSError):
        watched = os.pidfd_open(one.pid)
        try:
            if job_wrapper.process_id(one.pid) == one.native_id:
                signal.pidfd_send_signal(watched, signal.SIGTERM)
        finally:
            os.close(watched)


def running_below(work_dir: str) -> list[_Running]:
    """The wrappers on this machine that carry out attempts below a working folder."""
    below = Path(work_dir).absolute()
    found: dict[Path, _Running] = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")[:-1]
            if len(words) < 3 or words[-2] != b"run" or not words[-3].endswith(b"job_wrapper.py"):
                continue
            folder = Path(os.fsdecode(words[-1]))
            where = job_wrapper.WHERE.search(str(folder))
            if where is not None and folder.parents[2] == below:
                one = _running_in(int(path.parent.name), folder)
                # A child that has not become the program yet looks the same, and is younger.
                found[folder] = min(found.get(folder, one), one, key=lambda one: one.began)
        except (OSError, IndexError, ValueError):
            continue  # it ended meanwhile
    return list(found.values())


def _running_in(pid: int, folder: Path) -> _Running:
    spec = json.loads((folder / "spec.json").read_bytes())
    return _Running(
        pid=pid,
        native_id=job_wrapper.process_id(pid),
        key=folder.parent.name,
        attempt=int(folder.name),
        viewer=(folder / "viewer").exists(),
        memory_mb=int(spec.get("memory_mb") or 0),
    )
