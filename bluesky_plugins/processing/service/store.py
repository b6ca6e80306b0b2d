"""Jobs in MongoDB, what people ask of them, and the lease of who drives them.

Every write may be repeated. A job is written by one process at a time: whoever finds another
revision than the one it knows has lost it. Nothing here needs more than what each server of the
three ways to run can do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import structlog
from bson.errors import InvalidDocument
from pydantic import ValidationError
from pymongo import ASCENDING, DESCENDING, MongoClient
from pymongo.collection import Collection
from pymongo.errors import DuplicateKeyError, PyMongoError

from bluesky_plugins.processing.jobs.job import JobRecord
from bluesky_plugins.processing.jobs.keeping import active_until
from bluesky_plugins.processing.jobs.machine import Rules
from bluesky_plugins.processing.service.requests import Post
from bluesky_plugins.settings import Settings

__all__ = ["JobStore", "MongoJobStore", "StoreDownError", "UnstorableError"]

log = structlog.get_logger(__name__)
LEASE = "processing"
# Of the requests that were carried out, for those that come again.
APPLIED = 50
Record = dict[str, Any]


class StoreDownError(Exception):
    """The store does not answer; what was asked may have been done."""


class UnstorableError(ValueError):
    """A job that the store can never hold."""


class JobStore(Protocol):
    """The memory of processing.

    All methods raise `StoreDownError` if the store does not answer; times are in seconds since
    the epoch.
    """

    def prepare(self) -> None:
        """Make it ready; may be repeated."""
        ...

    def accept(self, job: JobRecord) -> bool:
        """Store a new job; False if its key is known.

        :raises UnstorableError: if it can never be stored.
        """
        ...

    def write(self, job: JobRecord, known: int, applied: str | None = None) -> bool:
        """Store the next revision of a job.

        :param known: the revision that it replaces.
        :param applied: uid of the request that it comes from.
        :returns: False if another revision is stored: the job is another process's now.
        :raises UnstorableError: if it can never be stored.
        """
        ...

    def job(self, key: str) -> JobRecord | None:
        """A job by its key, or by the beginning of it where that is one job's only.

        :raises ValueError: if several begin so.
        """
        ...

    def active(self, now: float) -> list[JobRecord]:
        """The jobs that somebody has to care for, in the order of their acceptance.

        Those that cannot be read are left out; see `unreadable`.
        """
        ...

    def unreadable(self) -> dict[str, str]:
        """Of the jobs that were last asked for as active: who cannot be read -> why."""
        ...

    def find(
        self, query: Mapping[str, str], *, limit: int, skip: int = 0
    ) -> tuple[int, list[JobRecord]]:
        """How many jobs there are, and one page of them, the newest first.

        :param query: of `state`, `recipe`, `run`, `batch_id`: value.
        """
        ...

    def post(self, post: Post) -> bool:
        """Keep what is asked of a job until it is done; False if it was done before."""
        ...

    def posts(self) -> Sequence[Post]:
        """What is asked and not done, in the order in which it was asked."""
        ...

    def settle(self, uid: str) -> None:
        """What was asked is done."""
        ...

    def lease(self, owner: str, now: float, seconds: float) -> bool:
        """Take, or keep, the lease until `now + seconds`; False while another has it."""
        ...

    def release(self, owner: str) -> None:
        """Give the lease back."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except PyMongoError as error:
        raise StoreDownError(str(error).split(", Timeout", 1)[0]) from error


def _record(job: JobRecord, rules: Rules) -> Record:
    record = {
        "key": job.key,
        "revision": job.revision,
        "active_until": active_until(rules, job),
        "state": job.state.value,
        "recipe": job.recipe,
        "run": job.subject.run,
        "batch_id": job.subject.batch_id,
        "accepted": job.accepted,
        "job": job.model_dump(mode="json"),
    }
    return record


@contextmanager
def _storable() -> Iterator[None]:
    try:
        yield
    except (InvalidDocument, OverflowError, UnicodeError) as error:
        raise UnstorableError(str(error)) from None


