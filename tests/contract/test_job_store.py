"""One suite for the store of jobs: in memory, on mongomock, the embedded server, a real one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mongomock
import pytest

from bluesky_plugins.processing import JobRecord, JobStore, accept
from bluesky_plugins.processing.jobs.events import Admitted, CancelRequested
from bluesky_plugins.processing.jobs.job import Subject
from bluesky_plugins.processing.jobs.machine import Rules, step
from bluesky_plugins.processing.service.requests import Post, PostKind
from bluesky_plugins.processing.service.store import MongoJobStore, StoreDownError, UnstorableError
from bluesky_plugins.settings import Settings
from bluesky_plugins.testing import MemoryJobStore
from bluesky_plugins.testing.jobs import unaccepted

# The servers may have to start first, side by side with those of other tests.
pytestmark = [pytest.mark.contract, pytest.mark.timeout(240)]
SECONDS = 30.0
RULES = Rules()


@pytest.fixture(params=["memory", "mock", "embedded", "facility"])
def store(
    request: pytest.FixtureRequest, make_settings: Callable[..., Settings]
) -> Iterator[JobStore]:
    if request.param == "memory":
        yield MemoryJobStore()
        return
    mock = request.param == "mock"
    uri = "mongodb://nowhere" if mock else request.getfixturevalue(f"{request.param}_mongo")
    unused = {"redis": {"url": "redis://nowhere"}, "kafka": {"bootstrap_servers": "nowhere:1"}}
    settings = make_settings(mongo={"uri": uri}, **unused)
    client: Any = mongomock.MongoClient() if mock else None
    real = MongoJobStore.from_settings
    made = MongoJobStore(client, settings) if mock else real(settings, SECONDS)
    made.prepare()
    made.prepare()
    yield made
    made.close()


def job(run: str = "run", **changes: Any) -> JobRecord:
    return accept(unaccepted(subject=Subject(run=run), **changes))


def cancelled(one: JobRecord) -> JobRecord:
    return step(RULES, one, CancelRequested(time=1001.0, by="me"))[0]


def announced(one: JobRecord) -> JobRecord:
    return one.model_copy(update={"announced": len(one.history), "revision": one.revision + 1})


def post(key: str, uid: str = "p", **changes: Any) -> Post:
    return Post(uid=uid, key=key, kind=changes.pop("kind", PostKind.CANCEL), time=1.0, **changes)


def test_a_job_is_stored_once_and_comes_back_whole(store: JobStore) -> None:
    one = job(parameters={"threshold": 3.5, "names": ["a", "b"], "deep": True})
    assert store.accept(one)
    assert not store.accept(one.model_copy(update={"because": "another"}))
    assert store.job(one.key) == one


def test_only_the_next_of_the_known_revision_is_written(store: JobStore) -> None:
    one = job()
    store.accept(one)
    mine = step(RULES, one, Admitted(time=1001.0))[0]
    other = cancelled(one)
    assert mine.revision == other.revision == one.revision + 1
    assert store.write(mine, one.revision)
    assert not store.write(other, one.revision)
    assert store.job(one.key) == mine


def test_a_write_whose_answer_was_lost_may_be_repeated(store: JobStore) -> None:
    one = job()
    store.accept(one)
    then = cancelled(one)
    assert store.write(then, one.revision)
    assert store.write(then, one.revision)


def test_a_job_is_found_by_the_beginning_of_its_key(store: JobStore) -> None:
    one = job()
    store.accept(one)
    assert store.job(one.key[:8]) == one
    assert store.job("0" * 64) is None
    assert store.job(one.key[:4]) is None
    assert store.job(".*.*.*.*") is None


def test_active_are_those_with_something_to_do_in_their_order(store: JobStore) -> None:
    late, early, done = job("a", time=1010.0), job("b", time=1001.0), job("c")
    for one in (late, early, done):
        store.accept(one)
    ended = cancelled(done)
    store.write(ended, done.revision)
    store.write(announced(ended), ended.revision)
    assert [one.key for one in store.active(1e9)] == [early.key, late.key]


def test_jobs_are_found_by_what_they_are_about(store: JobStore) -> None:
    first, second = job("a", time=1001.0), job("b", time=1002.0)
    store.accept(first)
    store.accept(second)
    assert store.find({}, limit=1) == (2, [second])
    assert store.find({}, limit=5, skip=1) == (2, [first])
    assert store.find({"run": "a"}, limit=5) == (1, [first])
    assert store.find({"state": "failed"}, limit=5) == (0, [])


def test_what_is_asked_stays_until_it_is_done_and_is_done_once(store: JobStore) -> None:
    one = job()
    store.accept(one)
    assert store.post(post(one.key))
    assert store.post(post(one.key, by="again"))
    assert list(store.posts()) == [post(one.key)]
    assert store.write(cancelled(one), one.revision, "p")
    store.settle("p")
    assert list(store.posts()) == []
    assert not store.post(post(one.key))
    assert store.post(post(one.key, uid="q"))


def test_one_has_the_lease_until_it_runs_out(store: JobStore) -> None:
    assert store.lease("a", 100.0, 10.0)
    assert store.lease("a", 105.0, 10.0)
    assert not store.lease("b", 114.0, 10.0)
    assert store.lease("b", 116.0, 10.0)
    assert not store.lease("a", 117.0, 10.0)
    store.release("a")
    assert not store.lease("a", 118.0, 10.0)
    store.release("b")
    assert store.lease("a", 119.0, 10.0)


def test_a_job_that_another_version_wrote_keeps_no_other_from_being_read(
    make_settings: Callable[..., Settings],
) -> None:
    unused = {"redis": {"url": "redis://nowhere"}, "kafka": {"bootstrap_servers": "nowhere:1"}}
    settings = make_settings(mongo={"uri": "mongodb://nowhere"}, **unused)
    client: Any = mongomock.MongoClient()
    store = MongoJobStore(client, settings)
    good, other = job(), job("other")
    store.accept(good)
    store.accept(other)
    jobs = client[settings.database("plugins")]["jobs"]
    jobs.update_one({"_id": other.key}, {"$set": {"job.flavour": "strange"}})
    assert [one.key for one in store.active(0.0)] == [good.key]
    assert "flavour" in store.unreadable()[other.key]
    total, found = store.find({}, limit=10)
    assert (total, [one.key for one in found]) == (2, [good.key])


def test_a_job_that_can_never_be_stored_is_said_to_be(
    make_settings: Callable[..., Settings], embedded_mongo: str
) -> None:
    unused = {"redis": {"url": "redis://nowhere"}, "kafka": {"bootstrap_servers": "nowhere:1"}}
    settings = make_settings(mongo={"uri": embedded_mongo}, **unused)
    store = MongoJobStore.from_settings(settings, SECONDS)
    with pytest.raises(UnstorableError):
        store.accept(job(parameters={"huge": 2**70}))
    store.close()


def test_a_store_that_does_not_answer_is_said_to_be_down(
    make_settings: Callable[..., Settings],
) -> None:
    unused = {"redis": {"url": "redis://nowhere"}, "kafka": {"bootstrap_servers": "nowhere:1"}}
    nowhere = make_settings(mongo={"uri": "mongodb://127.0.0.1:1"}, **unused)
    store = MongoJobStore.from_settings(nowhere, timeout=0.1)
    with pytest.raises(StoreDownError):
        store.active(0.0)
    store.close()
