"""Batches as people see them, from what MongoDB keeps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from bluesky_plugins.adaptive.projection import shown
from bluesky_plugins.adaptive.store import BatchStore

__all__ = ["decided_point", "list_batches", "show_batch"]

MOST = 1000


def list_batches(
    store: BatchStore,
    *,
    state: str | None = None,
    recommender: str | None = None,
    limit: int = 50,
    skip: int = 0,
    silent_after: float = 600.0,
    now: float | None = None,
) -> dict[str, Any]:
    """Batches, newest first.

    :param state: only those that are `open`, `silent` or `ended`.
    :param recommender: only those of this recommender.
    :param limit: how many, at most 1000; `skip`: how many of the newest to leave out.
    :param silent_after: an open batch without news for this long is silent, s.
    :return: `total` (of all pages) and `batches`.
    :raises ValueError: for an unknown state.
    """
    now = time.time() if now is None else now
    query: dict[str, Any] = dict(_states(now - silent_after)[state]) if state else {}
    if recommender:
        query["recommender.name"] = recommender
    total, found = store.find_batches(query, limit=min(max(limit, 1), MOST), skip=max(skip, 0))
    return {"total": total, "batches": [shown(record, now, silent_after) for record in found]}


class _States(dict[str, Mapping[str, Any]]):
    def __missing__(self, state: str) -> Mapping[str, Any]:
        raise ValueError(f"unknown state {state!r}; there are {', '.join(self)}")


def _states(since: float) -> _States:
    return _States(
        open={
            "state": "open",
            "$or": [{"last_time": {"$gte": since}}, {"awaiting": {"$ne": None}}],
        },
        silent={"state": "open", "last_time": {"$lt": since}, "awaiting": None},
        ended={"state": "ended"},
    )


def decided_point(store: BatchStore, batch_id: str | None, job: str) -> dict[str, Any] | None:
    """The answer of a batch that came from the result of a job; None if there is none.

    :param job: its key.
    :return: `batch_count`, `revision`, `action`, `point`, and `suggestion`, its uid.
    :raises pymongo.errors.PyMongoError: if MongoDB does not answer.
    """
    found = store.decided_by(batch_id, job) if batch_id else None
    if found is None:
        return None
    names = ("batch_count", "revision", "action", "point")
    return {**{name: found[name] for name in names}, "suggestion": found["uid"]}


def show_batch(
    store: BatchStore, batch_id: str, *, silent_after: float = 600.0, now: float | None = None
) -> dict[str, Any] | None:
    """A batch with its suggestions, its log and its story; None if there is none.

    :param silent_after: an open batch without news for this long is silent, s.
    """
    record = store.batch(batch_id)
    if record is None:
        return None
    now = time.time() if now is None else now
    return {
        **shown(record, now, silent_after),
        "suggestions": store.batch_suggestions(batch_id),
        "log": store.log(batch_id),
    }
