"""The store of documents: the fake, the embedded server and a real MongoDB keep one promise."""

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pymongo
import pytest

from bluesky_plugins.recording import (
    COLLECTIONS,
    DocumentStore,
    InvalidDocumentError,
    MongoDocumentStore,
    Record,
    StoreDownError,
    StoreUnusableError,
    Written,
    records_of,
    same_content,
)
from bluesky_plugins.testing.recording import MemoryDocumentStore
from bluesky_plugins.testing.runs import composed_event, composed_run

# The servers may have to start first, side by side with those of other tests.
pytestmark = [pytest.mark.contract, pytest.mark.timeout(240)]

Content = Callable[[str], dict[str, dict[str, Any]]]


def fresh_database(uri: str) -> Iterator[Any]:
    with pymongo.MongoClient(uri) as client:
        yield client[f"t{uuid4().hex[:8]}-documents"]


@pytest.fixture(params=["fake", "embedded", "facility"])
def stored(request: pytest.FixtureRequest) -> Iterator[tuple[DocumentStore, Content]]:
    """A store, and what it holds of a kind of document, by key."""
    if request.param == "fake":
        fake = MemoryDocumentStore()
        yield fake, lambda name: fake.documents[name]
    else:
        uri = request.getfixturevalue(f"{request.param}_mongo")
        for database in fresh_database(uri):
            yield from stored_in(database, uri)


def stored_in(database: Any, uri: str) -> Iterator[tuple[DocumentStore, Content]]:
    # A client of its own: the store closes it.
    store = MongoDocumentStore(pymongo.MongoClient(uri), database.name)
    store.prepare()

    def content(name: str) -> dict[str, dict[str, Any]]:
        collection = COLLECTIONS[name]
        found = database[collection.name].find({}, {"_id": False})
        return {doc[collection.key]: doc for doc in found}

    yield store, content
    store.close()


def records(pairs: Any) -> list[Record]:
    return [record for name, doc in pairs for record in records_of(name, doc)]


Stored = tuple[DocumentStore, Content]


def test_a_run_is_stored_as_it_is(stored: Stored) -> None:
    store, content = stored
    pairs = composed_run(camera=True)
    assert store.write(records(pairs)) == Written(stored=len(pairs))
    for name, doc in pairs:
        assert content(name)[doc[COLLECTIONS[name].key]] == doc


def test_a_repeat_is_no_error(stored: Stored) -> None:
    store, content = stored
    pairs = composed_run(camera=True)
    store.write(records(pairs))
    assert store.write(records(pairs)) == Written(repeated=len(pairs))
    assert len(content("event")) == 3


def test_nan_repeats_too(stored: Stored) -> None:
    store, _ = stored
    event = composed_event(data={"x": float("nan"), "y": [float("inf")]})
    store.write(records([("event", event)]))
    assert store.write(records([("event", event)])) == Written(repeated=1)


def test_other_content_under_the_same_key_is_refused_and_the_first_stays(stored: Stored) -> None:
    store, content = stored
    event = composed_event()
    store.write(records([("event", event)]))
    other, new = {**event, "time": 2.0}, composed_event()
    written = store.write(records([("event", other), ("event", event), ("event", new)]))
    assert (written.stored, written.repeated) == (1, 1)
    assert [(r.record.key, r.reason) for r in written.refused] == [
        (event["uid"], f"uid {event['uid']} is stored with other content")
    ]
    assert content("event") == {event["uid"]: event, new["uid"]: new}


def test_other_content_is_found_inside_one_write(stored: Stored) -> None:
    store, content = stored
    event = composed_event()
    written = store.write(records([("event", event), ("event", {**event, "time": 2.0})]))
    assert written.stored == 1
    assert len(written.refused) == 1
    assert content("event") == {event["uid"]: event}


def test_a_second_stop_document_of_a_run_is_refused(stored: Stored) -> None:
    store, content = stored
    stop = {"uid": "1", "run_start": "r", "time": 1.0, "exit_status": "success"}
    written = store.write(records([("stop", stop), ("stop", {**stop, "uid": "2"})]))
    assert [r.reason for r in written.refused] == [
        "another stop document takes its place in the run"
    ]
    assert content("stop") == {"1": stop}


def test_many_writers_store_each_document_once(stored: Stored) -> None:
    store, content = stored
    events = [composed_event(uid=str(i)) for i in range(300)]
    results: list[Written] = []

    def write() -> None:
        results.append(store.write(records(("event", event) for event in events)))

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(r.stored for r in results) == 300
    assert sum(r.repeated for r in results) == 900
    assert len(content("event")) == 300


# -- MongoDB only ---------------------------------------------------------------------------


