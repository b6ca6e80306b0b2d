"""A recommender in the plan's own process, as bluesky-adaptive 0.4 had it."""

from __future__ import annotations

import queue as queues
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from bluesky_plugins.adaptive.asking import values_of
from bluesky_plugins.adaptive.configuration import PROCESSED
from bluesky_plugins.adaptive.recommenders import NoRecommendation

__all__ = ["InProcessRecommender", "PutQueue", "recommender_factory"]


class PutQueue(Protocol):
    """Where answers are put."""

    def put(self, answer: Any) -> Any:
        """Take a dict of positions, None (no more), or an exception.

        A RequestPause pauses the plan, any other is raised in it.
        """


def recommender_factory(
    recommender: Any,
    independent_keys: Sequence[str],
    dependent_keys: Sequence[str],
    *,
    max_count: int = 10,
    queue: Any = None,
) -> tuple[InProcessRecommender, Any]:
    """Couple a recommender to a plan of the same process.

    :param recommender: has `ingest_many(xs, ys)` and `suggest(n)`, or the older
        `tell_many` and `ask`.
    :param independent_keys: data keys that are moved, in the order of the columns of xs.
    :param dependent_keys: data keys that are measured, in the order of the columns of ys.
    :param max_count: runs up to this batch_count are answered with a point; the next one
        is answered with None at its start.
    :param queue: object with `put(answer)`; None makes a `queue.Queue`.
    :return: the callback for `to_recommender` and the queue for `from_recommender`.
    :raises TypeError: if the recommender lacks these methods.
    :raises ValueError: for a dependent key `processing.<recipe>.<number>`: only the recommender
        service has these.
    """
    processed = [key for key in dependent_keys if key.startswith(PROCESSED)]
    if processed:
        raise ValueError(f"{processed[0]} needs the recommender service: it has processed values")
    answers = queues.Queue() if queue is None else queue
    return (
        InProcessRecommender(
            recommender, independent_keys, dependent_keys, max_count=max_count, queue=answers
        ),
        answers,
    )


class InProcessRecommender:
    """The callback: gathers a run's rows and answers once, after its successful stop.

    Runs without a `batch_count` are none of its business. What goes wrong is an answer too: an
    exception in a callback would keep the stop document from the callbacks after it.
    """

    def __init__(
        self,
        recommender: Any,
        independent_keys: Sequence[str],
        dependent_keys: Sequence[str],
        *,
        max_count: int,
        queue: PutQueue,
    ) -> None:
        self._ingest = _method(recommender, "ingest_many", "tell_many")
        self._suggest = _method(recommender, "suggest", "ask")
        self._independent = list(independent_keys)
        self._dependent = list(dependent_keys)
        self._max_count = max_count
        self._answers = queue
        self._rows: dict[str, list[Mapping[str, Any]]] = {}  # of open runs, by their uid
        self._runs: dict[str, str] = {}  # descriptor -> run
        self._by_event: dict[str, int] = {}  # run in event mode -> its first count

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take in one document."""
        take = {
            "start": self._start,
            "descriptor": self._descriptor,
            "event": self._event,
            "event_page": self._event_page,
            "stop": self._stop,
        }.get(name)
        if take is not None:
            take(doc)

    def command(self, doc: Mapping[str, Any]) -> None:
        """After a pause the plan sends `resume`: suggest again."""
        if doc.get("command") == "resume":
            self._answer()

    def _start(self, doc: Mapping[str, Any]) -> None:
        count = doc.get("batch_count")
        if count is None:
            return
        if doc.get("batch_mode") == "event":
            self._by_event[doc["uid"]] = int(count)
        elif count > self._max_count:
            self._answers.put(None)
            return
        self._rows[doc["uid"]] = []

    def _descriptor(self, doc: Mapping[str, Any]) -> None:
        wanted = {*self._independent, *self._dependent}
        run = doc["run_start"]
        if run not in self._rows:
            return
        # In event mode every event of the primary stream is answered, if only by an error.
        due = run in self._by_event and doc.get("name") == "primary"
        if due or wanted <= set(doc["data_keys"]):
            self._runs[doc["uid"]] = run

    def _event(self, doc: Mapping[str, Any]) -> None:
        run = self._runs.get(doc["descriptor"])
        if run is None:
            return
        wanted = {*self._independent, *self._dependent}
        if wanted <= set(doc["data"]):
            self._rows[run].append(doc["data"])
        if run in self._by_event:
            self._finish(run, self._by_event[run] + doc["seq_num"] - 1)

    def _event_page(self, doc: Mapping[str, Any]) -> None:
        data = doc["data"]
        for index, number in enumerate(doc["seq_num"]):
            row = {key: column[index] for key, column in data.items()}
            self._event({"descriptor": doc["descriptor"], "data": row, "seq_num": number})

    def _stop(self, doc: Mapping[str, Any]) -> None:
        run = doc["run_start"]
        if run not in self._rows:
            return
        if doc["exit_status"] == "success" and run not in self._by_event:
            self._finish(run, 0)
        self._by_event.pop(run, None)
        del self._rows[run]
        self._runs = {key: value for key, value in self._runs.items() if value != run}

    def _finish(self, run: str, count: int) -> None:
        """All rows of one count are there: take them in and answer."""
        rows, self._rows[run] = self._rows[run], []
        if count > self._max_count:
            self._answers.put(None)
            return
        self._answers.put(self._next(rows))

    def _answer(self) -> None:
        self._answers.put(self._next(None))

    def _next(self, rows: Sequence[Mapping[str, Any]] | None) -> Any:
        """The answer, after `rows` were taken in; None: there are none to take in."""
        try:
            if rows is not None:
                self._take_in(rows)
            return values_of(self._suggest(1), self._independent)
        except NoRecommendation:
            return None
        # A RequestPause too. The plan says what it is about.
        except Exception as error:  # noqa: BLE001
            return error

    def _take_in(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            keys = ", ".join([*self._independent, *self._dependent])
            raise LookupError(f"nothing was measured that has all the keys {keys}")
        self._ingest(_table(rows, self._independent), _table(rows, self._dependent))


def _table(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Any:
    """Shape (rows, keys), as floats."""
    return np.array([[float(row[key]) for key in keys] for row in rows])


def _method(recommender: Any, *names: str) -> Callable[..., Any]:
    for name in names:
        found = getattr(recommender, name, None)
        if callable(found):
            return found  # type: ignore[no-any-return]
    raise TypeError(f"a recommender has {' or '.join(names)}; {recommender!r} has none")
