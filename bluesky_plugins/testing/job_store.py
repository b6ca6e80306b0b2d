"""A store of jobs in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from bluesky_plugins.processing.jobs.job import JobRecord
from bluesky_plugins.processing.jobs.keeping import active_until
from bluesky_plugins.processing.jobs.machine import Rules
from bluesky_plugins.processing.service.requests import Post
from bluesky_plugins.processing.service.store import StoreDownError

__all__ = ["MemoryJobStore"]


class MemoryJobStore:
    """A `JobStore` in memory. `down`: it does not answer."""

    def __init__(self, rules: Rules | None = None) -> None:
        self.down = False
        self._rules = rules or Rules()
        self._lock = threading.Lock()
        self._jobs: dict[str, JobRecord] = {}
        self._applied: set[tuple[str, str]] = set()
        self._posts: dict[str, Post] = {}
        self._lease: tuple[str, float] | None = None

    def _reach(self) -> None:
        if self.down:
            raise StoreDownError("nobody answers")

    def prepare(self) -> None:
        """See `JobStore`."""
        self._reach()

    def accept(self, job: JobRecord) -> bool:
        """See `JobStore`."""
        self._reach()
        with self._lock:
            return self._jobs.setdefault(job.key, job) is job

    def write(self, job: JobRecord, known: int, applied: str | None = None) -> bool:
        """See `JobStore`."""
        self._reach()
        with self._lock:
            stored = self._jobs.get(job.key)
            if stored is None or stored.revision != known:
                return stored == job
            self._jobs[job.key] = job
            if applied is not None:
                self._applied.add((job.key, applied))
            return True

    def job(self, key: str) -> JobRecord | None:
        """See `JobStore`."""
        self._reach()
        found = [job for known, job in self._jobs.items() if known.startswith(key)]
        if len(key) < 6 or len(found) > 1:
            if found and len(key) >= 6:
                raise ValueError(f"the keys of several jobs begin with {key}")
            return None
        return found[0] if found else None

    def active(self, now: float) -> list[JobRecord]:
        """See `JobStore`."""
        self._reach()
        jobs = [job for job in self._jobs.values() if active_until(self._rules, job) > now]
        return sorted(jobs, key=lambda job: (job.accepted, job.key))

    def unreadable(self) -> dict[str, str]:
        """See `JobStore`: in memory there are none."""
        return {}

    def find(
        self, query: Mapping[str, str], *, limit: int, skip: int = 0
    ) -> tuple[int, list[JobRecord]]:
        """See `JobStore`."""
        self._reach()
        found = [job for job in self._jobs.values() if query.items() <= _fields(job).items()]
        found.sort(key=lambda job: (-job.accepted, job.key))
        return len(found), found[skip : skip + limit]

    def post(self, post: Post) -> bool:
        """See `JobStore`."""
        self._reach()
        with self._lock:
            if (post.key, post.uid) in self._applied:
                return False
            self._posts.setdefault(post.uid, post)
            return True

    def posts(self) -> Sequence[Post]:
        """See `JobStore`."""
        self._reach()
        return sorted(self._posts.values(), key=lambda post: (post.time, post.uid))

    def settle(self, uid: str) -> None:
        """See `JobStore`."""
        self._reach()
        self._posts.pop(uid, None)

    def lease(self, owner: str, now: float, seconds: float) -> bool:
        """See `JobStore`."""
        self._reach()
        with self._lock:
            if self._lease is not None and self._lease[0] != owner and self._lease[1] >= now:
                return False
            self._lease = (owner, now + seconds)
            return True

    def release(self, owner: str) -> None:
        """See `JobStore`."""
        self._reach()
        if self._lease is not None and self._lease[0] == owner:
            self._lease = None

    def close(self) -> None:
        """See `JobStore`."""


def _fields(job: JobRecord) -> dict[str, str | None]:
    return {
        "state": job.state.value,
        "recipe": job.recipe,
        "run": job.subject.run,
        "batch_id": job.subject.batch_id,
    }