@pytest.fixture(params=["embedded", "facility"])
def uri(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_mongo")
    return found


@pytest.fixture
def database(uri: str) -> Iterator[Any]:
    yield from fresh_database(uri)


@pytest.fixture
def unprepared(uri: str, database: Any) -> Iterator[MongoDocumentStore]:
    store = MongoDocumentStore(pymongo.MongoClient(uri), database.name)
    yield store
    store.close()


@pytest.fixture
def store(unprepared: MongoDocumentStore) -> MongoDocumentStore:
    unprepared.prepare()
    return unprepared


def test_the_unique_indexes_are_there_and_no_text_index(
    store: MongoDocumentStore, database: Any
) -> None:
    store.prepare()
    for collection in COLLECTIONS.values():
        indexes = list(database[collection.name].list_indexes())
        unique = {tuple(index["key"]) for index in indexes if index.get("unique")}
        assert (collection.key,) in unique
        assert not any("text" in index["key"].values() for index in indexes)
    stop_indexes = [tuple(i["key"]) for i in database.run_stop.list_indexes() if i.get("unique")]
    assert ("run_start",) in stop_indexes


def test_a_document_that_only_the_server_refuses_leaves_the_others_alone(
    store: MongoDocumentStore, database: Any
) -> None:
    # MongoDB's validation stands in for whatever a server may object to.
    bad, good = composed_event(uid="bad"), composed_event(uid="good")
    original = store._insert

    def insert(name: str, batch: Any) -> Any:
        if any(record.key == "bad" for record in batch):
            raise pymongo.errors.OperationFailure("cannot take it", 8)
        return original(name, batch)

    store._insert = insert  # type: ignore[method-assign]
    written = store.write(records([("event", bad), ("event", good)]))
    assert written.stored == 1
    assert [r.record.key for r in written.refused] == ["bad"]
    assert [doc["uid"] for doc in database.event.find()] == ["good"]


def test_a_server_that_refuses_everything_is_down_not_the_document_bad(
    store: MongoDocumentStore,
) -> None:
    def insert(name: str, batch: Any) -> Any:
        raise pymongo.errors.OperationFailure("disk full", 14031)

    store._insert = insert  # type: ignore[method-assign]
    store._database = pymongo.MongoClient(  # the probe cannot be written either
        "mongodb://127.0.0.1:9", serverSelectionTimeoutMS=50
    )["x"]
    with pytest.raises(StoreDownError):
        store.write(records([("event", composed_event())]))
    store._database.client.close()


def test_a_server_that_is_not_there_is_down() -> None:
    client: Any = pymongo.MongoClient("mongodb://127.0.0.1:9", serverSelectionTimeoutMS=50)
    store = MongoDocumentStore(client, "x")
    with pytest.raises(StoreDownError):
        store.prepare()
    with pytest.raises(StoreDownError):
        store.write(records([("event", composed_event())]))
    store.close()


def test_documents_up_to_the_limit_are_stored(store: MongoDocumentStore, database: Any) -> None:
    event = composed_event(data={"x": "a" * 15_000_000})
    assert store.write(records([("event", event)])).stored == 1
    assert same_content(database.event.find_one({}, {"_id": False}), event)


def test_the_limit_itself_is_stored_and_a_byte_more_is_refused_at_the_door(
    store: MongoDocumentStore, database: Any
) -> None:
    (probe,) = records([("event", composed_event(data={"x": ""}))])
    room = 16 * 1024 * 1024 - len(probe.raw.raw)
    largest = composed_event(data={"x": "a" * room})
    assert store.write(records([("event", largest)])).stored == 1
    assert database.event.find_one({}, {"uid": True})["uid"] == largest["uid"]
    with pytest.raises(InvalidDocumentError):
        records([("event", composed_event(data={"x": "a" * (room + 1)}))])


def test_a_database_that_suitcase_mongo_made_is_taken_over(
    unprepared: MongoDocumentStore, database: Any
) -> None:
    database.resource.create_index("uid")
    database.resource.create_index("resource_id")
    unprepared.prepare()
    resource = {
        "uid": "r",
        "spec": "s",
        "root": "",
        "resource_path": "",
        "resource_kwargs": {},
        "path_semantics": "posix",
    }
    assert unprepared.write(records([("resource", resource), ("resource", resource)])) == Written(
        1, 1
    )


def test_a_database_with_a_uid_twice_is_unusable(
    unprepared: MongoDocumentStore, database: Any
) -> None:
    database.event.insert_many([{"uid": "same"}, {"uid": "same"}])
    with pytest.raises(StoreUnusableError, match=database.name):
        unprepared.prepare()
