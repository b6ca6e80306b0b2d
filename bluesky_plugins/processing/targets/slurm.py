"""A target that is a Slurm cluster, reached by its commands here or over SSH."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bluesky_plugins.processing.model import Found, Observation, Submission, job_name
from bluesky_plugins.processing.targets import job_report, job_wrapper
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
    CommandRunner,
    Completed,
    Fault,
    SubmitRefused,
    TransportError,
)
from bluesky_plugins.processing.targets.slurm_commands import (
    NOT_THERE,
    QueueRow,
    Shipped,
    answer_of_cancel,
    answer_of_estimate,
    answer_of_queue,
    answer_of_submission,
    cancel_command,
    estimate_command,
    install_command,
    mark_command,
    queue_command,
    report_command,
    submit_command,
)

__all__ = ["REPORT", "WRAPPER", "SlurmScheduler", "entry_of"]

WRAPPER = Shipped("job_wrapper", Path(job_wrapper.__file__).read_bytes())
REPORT = Shipped("job_report", Path(job_report.__file__).read_bytes())


class SlurmScheduler:
    """See `Scheduler`.

    :param runner: by which Slurm's commands are run.
    :param work_dir: folder of the attempts, on a file system that all nodes share.
    :param python: Python 3.6 or later there, of the login host and the nodes.
    :param cluster: name of one of several clusters.
    :param patience_s: a command that is not done after this time is given up, s.
    """

    def __init__(
        self,
        runner: CommandRunner,
        work_dir: str,
        *,
        python: str = "python3",
        cluster: str | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        log_mb: int = LOG_MB,
        patience_s: float = 60.0,
    ) -> None:
        self._runner = runner
        self._work_dir = checked_work_dir(work_dir)
        self._python = python
        self._cluster = cluster
        self._heartbeat_s = heartbeat_s
        self._log_mb = log_mb
        self._patience_s = patience_s

    async def submit(self, submission: Submission) -> str:
        """See `Scheduler`."""
        if submission.kind == "viewer":
            raise SubmitRefused("a viewer needs a display, and Slurm has none", permanent=True)
        folder = folder_of(self._work_dir, submission.key, submission.attempt)
        text = specification(submission, self._heartbeat_s, self._log_mb)
        argv = submit_command(
            submission,
            spec=text,
            folder=folder,
            wrapper=WRAPPER,
            work_dir=self._work_dir,
            python=self._python,
            cluster=self._cluster,
        )
        return answer_of_submission(await self._run_with(WRAPPER, argv, text))

    async def find(self, keys: Sequence[str]) -> dict[str, list[Found]]:
        """See `Scheduler`."""
        rows = await self._queue()
        return {key: [row.found for row in rows if row.name == job_name(key)] for key in keys}

    async def poll(self, attempts: Sequence[AttemptRef]) -> dict[tuple[str, int], Observation]:
        """See `Scheduler`."""
        # First the queue, then the records: what ends in between is not gone.
        rows = await self._queue()
        seen = await self._ask({"look": [[key, number] for key, number, _ in attempts]})
        if not isinstance(seen, list) or len(seen) != len(attempts):
            raise TransportError("not as many answers as asked", doubtful=False, fault=Fault.ANSWER)
        named: dict[str, list[Found]] = {}
        for row in rows:
            named.setdefault(row.name, []).append(row.found)
        observations = {}
        for (key, number, native_id), one in zip(attempts, seen, strict=True):
            found = entry_of(named.get(job_name(key), []), number, native_id)
            observations[key, number] = observation(key, number, found, one)
        return observations

    async def cancel(self, key: str, attempt: int) -> None:
        """See `Scheduler`."""
        folder = folder_of(self._work_dir, key, attempt)
        rows = answer_of_queue(await self._run(mark_command(folder, self._cluster)))
        mine = (row.found for row in rows if row.name == job_name(key))
        ids = [one.native_id for one in mine if one.attempt == attempt and not one.state.final]
        if ids:
            answer_of_cancel(await self._run(cancel_command(ids, self._cluster)))

    async def logs(self, key: str, attempt: int, limit: int) -> tuple[str, str]:
        """See `Scheduler`."""
        out, err = await self._ask({"logs": [key, attempt], "limit": limit})
        return str(out), str(err)

    async def expected_start(self, submission: Submission) -> float | None:
        """See `Scheduler`."""
        return answer_of_estimate(await self._run(estimate_command(submission, self._cluster)))

    async def close(self) -> None:
        """See `Scheduler`."""
        await self._runner.close()

    # -- one command

    async def _run(self, argv: Sequence[str], stdin: bytes = b"") -> Completed:
        return await self._runner.run(argv, stdin=stdin, within=self._patience_s)

    async def _run_with(self, file: Shipped, argv: Sequence[str], stdin: bytes) -> Completed:
        """Run what needs a file of ours there; put it there when it is not, or is another."""
        done = await self._run(argv, stdin)
        if done.exit_status != NOT_THERE:
            return done
        put = await self._run(
            install_command(file, self._work_dir, make=file is WRAPPER), file.text
        )
        if put.exit_status == 0:
            done = await self._run(argv, stdin)
        if put.exit_status != 0 or done.exit_status == NOT_THERE:
            said = (put.stderr or done.stderr).decode(errors="replace").strip()
            reason = f"{file.path(self._work_dir)} cannot be put there: {said}"
            raise TransportError(reason, doubtful=False, fault=Fault.FOLDER)
        return done

    async def _queue(self) -> list[QueueRow]:
        return answer_of_queue(await self._run(queue_command(self._cluster)))

    async def _ask(self, question: dict[str, Any]) -> Any:
        text = json.dumps({"work_dir": self._work_dir, **question}).encode()
        argv = report_command(REPORT, self._work_dir, self._python)
        done = await self._run_with(REPORT, argv, text)
        said = done.stderr.decode(errors="replace").strip()[-1000:]
        if done.exit_status in (126, 127):
            raise TransportError(said, doubtful=False, fault=Fault.NO_PROGRAM)
        if done.exit_status != 0:
            raise TransportError(said, doubtful=False, fault=Fault.FOLDER)
        _, marked, answer = done.stdout.decode(errors="replace").rpartition(job_report.MARK)
        try:
            return json.loads(answer if marked else "")
        except ValueError:
            reason = f"the answer of {self._python} makes no sense: {said}"
            raise TransportError(reason, doubtful=False, fault=Fault.ANSWER) from None


def entry_of(named: list[Found], attempt: int, native_id: str | None) -> Found | None:
    """The queue's entry of an attempt. Slurm gives ids anew after a while, so the name counts.

    Of several it is one that lives, before those that have ended, and the last of them.
    """
    ours = [
        found
        for found in named
        if (found.attempt == attempt if native_id is None else found.native_id == native_id)
    ]
    return max(reversed(ours), key=lambda found: not found.state.final, default=None)
