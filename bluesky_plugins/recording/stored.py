"""Which runs are stored: what a person asks before, or instead of, reading the data."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from pymongo import DESCENDING
from pymongo.database import Database
from pymongo.errors import PyMongoError

from bluesky_plugins.recording.store import connect
from bluesky_plugins.settings import Settings

__all__ = ["StoredRuns"]

SUMMARY = ("uid", "scan_id", "time", "plan_name", "batch_id", "batch_count")
PAUSE_SECONDS = 0.02


class StoredRuns:
    """The runs in MongoDB, as plain data. A context manager; `close` does the same.

    :param database: short name: `documents` for measured runs, `analysis` for analysis runs.
    """

    def __init__(self, settings: Settings, database: str = "documents") -> None:
        self._client = connect(settings)
        self._db: Database[dict[str, Any]] = self._client[settings.database(database)]

    def __enter__(self) -> StoredRuns:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def latest(self, limit: int = 20) -> list[dict[str, Any]]:
        """The runs that started last, the newest first.

        :returns: of each `uid, scan_id, time, plan_name, batch_id, batch_count` from its start
            document (None for what that lacks), and `exit_status`, `reason` and `num_events` (by
            stream), None as long as there is no stop document.
        :raises pymongo.errors.PyMongoError: MongoDB does not answer.
        """
        starts = list(self._starts({}, limit))
        stops = {
            stop["run_start"]: stop
            for stop in self._db.run_stop.find(
                {"run_start": {"$in": [start["uid"] for start in starts]}}, {"_id": False}
            )
        }
        return [_summary(start, stops.get(start["uid"])) for start in starts]

    def find(self, which: str) -> dict[str, Any] | None:
        """All about one run but its data.

        The keys are `start`, `stop` (None while there is none), `descriptors`, `resources` and
        `events`, the number of events of each stream.

        :param which: a uid or its first 5 characters or more, a scan id (the newest run that has
            it), or -1 for the last run, -2 for the one before.
        :returns: None if there is no such run.
        :raises ValueError: if more than one run's uid begins like this.
        :raises pymongo.errors.PyMongoError: MongoDB does not answer.
        """
        start = self._start(which)
        if start is None:
            return None
        of_run = {"run_start": start["uid"]}
        descriptors = list(self._db.event_descriptor.find(of_run, {"_id": False}))
        return {
            "start": start,
            "stop": self._db.run_stop.find_one(of_run, {"_id": False}),
            "descriptors": descriptors,
            "resources": list(self._db.resource.find(of_run, {"_id": False})),
            "events": self._event_counts(descriptors),
        }

    def documents(self, uid: str) -> list[tuple[str, dict[str, Any]]] | None:
        """The documents of a run that is over: of its events each stream's last one.

        :returns: (name, document) in order; None if there is no such run, or no stop document.
        :raises pymongo.errors.PyMongoError: MongoDB does not answer.
        """
        of_run, as_sent = {"run_start": uid}, {"_id": False}
        start = self._db.run_start.find_one({"uid": uid}, as_sent)
        stop = self._db.run_stop.find_one(of_run, as_sent)
        if start is None or stop is None:
            return None
        descriptors = list(self._db.event_descriptor.find(of_run, as_sent))
        events = (self._last_event(descriptor["uid"]) for descriptor in descriptors)
        return [
            ("start", start),
            *(("descriptor", doc) for doc in descriptors),
            *(("resource", doc) for doc in self._db.resource.find(of_run, as_sent)),
            *(("stream_resource", doc) for doc in self._db.stream_resource.find(of_run, as_sent)),
            *(("event", event) for event in events if event is not None),
            ("stop", stop),
        ]

    def _last_event(self, descriptor: str) -> dict[str, Any] | None:
        found = self._db.event.find({"descriptor": descriptor}, {"_id": False})
        return next(iter(found.sort([("seq_num", DESCENDING)]).limit(1)), None)

    def last_of_batch(self, batch_id: str) -> str | None:
        """Uid of the last run of a batch; None if none is stored.

        :raises pymongo.errors.PyMongoError: MongoDB does not answer.
        """
        return next((start["uid"] for start in self._starts({"batch_id": batch_id}, 1)), None)

    def without_stop(self, uids: Iterable[str]) -> set[str]:
        """Those of the runs whose stop document is not stored.

        :raises pymongo.errors.PyMongoError: MongoDB does not answer.
        """
        wanted = set(uids)
        found = self._db.run_stop.find(
            {"run_start": {"$in": sorted(wanted)}}, {"run_start": True, "_id": False}
        )
        return wanted - {stop["run_start"] for stop in found}

    def wait_for_stops(
        self, uids: Iterable[str], timeout: float, tell: Callable[[str], None]
    ) -> set[str]:
        """Wait until the stop documents of the runs are stored.

        :param timeout: seconds.
        :param tell: called with a line for a person when there is something to wait for.
        :returns: the runs that are still without one; empty is the good outcome.
        """
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        told = False
        left = set(uids)
        while left := self._left(left):
            if time.monotonic() >= deadline:
                break
            if not told:
                tell(f"waiting, at most {timeout:g} s, until {_named(left)} is stored")
            told = True
            pause.wait(PAUSE_SECONDS)
        return left

    def _left(self, uids: set[str]) -> set[str]:
        try:
            return self.without_stop(uids) if uids else uids
        except PyMongoError:
            # As good as not stored: the deadline ends it, and the read itself will say why.
            return uids

    def _starts(self, query: dict[str, Any], limit: int, skip: int = 0) -> Iterable[dict[str, Any]]:
        cursor = self._db.run_start.find(query, {"_id": False})
        return cursor.sort([("time", DESCENDING), ("_id", DESCENDING)]).skip(skip).limit(limit)

    def _start(self, which: str) -> dict[str, Any] | None:
        if re.fullmatch(r"-[1-9][0-9]{0,8}", which):
            return next(iter(self._starts({}, 1, skip=-int(which) - 1)), None)
        by_uid = list(self._starts({"uid": {"$regex": f"^{re.escape(which)}"}}, 2))
        if len(which) >= 5 and by_uid:
            exact = [start for start in by_uid if start["uid"] == which]
            if len(by_uid) > 1 and not exact:
                raise ValueError(f"the uids of several runs begin with {which}")
            return (exact or by_uid)[0]
        if re.fullmatch(r"[0-9]{1,18}", which):
            return next(iter(self._starts({"scan_id": int(which)}, 1)), None)
        return None

    def _event_counts(self, descriptors: Iterable[dict[str, Any]]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for doc in descriptors:
            number = self._db.event.count_documents({"descriptor": doc["uid"]})
            name = doc.get("name", "primary")
            counts[name] = counts.get(name, 0) + number
        return counts


def _summary(start: dict[str, Any], stop: dict[str, Any] | None) -> dict[str, Any]:
    stop = stop or {}
    return {
        **{key: start.get(key) for key in SUMMARY},
        "exit_status": stop.get("exit_status"),
        "reason": stop.get("reason"),
        "num_events": stop.get("num_events"),
    }


def _named(uids: set[str]) -> str:
    one = f"run {min(uids)[:8]}"
    return one if len(uids) == 1 else f"{one} and {len(uids) - 1} more"
