"""What is seen of a focus scan: its runs, and the jobs that reduce them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["HEAD", "FocusRun", "FocusRuns", "waiting_told"]

Say = Callable[[str], None]
HEAD = "  count  focus (mm)  width (px)  job               ran on"
# A blank line of the table, up to where a run's job stands.
INDENT = " " * 33


@dataclass
class FocusRun:
    """A run of the scan.

    :ivar position: of the focus stage, mm.
    :ivar numbers: x, y and width of the spot, in pixels, once a job has found them.
    :ivar job: key of that job.
    :ivar where: target and host of it.
    :ivar frames: the camera's file.
    """

    uid: str
    count: int
    position: float = float("nan")
    numbers: Mapping[str, float] = field(default_factory=dict)
    job: str = ""
    where: str = ""
    frames: Path | None = None

    @property
    def row(self) -> str:
        """A row of the table."""
        width = self.numbers.get("width", float("nan"))
        about = f"{self.job[:16] or '-':16}  {self.where or '-'}"
        return f"  {self.count:>5}  {self.position:>10.3f}  {width:>10.3f}  {about}"


class FocusRuns:
    """The runs of a scan, each told as soon as its job is known.

    :ivar stop_reason: why there was no further point.
    :param key: data key of the focus stage.
    :param jobs: batch_id -> its jobs, as `JobRecord`s.
    """

    def __init__(self, key: str, jobs: Callable[[str], list[Any]], say: Say) -> None:
        self.batch_id = self.stop_reason = ""
        self.runs: list[FocusRun] = []
        self._key, self._jobs, self._say = key, jobs, say
        self._told = 0

    def document(self, name: str, doc: Mapping[str, Any]) -> None:
        """A document of a run, from the RunEngine."""
        if name == "start":
            # The next point was decided: what it was decided by is there.
            self.tell()
            self.batch_id = doc["batch_id"]
            self.runs.append(FocusRun(doc["uid"], doc["batch_count"]))
        elif name == "resource":
            self.runs[-1].frames = Path(doc["root"]) / doc["resource_path"]
        elif name == "event":
            self.runs[-1].position = float(doc["data"][self._key])

    def tell(self) -> None:
        """A row for each run that has none, with what its job found."""
        new = self.runs[self._told :]
        if not new:
            return
        jobs = {job.subject.run: job for job in self._jobs(self.batch_id)}
        for run in new:
            if (job := jobs.get(run.uid)) is not None:
                record = job.attempt.record
                host = "" if record is None else f" ({record.host})"
                run.job, run.numbers = job.key, job.numbers
                run.where = f"{job.place.target}{host}"
            self._say(run.row)
        self._told = len(self.runs)

    @property
    def reduced(self) -> list[FocusRun]:
        """The runs of which the width is known."""
        return [run for run in self.runs if "width" in run.numbers]


@contextmanager
def waiting_told(say: Say) -> Iterator[None]:
    """Say what plans wait for, as they tell their logger."""
    logger, handler = logging.getLogger("bluesky_plugins.plans"), WaitingFor(say)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


class WaitingFor(logging.Handler):
    """Lines below the table's last row."""

    def __init__(self, say: Say) -> None:
        super().__init__(logging.INFO)
        self._tell = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say one."""
        text = record.getMessage()
        _, _, waiting = text.partition(" waits for ")
        # The row below names the run, and the job's own words are for those who ask for them.
        _, _, where = waiting.partition(": ")
        short, _, _ = (where or waiting).partition(": ")
        self._tell(f"{INDENT}waits for {short}" if waiting else text)
