"""What has happened to jobs since this process began, in numbers."""

from __future__ import annotations

from collections import Counter

from bluesky_plugins.processing.jobs.job import JobRecord

__all__ = ["Tally"]


class Tally:
    """Counts that only grow; written by one thread, read by any.

    `ended`: (target, state) -> attempts. `asked`, `failed`: target -> queries, and those without
    an answer. `began`, `waited_s`: target -> attempts seen running, and the sum of their waits.
    """

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, str]] = Counter()
        self.asked: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.began: Counter[str] = Counter()
        self.waited_s: dict[str, float] = {}

    def query(self, target: str, *, failed: bool) -> None:
        """A target was asked how its jobs are."""
        self.asked[target] += 1
        self.failed[target] += failed

    def changed(self, old: JobRecord, new: JobRecord) -> None:
        """A job has come one step further."""
        for index, attempt in enumerate(new.attempts):
            before = old.attempts[index] if index < len(old.attempts) else None
            target = new.places[attempt.place].target
            if attempt.state.final and (before is None or not before.state.final):
                self.ended[target, attempt.state.value] += 1
            if attempt.started is not None and (before is None or before.started is None):
                self.began[target] += 1
                waited = max(0.0, attempt.started - attempt.created)
                self.waited_s[target] = self.waited_s.get(target, 0.0) + waited
