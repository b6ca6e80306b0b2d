"""Which waiting jobs go to their targets now, and why the others wait on.

Per target the line moves in the order in which jobs were accepted. A target that took nothing
when it was last asked is asked with one job at a time, so that one that is down is not asked
by all that wait for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bluesky_plugins.processing.jobs.job import JobRecord
from bluesky_plugins.processing.model import JobState

__all__ = ["Admission", "admissions", "line_of"]

WAITING = frozenset({JobState.ACCEPTED, JobState.DEFERRED})
# Submissions to a target at a time: polls and cancellations must not wait behind a thousand of
# them, nor they themselves for so long that they are doubtful.
AT_ONCE = 6
UNDER_WAY = frozenset({JobState.SUBMITTING, JobState.QUEUED, JobState.RUNNING})


@dataclass(frozen=True, slots=True)
class Admission:
    """About one waiting job: it may go, or it is held for a reason."""

    key: str
    held: str | None = None


def line_of(job: JobRecord) -> str:
    """In which line a job waits: its target's, and for viewers one of their own."""
    target = job.place.target
    return f"{target} (viewers)" if job.kind == "viewer" else target


def _what(job: JobRecord) -> str:
    return "viewers" if job.kind == "viewer" else "jobs"


def admissions(jobs: Iterable[JobRecord], limits: Mapping[str, int], now: float) -> list[Admission]:
    """What the waiting jobs may do, in their order; of one whose turn comes soon, nothing.

    :param jobs: all that have not ended, in any order.
    :param limits: line -> largest number of its jobs under way; one that is not named has no
        limit. See `line_of`.
    :param now: seconds since the epoch.
    """
    live = sorted(jobs, key=lambda job: (job.accepted, job.key))
    under_way = Counter(line_of(job) for job in live if job.state in UNDER_WAY)
    # Why a line does not move on in this round.
    asked = {
        line_of(job): f"{job.place.target} is being asked again, with one job"
        for job in live
        if job.state is JobState.SUBMITTING and job.attempt.refusals > 0
    }
    closed = dict(asked)
    submitting = Counter(job.place.target for job in live if _is_being_given(job))
    verdicts: list[Admission] = []
    for job in live:
        if job.state in WAITING:
            held = _held(job, under_way, limits, closed, now)
            if held is not None and held == asked.get(line_of(job)):
                # One that waits already is told nothing new by that, however often it happens.
                held = job.reason if job.state is JobState.DEFERRED else held
            if held is None:
                if submitting[job.place.target] >= AT_ONCE:
                    continue
                submitting[job.place.target] += 1
                under_way[line_of(job)] += 1
            verdicts.append(Admission(job.key, held))
    return verdicts


def _is_being_given(job: JobRecord) -> bool:
    return job.state is JobState.SUBMITTING and job.attempt.doubt is None


def _held(
    job: JobRecord,
    under_way: Counter[str],
    limits: Mapping[str, int],
    closed: dict[str, str],
    now: float,
) -> str | None:
    line, target, attempt = line_of(job), job.place.target, job.attempt
    refused = attempt.refusals > 0
    limit = limits.get(line)
    if line in closed:
        # What the target itself said stays the reason of a job that it said it to.
        return attempt.reason if refused else closed[line]
    if limit is not None and under_way[line] >= limit:
        closed[line] = f"{target} has {limit} {_what(job)} under way, which is its limit"
        return closed[line]
    if refused:
        closed[line] = f"{target} takes nothing at present: {attempt.reason}"
        return attempt.reason if now < attempt.not_before else None
    return None
