"""Which waiting jobs go to their targets now, and why the others wait on.

Per target the line moves in the order in which jobs were accepted. A target that took nothing
when it was last asked is asked with one job at a time, so that one that is down is not asked
by all that wait for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bluesky_plugins.processing.job import JobRecord
from bluesky_plugins.processing.model import JobState

__all__ = ["Admission", "admissions"]

WAITING = frozenset({JobState.ACCEPTED, JobState.DEFERRED})
UNDER_WAY = frozenset({JobState.SUBMITTING, JobState.QUEUED, JobState.RUNNING})


@dataclass(frozen=True, slots=True)
class Admission:
    """About one waiting job: it may go, or it is held for a reason."""

    key: str
    held: str | None = None


def admissions(jobs: Iterable[JobRecord], limits: Mapping[str, int], now: float) -> list[Admission]:
    """What the waiting jobs may do, in their order.

    :param jobs: all that have not ended, in any order.
    :param limits: target -> largest number of its jobs under way; a target that is not named
        has no limit.
    :param now: seconds since the epoch.
    """
    live = sorted(jobs, key=lambda job: (job.accepted, job.key))
    under_way = Counter(job.place.target for job in live if job.state in UNDER_WAY)
    # Why a target takes no more in this round.
    closed: dict[str, str] = {
        job.place.target: f"{job.place.target} is being asked again, with one job"
        for job in live
        if job.state is JobState.SUBMITTING and job.attempt.refusals > 0
    }
    verdicts: list[Admission] = []
    for job in live:
        if job.state in WAITING:
            held = _held(job, under_way, limits, closed, now)
            verdicts.append(Admission(job.key, held))
            if held is None:
                under_way[job.place.target] += 1
    return verdicts


def _held(
    job: JobRecord,
    under_way: Counter[str],
    limits: Mapping[str, int],
    closed: dict[str, str],
    now: float,
) -> str | None:
    target, attempt = job.place.target, job.attempt
    refused = attempt.refusals > 0
    limit = limits.get(target)
    if target in closed:
        # What the target itself said stays the reason of a job that it said it to.
        return attempt.reason if refused else closed[target]
    if limit is not None and under_way[target] >= limit:
        closed[target] = f"{target} has {limit} jobs under way, which is its limit"
        return closed[target]
    if refused:
        closed[target] = f"{target} takes nothing at present: {attempt.reason}"
        return attempt.reason if now < attempt.not_before else None
    return None
