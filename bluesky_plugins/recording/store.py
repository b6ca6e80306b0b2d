"""The database of documents: databroker's layout, written in bulk, each document once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pymongo
from bson.errors import BSONError
from pymongo.collection import Collection as MongoCollection
from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError
from pymongo.write_concern import WriteConcern

from bluesky_plugins.recording.documents import Record, same_content
from bluesky_plugins.recording.layout import COLLECTIONS, Index
from bluesky_plugins.settings import Settings

__all__ = [
    "DocumentStore",
    "MongoDocumentStore",
    "Refused",
    "StoreDownError",
    "StoreUnusableError",
    "Written",
    "connect",
]

DUPLICATE_KEY = 11000
# Documents with the same key; an index of the same name or keys with other options.
INDEX_CONFLICTS = (DUPLICATE_KEY, 85, 86)
PROBE_COLLECTION = "recorder_probe"


class StoreUnusableError(Exception):
    """What is in the database already stands against the layout; a person must decide."""


class StoreDownError(ConnectionError):
    """The database cannot be written now; the same write may succeed later."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that the store will never take, and why."""

    record: Record
    reason: str


@dataclass(frozen=True)
class Written:
    """What became of the records of one write: each is stored, repeated or refused."""

    stored: int = 0
    repeated: int = 0
    refused: tuple[Refused, ...] = ()

    def __add__(self, other: Written) -> Written:
        return Written(
            self.stored + other.stored,
            self.repeated + other.repeated,
            self.refused + other.refused,
        )


class DocumentStore(Protocol):
    """Where documents are kept. Every call may be repeated."""

    def prepare(self) -> None:
        """Make the indexes. :raises StoreDownError: the store does not answer."""

    def write(self, records: Sequence[Record]) -> Written:
        """Store each record once. :raises StoreDownError: some may be stored, some not."""

    def close(self) -> None:
        """Let go of the connections."""


def connect(settings: Settings) -> pymongo.MongoClient[dict[str, Any]]:
    """A client whose calls end, one way or the other, within seconds.

    A write is answered when it is in the journal: MongoDB on one machine loses the last 0.1 s
    at a power cut otherwise.
    """
    return pymongo.MongoClient(
        settings.mongo.address,
        appname="bluesky-plugins-recorder",
        serverSelectionTimeoutMS=1000,
        connectTimeoutMS=2000,
        socketTimeoutMS=20_000,
        tz_aware=False,
    )


class MongoDocumentStore:
    """Documents in one MongoDB database.

    :param client: shared by the stores of a process; it is closed with this store.
    :param database: name, e.g. `mad-bluesky-documents`.
    """

    def __init__(self, client: pymongo.MongoClient[dict[str, Any]], database: str) -> None:
        self._client = client
        self._database = client.get_database(
            database, write_concern=WriteConcern(w="majority", j=True)
        )

    def prepare(self) -> None:
        """Make the indexes that are not there.

        :raises StoreDownError: the store does not answer, or takes no writes now.
        :raises StoreUnusableError: there are documents or indexes that forbid one of ours.
        """
        try:
            for collection in COLLECTIONS.values():
                for index in collection.indexes:
                    _make_index(self._database[collection.name], index)
        except OperationFailure as error:
            where = f"indexes of {self._database.name}: {error}"
            unusable = error.code in INDEX_CONFLICTS
            raise (StoreUnusableError if unusable else StoreDownError)(where) from error
        except PyMongoError as error:
            raise StoreDownError(f"indexes of {self._database.name}: {error}") from error

    def write(self, records: Sequence[Record]) -> Written:
        """Store each record once, those that others refer to first.

        :raises StoreDownError: what was not yet written can be written again with the rest.
        """
        total = Written()
        for name in COLLECTIONS:
            batch = [record for record in records if record.name == name]
            if batch:
                total += self._write_batch(name, batch)
        return total

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _write_batch(self, name: str, batch: Sequence[Record]) -> Written:
        try:
            failed = self._insert(name, batch)
        # BSONError: pymongo itself finds the command, or a document, too large.
        except (OperationFailure, BSONError) as error:
            if len(batch) == 1:
                return Written(refused=(self._blame(batch[0], error),))
            # The command failed as a whole: find out which record the server cannot take.
            return sum((self._write_batch(name, [record]) for record in batch), Written())
        except PyMongoError as error:
            raise StoreDownError(str(error)) from error
        if not failed:
            return Written(stored=len(batch))
        repeated = [batch[i] for i, e in failed if e["code"] == DUPLICATE_KEY]
        others = [(batch[i], e) for i, e in failed if e["code"] != DUPLICATE_KEY]
        refused = (*self._conflicts(name, repeated), *(self._blame(r, e) for r, e in others))
        return Written(len(batch) - len(failed), len(failed) - len(refused), refused)

    def _insert(self, name: str, batch: Sequence[Record]) -> list[tuple[int, Mapping[str, Any]]]:
        # Which failed is taken from the errors alone: the count of inserted documents is wrong
        # in mongo-java-server.
        try:
            self._collection(name).insert_many((r.raw for r in batch), ordered=False)
        except BulkWriteError as error:
            details = error.details or {}
            if details.get("writeConcernErrors"):
                raise StoreDownError(str(details["writeConcernErrors"])) from error
            return [(e["index"], e) for e in details["writeErrors"]]
        return []

    def _conflicts(self, name: str, records: Sequence[Record]) -> Iterable[Refused]:
        """Those of the repeated records whose content is not the stored one."""
        if not records:
            return
        key = COLLECTIONS[name].key
        stored = self._find(name, {key: {"$in": [record.key for record in records]}})
        by_key = {doc[key]: doc for doc in stored}
        for record in records:
            found = by_key.get(record.key)
            if found is None:
                yield Refused(record, f"another {name} document takes its place in the run")
            elif not same_content(found, record.content()):
                yield Refused(record, f"{key} {record.key} is stored with other content")

    def _blame(self, record: Record, error: Any) -> Refused:
        """Refuse a record that fails alone, if the store can write anything else."""
        probe = self._database[PROBE_COLLECTION]
        try:
            probe.replace_one({"_id": "probe"}, {"_id": "probe", "key": record.key}, upsert=True)
        except PyMongoError as down:
            raise StoreDownError(f"{down} (after: {error})") from down
        text = error["errmsg"] if isinstance(error, Mapping) else str(error)
        return Refused(record, f"{record.name}: MongoDB refuses it: {text[:300]}")

    def _find(self, name: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            return list(self._collection(name).find(query, {"_id": False}))
        except PyMongoError as error:
            raise StoreDownError(str(error)) from error

    def _collection(self, name: str) -> MongoCollection[dict[str, Any]]:
        return self._database[COLLECTIONS[name].name]


def _make_index(collection: MongoCollection[dict[str, Any]], index: Index) -> None:
    options: dict[str, Any] = {"name": index.name} if index.name else {}
    collection.create_index(list(index.keys), unique=index.unique, **options)
