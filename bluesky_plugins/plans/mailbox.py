"""Which of all the suggestions that come is the one that was asked for. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bluesky_plugins.adaptive import Suggestion, Waiting

__all__ = ["Answer", "Mailbox", "last_suggestion"]


@dataclass(frozen=True)
class Answer:
    """An answer of an old queue: it does not say to what."""

    value: Any


def last_suggestion(batch_id: str, history: Iterable[tuple[str, Any]]) -> Suggestion | None:
    """The suggestion of the highest count, and of these of the highest revision.

    :param history: all that was published for the batch, oldest first.
    """
    last: Suggestion | None = None
    for kind, raw in history:
        new = _genuine(batch_id, raw) if kind == "suggestion" else None
        if new is not None and (last is None or _order(new) > _order(last)):
            last = new
    return last


def _order(suggestion: Suggestion) -> tuple[int, int]:
    return suggestion.batch_count, suggestion.revision


def _genuine(batch_id: str, raw: Any) -> Suggestion | None:
    try:
        new = Suggestion.model_validate(raw)
    except ValidationError:
        return None
    return new if new.batch_id == batch_id else None


class Mailbox:
    """Keeps of a batch's suggestions those that can still be asked for.

    :param batch_id: of the one batch that matters.
    """

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id
        self.dropped: Counter[str] = Counter()
        self.reasons: list[str] = []  # of malformed ones, the first few
        self.waiting: Waiting | None = None  # the last one for the asked count
        self._ahead: Waiting | None = None  # the last one for the next count
        self.answer: Answer | None = None
        self._asked = -1
        self._revision = 0
        self._held: dict[int, Suggestion] = {}
        self._seen: set[tuple[int, int]] = set()

    def ask(self, count: int, revision: int = 0) -> None:
        """From now on the answer to `count` is wanted, at `revision` or higher."""
        if count != self._asked:
            ahead, self._ahead = self._ahead, None
            self.waiting = ahead if ahead and ahead.batch_count == count else None
        answered, self._asked, self._revision = self._asked, count, revision
        self.answer = None
        for old in [key for key in self._held if key < count]:
            del self._held[old]
            self.dropped["stale"] += old != answered
        self._seen = {pair for pair in self._seen if pair[0] >= count}
        held = self._held.get(count)
        if held is not None and held.revision < revision:
            del self._held[count]

    def suggestion(self) -> Suggestion | None:
        """The suggestion for the asked count at the highest revision so far."""
        return self._held.get(self._asked)

    def put(self, kind: str, raw: Any) -> None:
        """Take in what a reader read."""
        if kind == "answer":
            if self.answer is not None:
                self.dropped["double"] += 1
            self.answer = Answer(raw)
            return
        try:
            if kind == "suggestion":
                self._put_suggestion(Suggestion.model_validate(raw))
            elif kind == "waiting":
                self._put_waiting(Waiting.model_validate(raw))
            else:
                self._malformed(f"unknown kind {kind[:40]!r}")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or kind
            self._malformed(f"{where}: {first['msg']}")

    def _malformed(self, reason: str) -> None:
        self.dropped["malformed"] += 1
        if len(self.reasons) < 5:
            self.reasons.append(reason)

    def _put_suggestion(self, new: Suggestion) -> None:
        if new.batch_id != self.batch_id:
            self.dropped["foreign"] += 1
            return
        verdict = self._verdict(new)
        if verdict is not None:
            self.dropped[verdict] += 1
            return
        self._seen.add((new.batch_count, new.revision))
        if new.batch_count in self._held:
            self.dropped["late"] += 1  # the lower revision that was held
        self._held[new.batch_count] = new

    def _verdict(self, new: Suggestion) -> str | None:
        """Why it is of no use, or None."""
        if new.batch_count < self._asked:
            return "stale"
        # Answers come while the plan measures, before it asks: one count ahead, no more.
        if new.batch_count > self._asked + 1:
            return "early"
        if (new.batch_count, new.revision) in self._seen:
            return "double"
        if new.batch_count == self._asked and new.revision < self._revision:
            return "late"
        held = self._held.get(new.batch_count)
        return "late" if held is not None and held.revision > new.revision else None

    def _put_waiting(self, new: Waiting) -> None:
        if new.batch_id != self.batch_id:
            self.dropped["foreign"] += 1
        elif new.batch_count not in (self._asked, self._asked + 1):
            self.dropped["stale"] += 1
        elif not math.isfinite(new.until):
            self._malformed("until: not a finite time")
        elif new.batch_count != self._asked:
            self._ahead = new  # it came before the plan asked
        else:
            self.waiting = new
