"""A batch's log as MongoDB keeps it: documents by uid, all else whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bluesky_plugins.adaptive.intake import Entry, Routed
from bluesky_plugins.adaptive.log import Cause
from bluesky_plugins.adaptive.store import BatchStore

__all__ = ["stored_entries"]


def stored_entries(
    store: BatchStore, batch_id: str
) -> Iterator[tuple[dict[str, Any], Entry | None]]:
    """The records of a batch's log in order, each with its entry.

    The entry is None where the recorder has not, or no longer, stored its document.

    :raises pymongo.errors.PyMongoError: if MongoDB does not answer.
    """
    for record in store.log(batch_id):
        doc = record["doc"]
        if doc is None:
            doc = store.document(record["name"], record["uid"])
        if doc is None:
            yield record, None
            continue
        cause = Cause(record["topic"], record["partition"], record["offset"])
        routed = Routed(batch_id, record["name"], record["uid"], doc)
        yield record, Entry(routed, cause, record["time"])
