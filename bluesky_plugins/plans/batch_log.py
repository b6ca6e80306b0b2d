"""What a plan writes into its batch's log."""

from __future__ import annotations

import time
import uuid
from typing import Any, Protocol, runtime_checkable

from bluesky_plugins.adaptive import (
    BatchEvent,
    Command,
    CommandKind,
    Ended,
    Opened,
    Outcome,
    Refused,
    Suggestion,
    Taken,
    TimedOut,
    derived_uid,
)

__all__ = ["BatchLog", "LogWriter", "PlanLog"]


@runtime_checkable
class BatchLog(Protocol):
    """What `to_recommender` may have beside being a callback: the log takes events."""

    def batch_event(self, doc: dict[str, Any]) -> Any:
        """Append a `batch_event`."""


@runtime_checkable
class LogWriter(Protocol):
    """What `to_recommender` may have beside being a callback: the log takes commands."""

    def command(self, doc: dict[str, Any]) -> Any:
        """Append a `command`."""


class PlanLog:
    """Writes one plan's events; silent where `to_recommender` is a plain callback.

    :param to_recommender: the callback.
    :param batch_id: of the batch.
    """

    def __init__(self, to_recommender: Any, batch_id: str) -> None:
        self._events = to_recommender if isinstance(to_recommender, BatchLog) else None
        self._commands = to_recommender if isinstance(to_recommender, LogWriter) else None
        self._batch_id = batch_id
        self._plan = str(uuid.uuid4())
        self._number = 0

    def _head(self, kind: str) -> dict[str, Any]:
        self._number += 1
        uid = derived_uid(kind, self._batch_id, self._plan, self._number)
        return {"uid": uid, "batch_id": self._batch_id, "time": time.time()}

    def _send(self, event: BatchEvent) -> None:
        if self._events is not None:
            self._events.batch_event(event.model_dump(mode="json"))

    def opened(self, **fields: Any) -> None:
        """The plan takes up the batch; fields of `Opened`."""
        self._send(Opened(**self._head("event"), **fields))

    def taken(self, suggestion: Suggestion) -> None:
        """The plan acts on this suggestion now."""
        self._send(
            Taken(
                **self._head("event"),
                batch_count=suggestion.batch_count,
                revision=suggestion.revision,
                suggestion=suggestion.uid,
                action=suggestion.action,
                reason=suggestion.reason,
            )
        )

    def refused(self, suggestion: Suggestion, reason: str) -> None:
        """The gate did not let this suggestion through."""
        self._send(
            Refused(
                **self._head("event"),
                batch_count=suggestion.batch_count,
                revision=suggestion.revision,
                suggestion=suggestion.uid,
                reason=reason,
            )
        )

    def timed_out(self, batch_count: int, reason: str) -> None:
        """No answer to `batch_count` in time."""
        self._send(TimedOut(**self._head("event"), batch_count=batch_count, reason=reason))

    def ended(self, outcome: Outcome, reason: str) -> None:
        """The plan leaves the batch."""
        self._send(Ended(**self._head("event"), outcome=outcome, reason=reason))

    def resume(self, reason: str) -> None:
        """Ask the recommender to go on after its pause."""
        if self._commands is None:
            return
        command = Command(
            **self._head("command"), command=CommandKind.RESUME, by="plan", reason=reason
        )
        self._commands.command(command.model_dump(mode="json"))
