"""Batches, their suggestions and their logs in MongoDB.

Every write may be repeated. Nothing here needs more than what each server of the three ways
to run can do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from bson.errors import InvalidDocument
from pymongo import ASCENDING, DESCENDING, InsertOne, MongoClient
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DuplicateKeyError

from bluesky_plugins.settings import Settings

__all__ = ["BatchStore", "UnstorableError", "connect"]

DUPLICATE = 11000
Record = dict[str, Any]
# The collection of each kind of document in databroker's layout, and the field of its uid.
_PLACES = {
    "start": ("run_start", "uid"),
    "stop": ("run_stop", "uid"),
    "descriptor": ("event_descriptor", "uid"),
    "event": ("event", "uid"),
    "resource": ("resource", "uid"),
    "datum": ("datum", "datum_id"),
    "stream_resource": ("stream_resource", "uid"),
    "stream_datum": ("stream_datum", "uid"),
}


class UnstorableError(ValueError):
    """A record that MongoDB can never hold."""


def connect(settings: Settings, timeout: float = 2.0) -> MongoClient[Record]:
    """A client of the settings' MongoDB; it connects when it is first used.

    :param timeout: after this an operation fails, s.
    """
    milliseconds = int(timeout * 1000)
    return MongoClient(
        settings.mongo.address,
        serverSelectionTimeoutMS=milliseconds,
        connectTimeoutMS=milliseconds,
        socketTimeoutMS=10 * milliseconds,
        retryWrites=False,
        appname="bluesky-plugins",
    )


@contextmanager
def _storable() -> Iterator[None]:
    try:
        yield
    except (InvalidDocument, OverflowError, UnicodeError) as error:
        raise UnstorableError(str(error)) from None


class BatchStore:
    """The memory of the recommender service.

    :param client: a pymongo client, or one that behaves so.
    """

    def __init__(self, client: MongoClient[Record], settings: Settings) -> None:
        self._client = client
        database = client[settings.database("plugins")]
        self._documents = client[settings.database("documents")]
        self.batches: Collection[Record] = database["batches"]
        self.suggestions: Collection[Record] = database["suggestions"]
        self.batch_log: Collection[Record] = database["batch_log"]

    @classmethod
    def from_settings(cls, settings: Settings, timeout: float = 2.0) -> BatchStore:
        """The store that the settings name."""
        return cls(connect(settings, timeout), settings)

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def make_indexes(self) -> None:
        """Make the indexes; those that are there stay."""
        self.batches.create_index([("batch_id", ASCENDING)], unique=True)
        self.batches.create_index([("state", ASCENDING), ("last_time", DESCENDING)])
        self.suggestions.create_index([("uid", ASCENDING)], unique=True)
        self.suggestions.create_index(
            [("batch_id", ASCENDING), ("batch_count", ASCENDING), ("revision", ASCENDING)],
            unique=True,
        )
        self.batch_log.create_index([("batch_id", ASCENDING), ("n", ASCENDING)], unique=True)

    # ---- writing

    def write_batches(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Store records of batches; one that is older than the stored one changes nothing.

        :raises UnstorableError: if MongoDB cannot hold one of them.
        :raises pymongo.errors.PyMongoError: if MongoDB does not answer.
        """
        for record in records:
            newer = {"_id": record["batch_id"], "entries": {"$lte": record["entries"]}}
            with suppress(DuplicateKeyError), _storable():
                self.batches.update_one(newer, {"$set": dict(record)}, upsert=True)

    def write_suggestions(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Store suggestions; the first one of a batch, count and revision stands.

        :raises UnstorableError: if MongoDB cannot hold one of them.
        :raises pymongo.errors.PyMongoError: if MongoDB does not answer.
        """
        self._write(
            self.suggestions, [InsertOne({"_id": record["uid"], **record}) for record in records]
        )

    def write_log(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Store entries of logs.

        :raises UnstorableError: if MongoDB cannot hold one of them.
        :raises pymongo.errors.PyMongoError: if MongoDB does not answer.
        """
        self._write(
            self.batch_log,
            [
                InsertOne({"_id": f"{record['batch_id']}:{record['n']}", **record})
                for record in records
            ],
        )

    def _write(
        self, collection: Collection[Record], operations: Sequence[InsertOne[Record]]
    ) -> None:
        if not operations:
            return
        try:
            with _storable():
                collection.bulk_write(list(operations), ordered=False)
        except BulkWriteError as error:
            errors = error.details.get("writeErrors", [])
            if not errors or any(item.get("code") != DUPLICATE for item in errors):
                raise

    # ---- reading

    def batch(self, batch_id: str) -> Record | None:
        """The record of a batch."""
        return self.batches.find_one({"_id": batch_id}, {"_id": 0})

    def find_batches(
        self, query: Mapping[str, Any], *, limit: int, skip: int
    ) -> tuple[int, list[Record]]:
        """How many batches there are, and one page of them, newest first, without stories."""
        total = self.batches.count_documents(dict(query))
        cursor = self.batches.find(dict(query), {"_id": 0, "story": 0})
        page = cursor.sort([("last_time", DESCENDING), ("batch_id", ASCENDING)])
        return total, list(page.skip(skip).limit(limit))

    def batch_suggestions(self, batch_id: str) -> list[Record]:
        """The suggestions of a batch that stand, in order."""
        cursor = self.suggestions.find({"batch_id": batch_id}, {"_id": 0})
        return list(cursor.sort([("batch_count", ASCENDING), ("revision", ASCENDING)]))

    def decided_by(self, batch_id: str, job: str) -> Record | None:
        """The last suggestion that came from the result of a job."""
        cursor = self.suggestions.find({"batch_id": batch_id, "jobs": job}, {"_id": 0})
        order = [("batch_count", DESCENDING), ("revision", DESCENDING)]
        return next(iter(cursor.sort(order).limit(1)), None)

    def log(self, batch_id: str) -> list[Record]:
        """The entries of a batch's log, in order."""
        cursor = self.batch_log.find({"batch_id": batch_id}, {"_id": 0})
        return list(cursor.sort([("n", ASCENDING)]))

    def document(self, name: str, uid: str) -> Record | None:
        """A document that the recorder stored, by its uid."""
        collection, field = _PLACES[name]
        return self._documents[collection].find_one({field: uid}, {"_id": 0})

    def ping(self) -> None:
        """Ask MongoDB for an answer.

        :raises pymongo.errors.PyMongoError: if there is none.
        """
        self._client.admin.command("ping")
