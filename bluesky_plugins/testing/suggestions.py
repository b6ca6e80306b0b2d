"""A suggestions topic and a recommender service in memory, for tests of plans."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bluesky_plugins.adaptive import Action, RecommenderInfo, Suggestion, Waiting, suggestion_uid

__all__ = ["FakeRecommender", "FakeSuggestions", "make_suggestion", "make_waiting"]


def make_suggestion(
    batch_id: str,
    batch_count: int,
    point: Mapping[str, Any] | None = None,
    *,
    revision: int = 0,
    action: str = "move",
    reason: str = "a test",
) -> dict[str, Any]:
    """A suggestion as it travels.

    :param point: data key -> position, in the motor's units; it may be as bad as the test likes.
    """
    return Suggestion(
        uid=suggestion_uid(batch_id, batch_count, revision),
        batch_id=batch_id,
        batch_count=batch_count,
        revision=revision,
        action=Action(action),
        point=dict(point or {}),
        reason=reason,
        recommender=RecommenderInfo(name="fake", version="0", seed=0),
        inputs="0" * 64,
        time=time.time(),
    ).model_dump(mode="json")


def make_waiting(batch_id: str, batch_count: int, *, seconds: float, reason: str) -> dict[str, Any]:
    """A `waiting` whose `until` lies `seconds` ahead."""
    until = time.time() + seconds
    waiting = Waiting(batch_id=batch_id, batch_count=batch_count, reason=reason, until=until)
    return waiting.model_dump()


class FakeSuggestions:
    """The topic: a `SuggestionChannel` that lives in this process.

    :param reachable: False lets no reader take position until it is set True.
    """

    def __init__(self, *, reachable: bool = True) -> None:
        self.reachable = reachable
        self.published: list[tuple[str, str, Any]] = []  # (key, name, document)
        self.readers: list[FakeReader] = []
        self.news = threading.Condition()

    def publish(self, name: str, doc: Any, *, key: str | None = None) -> None:
        """Append a message.

        :param name: "suggestion" or "waiting".
        :param key: batch_id it is keyed by; None takes the document's own.
        """
        with self.news:
            self.published.append((doc["batch_id"] if key is None else key, name, doc))
            self.news.notify_all()

    def open(self, batch_id: str, *, from_beginning: bool = False) -> FakeReader:
        """A reader of one batch."""
        reader = FakeReader(self, batch_id, from_beginning=from_beginning)
        self.readers.append(reader)
        return reader


class FakeReader:
    """Reads the messages of one batch from a `FakeSuggestions`."""

    lockstep = False

    def __init__(self, topic: FakeSuggestions, batch_id: str, *, from_beginning: bool) -> None:
        self._topic = topic
        self._key = batch_id
        self._from_beginning = from_beginning
        self._next = 0
        self._end = 0
        self.closed = False

    def start(self, timeout: float) -> bool:
        """Take position, when the topic is reachable."""
        with self._topic.news:
            if not self._topic.news.wait_for(lambda: self._topic.reachable, timeout):
                return False
            self._end = len(self._topic.published)
            self._next = 0 if self._from_beginning else self._end
            return True

    def history(self, timeout: float) -> list[tuple[str, Any]]:
        """What was published before."""
        with self._topic.news:
            past, self._next = self._topic.published[: self._end], self._end
        return self._own(past)

    def read(self, timeout: float) -> list[tuple[str, Any]]:
        """What was published since."""
        with self._topic.news:
            self._topic.news.wait_for(lambda: len(self._topic.published) > self._next, timeout)
            new = self._topic.published[self._next :]
            self._next += len(new)
        return self._own(new)

    def close(self) -> None:
        """Nothing is read any more."""
        self.closed = True

    def _own(self, messages: Iterable[tuple[str, str, Any]]) -> list[tuple[str, Any]]:
        return [(name, doc) for key, name, doc in messages if key == self._key]


# batch_id, count, revision -> messages (name, document) to publish.
Answers = Callable[[str, int, int], Iterable[tuple[str, Any]]]


class FakeRecommender:
    """Stands where the service stands: gets the batch's log, publishes answers.

    :param topic: where the answers go.
    :param answers: what to publish for a count and revision; called after each successful
        run (or event, in event mode), each `refused` event and each `resume` command.
    """

    def __init__(self, topic: FakeSuggestions, answers: Answers) -> None:
        self.log: list[tuple[str, dict[str, Any]]] = []
        self._topic = topic
        self._answers = answers
        self._starts: dict[str, dict[str, Any]] = {}
        self._runs: dict[str, str] = {}
        self._last: dict[str, tuple[int, int]] = {}  # batch -> count and revision answered

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take in a document."""
        self.log.append((name, doc))
        if name == "start":
            self._starts[doc["uid"]] = doc
        elif name == "descriptor":
            self._runs[doc["uid"]] = doc["run_start"]
        elif name == "event":
            start = self._starts[self._runs[doc["descriptor"]]]
            if start["batch_mode"] == "event":
                self._answer(start["batch_id"], start["batch_count"] + doc["seq_num"] - 1, 0)
        elif name == "stop" and doc["exit_status"] == "success":
            start = self._starts[doc["run_start"]]
            if start["batch_mode"] == "run":
                self._answer(start["batch_id"], start["batch_count"], 0)

    def batch_event(self, doc: dict[str, Any]) -> None:
        """Take in an event of the plan."""
        self.log.append(("batch_event", doc))
        if doc["event"] == "refused":
            self._answer(doc["batch_id"], doc["batch_count"], doc["revision"] + 1)

    def command(self, doc: dict[str, Any]) -> None:
        """Take in a command; only `resume` is sent by plans."""
        self.log.append(("command", doc))
        count, revision = self._last[doc["batch_id"]]
        self._answer(doc["batch_id"], count, revision + 1)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The plan's events so far."""
        return [doc for name, doc in self.log if name == "batch_event"]

    @property
    def starts(self) -> list[dict[str, Any]]:
        """The start documents so far."""
        return [doc for name, doc in self.log if name == "start"]

    @property
    def stops(self) -> list[dict[str, Any]]:
        """The stop documents so far."""
        return [doc for name, doc in self.log if name == "stop"]

    def _answer(self, batch_id: str, count: int, revision: int) -> None:
        self._last[batch_id] = (count, revision)
        for name, doc in self._answers(batch_id, count, revision):
            self._topic.publish(name, doc)