class MongoJobStore:
    """See `JobStore`.

    :param client: a pymongo client, or one that behaves so.
    """

    def __init__(
        self, client: MongoClient[Record], settings: Settings, rules: Rules | None = None
    ) -> None:
        self._client = client
        self._rules = rules or Rules()
        database = client[settings.database("plugins")]
        self._jobs: Collection[Record] = database["jobs"]
        self._posts: Collection[Record] = database["job_posts"]
        self._leases: Collection[Record] = database["leases"]
        self._unreadable: dict[str, str] = {}

    @classmethod
    def from_settings(
        cls, settings: Settings, timeout: float = 2.0, rules: Rules | None = None
    ) -> MongoJobStore:
        """The store that the settings name.

        :param timeout: an operation fails after this, s.
        """
        milliseconds = int(timeout * 1000)
        client: MongoClient[Record] = MongoClient(
            settings.mongo.address,
            serverSelectionTimeoutMS=milliseconds,
            connectTimeoutMS=milliseconds,
            socketTimeoutMS=10 * milliseconds,
            retryWrites=False,
            appname="bluesky-plugins",
        )
        return cls(client, settings, rules)

    def prepare(self) -> None:
        """See `JobStore`."""
        with _answers():
            self._jobs.create_index([("key", ASCENDING)], unique=True)
            for field in ("active_until", "run", "batch_id"):
                self._jobs.create_index([(field, ASCENDING)])
            self._jobs.create_index([("accepted", DESCENDING)])

    def accept(self, job: JobRecord) -> bool:
        """See `JobStore`."""
        try:
            with _answers(), _storable():
                self._jobs.insert_one({"_id": job.key, **_record(job, self._rules)})
        except StoreDownError as error:
            if isinstance(error.__cause__, DuplicateKeyError):
                return False
            raise
        return True

    def write(self, job: JobRecord, known: int, applied: str | None = None) -> bool:
        """See `JobStore`."""
        change: Record = {"$set": _record(job, self._rules)}
        if applied is not None:
            change["$push"] = {"applied": {"$each": [applied], "$slice": -APPLIED}}
        with _answers(), _storable():
            done = self._jobs.update_one({"_id": job.key, "revision": known}, change)
            if done.matched_count:
                return True
            # An answer that was lost is no lost job.
            stored = self._jobs.find_one({"_id": job.key}, {"job": 1})
        return stored is not None and stored["job"] == job.model_dump(mode="json")

    def job(self, key: str) -> JobRecord | None:
        """See `JobStore`."""
        with _answers():
            found = self._jobs.find_one({"_id": key}, {"job": 1})
            if found is None and 6 <= len(key) < 64 and key.isalnum():
                # A range instead of a pattern: what a person types is never one.
                beginning = {"$gte": key, "$lt": key + "g"}
                several = list(self._jobs.find({"_id": beginning}, {"job": 1}).limit(2))
                if len(several) > 1:
                    raise ValueError(f"the keys of several jobs begin with {key}")
                found = several[0] if several else None
        return None if found is None else _job(found)

    def active(self, now: float) -> list[JobRecord]:
        """See `JobStore`."""
        with _answers():
            found = list(self._jobs.find({"active_until": {"$gt": now}}, {"job": 1}))
        jobs, self._unreadable = _readable(found)
        return sorted(jobs, key=lambda job: (job.accepted, job.key))

    def unreadable(self) -> dict[str, str]:
        """See `JobStore`."""
        return dict(self._unreadable)

    def find(
        self, query: Mapping[str, str], *, limit: int, skip: int = 0
    ) -> tuple[int, list[JobRecord]]:
        """See `JobStore`."""
        with _answers():
            total = self._jobs.count_documents(dict(query))
            cursor = self._jobs.find(dict(query), {"job": 1})
            page = cursor.sort([("accepted", DESCENDING), ("_id", ASCENDING)])
            found = list(page.skip(skip).limit(limit))
        jobs, unreadable = _readable(found)
        for key, reason in unreadable.items():
            log.error("a job cannot be read", key=key, reason=reason)
        return total, jobs

    def post(self, post: Post) -> bool:
        """See `JobStore`."""
        with _answers():
            if self._jobs.find_one({"_id": post.key, "applied": post.uid}, {"_id": 1}):
                return False
            try:
                self._posts.insert_one({"_id": post.uid, **post.model_dump(mode="json")})
            except DuplicateKeyError:
                return True
        return True

    def posts(self) -> Sequence[Post]:
        """See `JobStore`."""
        with _answers():
            found = [Post.model_validate(record) for record in self._posts.find({}, {"_id": 0})]
        return sorted(found, key=lambda post: (post.time, post.uid))

    def settle(self, uid: str) -> None:
        """See `JobStore`."""
        with _answers():
            self._posts.delete_one({"_id": uid})

    def lease(self, owner: str, now: float, seconds: float) -> bool:
        """See `JobStore`."""
        mine = {"owner": owner, "until": now + seconds}
        free = {"_id": LEASE, "$or": [{"owner": owner}, {"until": {"$lt": now}}]}
        with _answers():
            if self._leases.update_one(free, {"$set": mine}).matched_count:
                return True
            try:
                self._leases.insert_one({"_id": LEASE, **mine})
            except DuplicateKeyError:
                return False
        return True

    def release(self, owner: str) -> None:
        """See `JobStore`."""
        with _answers():
            self._leases.delete_one({"_id": LEASE, "owner": owner})

    def close(self) -> None:
        """See `JobStore`."""
        self._client.close()


def _job(record: Record) -> JobRecord:
    return JobRecord.model_validate(record["job"])


def _readable(records: Sequence[Record]) -> tuple[list[JobRecord], dict[str, str]]:
    """The jobs, and of those that another version wrote: key -> what is wrong with them."""
    jobs, wrong = [], {}
    for record in records:
        try:
            jobs.append(_job(record))
        except (ValidationError, KeyError) as error:
            wrong[str(record["_id"])] = str(error)[:500]
    return jobs, wrong
