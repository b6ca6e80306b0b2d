"""How suggestions reach a plan: the port, and old queues behind it.

A plan opens one reader for its batch and uses it from one background thread.
"""

from __future__ import annotations

import inspect
import queue
from typing import Any, Protocol, runtime_checkable

__all__ = [
    "AnswerQueue",
    "AnswerReader",
    "QueueReader",
    "QueueSuggestions",
    "SuggestionChannel",
    "SuggestionReader",
]

# What a thing that was read can be: the first of the pair.
SUGGESTION, WAITING, ANSWER = "suggestion", "waiting", "answer"


class SuggestionReader(Protocol):
    """Reads what is published for one batch; used from one thread.

    `lockstep` is True where the answers carry no identity: such a reader is read only
    while its plan waits for an answer, so that whatever came before can be thrown away.
    """

    lockstep: bool

    def start(self, timeout: float) -> bool:
        """Take position: everything from now on will be read.

        :param timeout: s.
        :return: False if there was no position within `timeout`; may be tried again.
        """

    def history(self, timeout: float) -> list[tuple[str, Any]] | None:
        """All that was published before the position, when opened `from_beginning`.

        :param timeout: s.
        :return: pairs as of `read`; None if it could not all be read within `timeout`.
        """

    def read(self, timeout: float) -> list[tuple[str, Any]]:
        """What has come, oldest first; waits up to `timeout` s for the first.

        :return: pairs ("suggestion" | "waiting", document), with lockstep ("answer",
            point | None | exception).
        """

    def close(self) -> None:
        """Let go of connections."""


@runtime_checkable
class SuggestionChannel(Protocol):
    """A road from a recommender to plans."""

    def open(self, batch_id: str, *, from_beginning: bool = False) -> SuggestionReader:
        """A reader for one batch; `from_beginning` also gives what was published before."""


class AnswerQueue(Protocol):
    """Any queue of answers: a dict of positions, or None for "no more"."""

    def get(self, *, timeout: float) -> Any:
        """The next answer.

        :param timeout: s.
        :raises queue.Empty: or TimeoutError, if there is none in time.
        """


# One answer may stand behind another; more than this at once is not a queue of answers.
LARGEST_BACKLOG = 100_000


class AnswerReader:
    """The reader of a queue whose answers do not say which question they answer."""

    lockstep = True

    def start(self, timeout: float) -> bool:
        """Nothing to position."""
        return True

    def history(self, timeout: float) -> list[tuple[str, Any]]:
        """A queue keeps nothing."""
        return []

    def close(self) -> None:
        """The queue belongs to who made it."""


class QueueReader(AnswerReader):
    """Reads any object with `get(timeout=)`."""

    def __init__(self, answers: AnswerQueue) -> None:
        self._get: Any = answers.get
        self._at_once = _immediate(answers.get)

    def read(self, timeout: float) -> list[tuple[str, Any]]:
        """All answers there are, in the queue's order.

        With timeout 0 only what is there at once.
        """
        found: list[tuple[str, Any]] = []
        how: dict[str, Any] = {"timeout": timeout} if timeout > 0 else self._at_once
        while len(found) < LARGEST_BACKLOG:
            try:
                found.append((ANSWER, self._get(**how)))
            except (queue.Empty, TimeoutError):
                break
            how = self._at_once
        return found


def _immediate(get: Any) -> dict[str, Any]:
    """Arguments with which `get` does not wait; timeout 0 means for ever in some queues."""
    try:
        names = inspect.signature(get).parameters
    except (TypeError, ValueError):
        names = {}  # type: ignore[assignment]
    return {"block": False} if "block" in names else {"timeout": 0.01}


class QueueSuggestions:
    """Answers from a queue in this process, or any object with `get(timeout=)`.

    Its answers carry no identity. What was in the queue before a run began is thrown
    away, and of several answers to one run the last one is taken.

    :param answers: `get(timeout=seconds)` returns a dict of positions or None (no more),
        and raises `queue.Empty` or `TimeoutError`.
    :raises TypeError: if it has no `get`.
    """

    def __init__(self, answers: AnswerQueue) -> None:
        if not callable(getattr(answers, "get", None)):
            raise TypeError(f"a queue with get(timeout=) is expected, not {answers!r}")
        self.queue = answers

    def open(self, batch_id: str, *, from_beginning: bool = False) -> QueueReader:
        """A reader; the queue does not know batches.

        :raises ValueError: with `from_beginning`: a queue keeps no past.
        """
        if from_beginning:
            raise ValueError("a queue keeps no past suggestions: it cannot serve resume=")
        return QueueReader(self.queue)
