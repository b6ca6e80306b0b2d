"""Which jobs somebody has to care for, and until when."""

from __future__ import annotations

from bluesky_plugins.processing.jobs.attempts import Rules
from bluesky_plugins.processing.jobs.job import JobRecord
from bluesky_plugins.processing.jobs.machine import outstanding

__all__ = ["active_until"]

FOREVER = 1e18
NEVER = 0.0


def active_until(rules: Rules, job: JobRecord) -> float:
    """Until when a job is to be looked after, seconds since the epoch.

    For ever while there is something to do; where an attempt ended without a record, for the
    time in which that may still come.
    """
    if not job.state.final or job.retry is not None or outstanding(job)[1]:
        return FOREVER
    return max(
        (
            attempt.since + rules.late_s
            for attempt in job.attempts
            if attempt.submissions and attempt.record is None and attempt.late_record is None
        ),
        default=NEVER,
    )
