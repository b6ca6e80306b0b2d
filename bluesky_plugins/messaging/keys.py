"""Which run and which batch a document belongs to.

Only a start document names its batch, and an event names no run at all: what came before is
remembered, for a bounded number of runs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Keys", "RunKey"]

# Runs that never stop are forgotten, oldest first, when there are more open ones than this.
MAX_OPEN_RUNS = 1000


@dataclass(slots=True)
class RunKey:
    """An open run.

    :param uid: uid of its start document.
    :param batch_id: of the batch that the start document names, or None.
    :param each_event: whether the plan waits for an answer to each event, not to the run.
    """

    uid: str
    batch_id: str | None
    each_event: bool = False
    names: set[str] = field(default_factory=set)


class Keys:
    """Remembers open runs; says for each document to which one it belongs."""

    def __init__(self, max_open: int = MAX_OPEN_RUNS) -> None:
        self._max_open = max_open
        self._runs: OrderedDict[str, RunKey] = OrderedDict()
        # uid of a descriptor, resource or stream resource -> uid of its run
        self._parts: dict[str, str] = {}

    def run_of(self, name: str, doc: Mapping[str, Any]) -> RunKey | None:
        """The run that a document belongs to; None if that was never met or is closed.

        :param name: name of the document.
        """
        if name == "start":
            return self._opened(doc)
        uid = self._uid(name, doc)
        if uid is None:
            return None
        run = self._runs.get(uid) or RunKey(uid, None)
        if name == "stop":
            self._forget(uid)
        elif name in ("descriptor", "resource", "stream_resource") and uid in self._runs:
            part = str(doc.get("uid", ""))
            self._parts[part] = uid
            run.names.add(part)
        return run

    def _opened(self, doc: Mapping[str, Any]) -> RunKey:
        batch = doc.get("batch_id")
        run = RunKey(
            str(doc.get("uid", "")),
            None if batch is None else str(batch),
            each_event=doc.get("batch_mode") == "event",
        )
        self._runs[run.uid] = run
        while len(self._runs) > self._max_open:
            self._forget(next(iter(self._runs)))
        return run

    def _forget(self, uid: str) -> None:
        run = self._runs.pop(uid, None)
        for part in run.names if run else ():
            self._parts.pop(part, None)

    def _uid(self, name: str, doc: Mapping[str, Any]) -> str | None:
        if "run_start" in doc:
            return str(doc["run_start"])
        known = (self._parts[part] for part in _named(name, doc) if part in self._parts)
        return next(known, None) or self._last_open()

    def _last_open(self) -> str | None:
        """A resource without `run_start` (allowed by the event model) and its data."""
        return next(reversed(self._runs), None)


def _named(name: str, doc: Mapping[str, Any]) -> Iterable[str]:
    """Uids of other documents that this one names."""
    if name == "bulk_events":
        return (str(e.get("descriptor")) for events in doc.values() for e in events)
    keys = ("descriptor", "resource", "stream_resource")
    return (str(doc[key]) for key in keys if key in doc)
