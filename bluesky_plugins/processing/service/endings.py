"""Out of the documents as they come: what begins and is over, with everything known of it.

Pure. A run is remembered from its start to its stop; how far a partition may be committed is
up to the oldest of them, so that after a restart all of its documents come again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bluesky_plugins.processing.recipes.documents import RunDocuments
from bluesky_plugins.processing.recipes.evaluation import Ending

__all__ = ["MAX_OPEN_RUNS", "MalformedError", "Orphan", "Place", "Runs"]

# Runs that never stop are forgotten, the oldest first, when there are more open ones than this.
MAX_OPEN_RUNS = 1000


class MalformedError(ValueError):
    """A document breaks the event model."""


class Place(NamedTuple):
    """Where a message stands."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Orphan(NamedTuple):
    """A run is over of which the beginning was not seen."""

    uid: str


@dataclass
class _Open:
    documents: RunDocuments
    place: Place
    parts: set[str] = field(default_factory=set)


class Runs:
    """The runs under way."""

    def __init__(self, max_open: int = MAX_OPEN_RUNS) -> None:
        self._max_open = max_open
        self._runs: dict[str, _Open] = {}
        # uid of a descriptor, resource or stream resource -> uid of its run
        self._run_of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def read(self, name: str, doc: Mapping[str, Any], place: Place) -> list[Ending | Orphan]:
        """What begins or is over by this document; mostly nothing.

        :raises MalformedError: if the document breaks the event model.
        """
        try:
            return self._read(name, doc, place)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise MalformedError(f"{name} breaks the event model: {error!r:.200}") from None

    def oldest(self, topic: str, partition: int) -> int | None:
        """Offset of the start of the oldest open run of a partition."""
        places = (one.place for one in self._runs.values())
        ours = [place.offset for place in places if place[:2] == (topic, partition)]
        return min(ours, default=None)

    def revoked(self, topic: str, partition: int) -> None:
        """Forget the runs of a partition: somebody else reads them."""
        for uid, one in list(self._runs.items()):
            if one.place[:2] == (topic, partition):
                self._forget(uid)

    def _read(self, name: str, doc: Mapping[str, Any], place: Place) -> list[Ending | Orphan]:
        if name == "start":
            return self._open(doc, place)
        uid = self._owner(name, doc)
        run = self._runs.get(uid or "")
        if run is None:
            return [Orphan(str(doc["run_start"]))] if name == "stop" else []
        run.documents = run.documents.with_document(name, doc)
        if name in ("descriptor", "resource", "stream_resource"):
            run.parts.add(str(doc["uid"]))
            self._run_of[str(doc["uid"])] = run.documents.uid
        if name == "stop":
            self._forget(run.documents.uid)
            return [Ending.of_run(run.documents)]
        return _points(name, doc, run.documents)

    def _open(self, doc: Mapping[str, Any], place: Place) -> list[Ending | Orphan]:
        uid = str(doc["uid"])
        if uid in self._runs:
            return []
        self._runs[uid] = _Open(RunDocuments(start=doc), place)
        while len(self._runs) > self._max_open:
            self._forget(next(iter(self._runs)))
        return [Ending.of_start(self._runs[uid].documents)]

    def _owner(self, name: str, doc: Mapping[str, Any]) -> str | None:
        if "run_start" in doc:
            return str(doc["run_start"])
        if name in ("event", "event_page"):
            return self._run_of.get(str(doc["descriptor"]))
        return None

    def _forget(self, uid: str) -> None:
        run = self._runs.pop(uid, None)
        for part in run.parts if run else ():
            self._run_of.pop(part, None)


def _points(name: str, doc: Mapping[str, Any], run: RunDocuments) -> list[Ending | Orphan]:
    """The point of a batch that an event is, where each event is one."""
    is_event = name == "event" and run.stream(str(doc["descriptor"])) == "primary"
    if not is_event or run.start.get("batch_mode") != "event" or "batch_id" not in run.start:
        return []
    return [Ending.of_point(run)]
