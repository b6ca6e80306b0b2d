"""A target that carries nothing out: a test says what comes of each job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bluesky_plugins.processing.model import (
    EndReason,
    Found,
    JobState,
    Observation,
    ResultRecord,
    Submission,
)
from bluesky_plugins.processing.targets.ports import (
    AttemptRef,
    Fault,
    SubmitRefused,
    TransportError,
)

__all__ = ["FakeScheduler", "Outcome"]


@dataclass(frozen=True)
class Outcome:
    """How an attempt ends."""

    reason: EndReason = EndReason.EXITED
    exit_code: int | None = 0
    numbers: dict[str, float] = field(default_factory=dict)
    stdout: str = ""
    stderr: str = ""


@dataclass
class _Entry:
    native_id: str
    submission: Submission
    state: JobState
    duplicate: bool = False
    known: bool = True


class FakeScheduler:
    """A `Scheduler` in memory.

    `down`: it cannot be reached. `full`: it takes nothing for now. `refusal`: it takes nothing
    for ever. `foreseen`: when a job would start, s since the epoch. `lose_reply`: the next
    submission is taken, and the answer lost.

    :param outcome: what comes of a submission at once; None: it runs until `finish`.
    """

    def __init__(self, outcome: Callable[[Submission], Outcome | None] | None = None) -> None:
        self.down = False
        self.full = False
        self.refusal: str | None = None
        self.lose_reply = False
        self.foreseen: float | None = None
        self.clock = 1000.0
        self.submissions: list[Submission] = []
        self.starts: list[tuple[str, int]] = []
        self.cancelled: set[tuple[str, int]] = set()
        self.polls = 0
        self._outcome = outcome or (lambda submission: None)
        self._entries: list[_Entry] = []
        self._records: dict[tuple[str, int], ResultRecord] = {}

    async def submit(self, submission: Submission) -> str:
        """See `Scheduler`."""
        self._reach()
        if self.refusal is not None:
            raise SubmitRefused(self.refusal, permanent=True)
        if self.full:
            raise SubmitRefused("the queue is full", permanent=False, pressure=True)
        self.submissions.append(submission)
        ref = (submission.key, submission.attempt)
        entry = _Entry(str(len(self.submissions)), submission, JobState.RUNNING)
        entry.duplicate = ref in self.starts
        self._entries.append(entry)
        if entry.duplicate:
            entry.state = JobState.SUCCEEDED
        elif ref in self.cancelled:
            self._end(entry, Outcome(reason=EndReason.CANCELLED, exit_code=None))
        else:
            self.starts.append(ref)
            outcome = self._outcome(submission)
            if outcome is not None:
                self._end(entry, outcome)
        if self.lose_reply:
            self.lose_reply = False
            raise TransportError("the answer is lost", doubtful=True, fault=Fault.CUT)
        return entry.native_id

    def finish(self, key: str, outcome: Outcome | None = None) -> None:
        """End the attempts of a job that run, with a record."""
        for entry in self._of(key):
            if not entry.state.final:
                self._end(entry, outcome or Outcome())

    def lose(self, key: str) -> None:
        """Forget a job, and whatever it would have written."""
        for entry in self._of(key):
            entry.known = False

    def _of(self, key: str) -> list[_Entry]:
        return [entry for entry in self._entries if entry.submission.key == key]

    def _reach(self) -> None:
        if self.down:
            raise TransportError("nobody answers", doubtful=False, fault=Fault.REFUSED)

    def _end(self, entry: _Entry, outcome: Outcome) -> None:
        submission = entry.submission
        record = ResultRecord(
            key=submission.key,
            attempt=submission.attempt,
            reason=outcome.reason,
            exit_code=outcome.exit_code,
            host="fake",
            native_id=entry.native_id,
            started=self.clock,
            ended=self.clock,
            numbers=outcome.numbers,
            stdout=outcome.stdout,
            stderr=outcome.stderr,
        )
        self._records[submission.key, submission.attempt] = record
        entry.state = record.state

    async def find(self, keys: Sequence[str]) -> dict[str, list[Found]]:
        """See `Scheduler`."""
        self._reach()
        return {key: [_found(entry) for entry in self._of(key) if entry.known] for key in keys}

    async def poll(self, attempts: Sequence[AttemptRef]) -> dict[tuple[str, int], Observation]:
        """See `Scheduler`."""
        self._reach()
        self.polls += 1
        return {(key, number): self._observe(key, number) for key, number, _ in attempts}

    def _observe(self, key: str, number: int) -> Observation:
        entries = [entry for entry in self._of(key) if entry.submission.attempt == number]
        known = [_found(entry) for entry in entries if entry.known and not entry.duplicate]
        record = self._records.get((key, number))
        return Observation(
            found=known[-1] if known else None,
            heartbeat=0.0 if (key, number) in self.starts else None,
            record=record,
            gone=not known and record is None,
        )

    async def cancel(self, key: str, attempt: int) -> None:
        """See `Scheduler`."""
        self._reach()
        cancelled = Outcome(reason=EndReason.CANCELLED, exit_code=None)
        self.cancelled.add((key, attempt))
        for entry in self._of(key):
            if entry.submission.attempt == attempt and not entry.state.final:
                self._end(entry, cancelled)

    async def logs(self, key: str, attempt: int, limit: int) -> tuple[str, str]:
        """See `Scheduler`."""
        self._reach()
        record = self._records.get((key, attempt))
        return (record.stdout[-limit:], record.stderr[-limit:]) if record else ("", "")

    async def expected_start(self, submission: Submission) -> float | None:
        """See `Scheduler`."""
        self._reach()
        if self.refusal is not None:
            raise SubmitRefused(self.refusal, permanent=True)
        return None if self.full else self.foreseen or self.clock

    async def close(self) -> None:
        """See `Scheduler`."""


def _found(entry: _Entry) -> Found:
    attempt = entry.submission.attempt
    return Found(native_id=entry.native_id, attempt=attempt, state=entry.state)
