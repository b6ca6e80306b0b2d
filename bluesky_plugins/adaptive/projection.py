"""The record of a batch: what MongoDB, the command and the HTTP API show of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bluesky_plugins.adaptive.log import Cause, LogEntry
from bluesky_plugins.adaptive.state import Batch, Phase, Told, missing, story

__all__ = ["batch_record", "log_record", "shown"]

STORY_LINES = 200
WHOLE = ("batch_event", "command", "result")


def _cause(cause: Cause | None) -> dict[str, Any] | None:
    if cause is None:
        return None
    return {"topic": cause.topic, "partition": cause.partition, "offset": cause.offset}


def _told(line: Told) -> dict[str, Any]:
    return {
        "text": line.text,
        "batch_count": line.count,
        "time": line.time,
        "cause": _cause(line.cause),
    }


def _configuration(state: Batch) -> dict[str, Any]:
    config = state.configuration
    if config is None:
        return {"recommender": None}
    return {
        "recommender": config.recommender.model_dump(),
        "max_count": config.max_count,
        "independent_keys": list(config.independent_keys),
        "dependent_keys": list(config.dependent_keys),
        "error": config.error,
    }


def _answer(state: Batch) -> dict[str, Any] | None:
    if state.last is None:
        return None
    suggestion = state.stands[state.last.count, state.last.revision]
    return {
        "batch_count": suggestion.batch_count,
        "revision": suggestion.revision,
        "action": suggestion.action.value,
        "point": suggestion.point,
        "reason": suggestion.reason,
    }


def _awaiting(state: Batch) -> dict[str, Any] | None:
    awaited = state.awaited
    if awaited is None:
        return None
    return {
        "batch_count": awaited.count,
        "run": awaited.run,
        "recipes": list(missing(state)),
        "since": awaited.since,
    }


def batch_record(state: Batch, first: Cause, last: Cause) -> dict[str, Any]:
    """The record of a batch in its present state."""
    ask = state.asked
    answer = _answer(state)
    return {
        "batch_id": state.batch_id,
        "state": state.phase.value,
        "outcome": state.outcome.value if state.outcome else None,
        "reason": state.reason or (answer["reason"] if answer else ""),
        "batch_mode": state.mode.value if state.mode else None,
        "motors": list(state.opened.motors) if state.opened else None,
        "first_point": dict(state.opened.first_point) if state.opened else None,
        **_configuration(state),
        "entries": state.entries,
        "measured": state.measured,
        "answered": len(state.answered),
        "answer": answer,
        "due": {"batch_count": ask.count, "revision": ask.revision} if ask else None,
        "awaiting": _awaiting(state),
        "pause_requested": state.pause_requested,
        "stop_requested": state.stop_requested,
        "first_time": state.first_time,
        "last_time": state.last_time,
        "topic": first.topic,
        "partition": first.partition,
        "first_offset": first.offset,
        "last_offset": last.offset,
        "story": [_told(line) for line in story(state, latest=STORY_LINES)],
    }


def log_record(batch_id: str, entry: LogEntry) -> dict[str, Any]:
    """The record of one entry of a log: documents by uid only, all else whole."""
    return {
        "batch_id": batch_id,
        "n": entry.n,
        "name": entry.name,
        "uid": entry.uid,
        "topic": entry.cause.topic,
        "partition": entry.cause.partition,
        "offset": entry.cause.offset,
        "time": entry.time,
        "digest": entry.digest,
        "doc": dict(entry.doc) if entry.name in WHOLE else None,
    }


def shown(record: Mapping[str, Any], now: float, silent_after: float) -> dict[str, Any]:
    """A record as people see it: an open batch that has no news, and awaits none, is `silent`.

    :param now: seconds since the epoch.
    """
    waits = record.get("awaiting") is not None
    silent = (
        not waits and record["state"] == Phase.OPEN and now - record["last_time"] > silent_after
    )
    return {**record, "state": "silent"} if silent else dict(record)
