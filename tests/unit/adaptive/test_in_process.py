"""A recommender in the plan's process: one answer a run, whatever documents come."""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
import pytest
from event_model import compose_run
from hypothesis import given
from hypothesis import strategies as st

from bluesky_plugins.adaptive import (
    NoRecommendation,
    RequestPause,
    SequenceRecommender,
    StepRecommender,
    recommender_factory,
)


class Remembering(StepRecommender):
    def __init__(self, step: float) -> None:
        super().__init__(step)
        self.xs: list[Any] = []
        self.ys: list[Any] = []

    def ingest_many(self, xs: Any, ys: Any) -> None:
        self.xs.append(xs.tolist())
        self.ys.append(ys.tolist())
        super().ingest_many(xs, ys)


def run_of(
    callback: Any,
    points: list[float],
    *,
    exit_status: str = "success",
    stream: str = "primary",
    as_page: bool = False,
    **md: Any,
) -> None:
    """A run with these motor positions; the detector reads twice the position."""
    run = compose_run(metadata=md)
    callback("start", run.start_doc)
    keys = {name: {"dtype": "number", "shape": [], "source": ""} for name in ("motor", "det")}
    descriptor = run.compose_descriptor(name=stream, data_keys=keys)
    callback("descriptor", descriptor.descriptor_doc)
    for number, x in enumerate(points, 1):
        event = descriptor.compose_event(
            data={"motor": x, "det": 2 * x}, timestamps={"motor": 0, "det": 0}, seq_num=number
        )
        if as_page:
            columns = {key: [value] for key, value in event["data"].items()}
            page = {"descriptor": event["descriptor"], "seq_num": [number], "data": columns}
            callback("event_page", page)
        else:
            callback("event", event)
    callback("stop", run.compose_stop(exit_status=exit_status))


def contents(answers: queue.Queue[Any]) -> list[Any]:
    found = []
    while not answers.empty():
        found.append(answers.get_nowait())
    return found


@pytest.mark.parametrize("as_page", [False, True])
def test_all_rows_of_a_run_are_taken_in_together_and_answered_once(as_page: bool) -> None:
    recommender = Remembering(1.5)
    callback, answers = recommender_factory(recommender, ["motor"], ["det"])
    run_of(callback, [1.0, 2.0, 3.0], batch_count=0, as_page=as_page)
    assert recommender.xs == [[[1.0], [2.0], [3.0]]]
    assert recommender.ys == [[[2.0], [4.0], [6.0]]]
    assert contents(answers) == [{"motor": 4.5}]


def test_answers_are_plain_floats() -> None:
    callback, answers = recommender_factory(
        SequenceRecommender(np.array([3], dtype=np.int32)), ["motor"], ["det"]
    )
    run_of(callback, [1.0], batch_count=0)
    [answer] = contents(answers)
    assert type(answer["motor"]) is float


def test_a_run_without_batch_count_is_none_of_its_business() -> None:
    recommender = Remembering(1.5)
    callback, answers = recommender_factory(recommender, ["motor"], ["det"])
    run_of(callback, [1.0])
    assert contents(answers) == []
    assert recommender.xs == []


@pytest.mark.parametrize("status", ["abort", "fail"])
def test_a_run_that_failed_is_not_answered(status: str) -> None:
    recommender = Remembering(1.5)
    callback, answers = recommender_factory(recommender, ["motor"], ["det"])
    run_of(callback, [1.0], batch_count=0, exit_status=status)
    assert contents(answers) == []
    assert recommender.xs == []


def test_beyond_max_count_a_run_is_told_once_that_there_is_no_more() -> None:
    recommender = Remembering(1.5)
    callback, answers = recommender_factory(recommender, ["motor"], ["det"], max_count=3)
    run_of(callback, [1.0, 2.0], batch_count=4)
    assert contents(answers) == [None]
    assert recommender.xs == []


def test_in_event_mode_each_event_is_answered_up_to_max_count() -> None:
    callback, answers = recommender_factory(StepRecommender(1), ["motor"], ["det"], max_count=3)
    run_of(callback, [1.0, 2.0, 3.0], batch_count=2, batch_mode="event")
    assert contents(answers) == [{"motor": 2.0}, {"motor": 3.0}, None]


def test_a_recommender_without_more_points_is_none() -> None:
    callback, answers = recommender_factory(SequenceRecommender([1.0]), ["motor"], ["det"])
    run_of(callback, [1.0], batch_count=0)
    run_of(callback, [1.0], batch_count=1)
    assert contents(answers) == [{"motor": 1.0}, None]


def test_older_names_of_methods_serve() -> None:
    class Old:
        def tell_many(self, xs: Any, ys: Any) -> None:
            self.xs = xs

        def ask(self, n: int) -> Any:
            return np.array([self.xs[-1][0] + 1])

    callback, answers = recommender_factory(Old(), ["motor"], ["det"])
    run_of(callback, [1.0], batch_count=0)
    assert contents(answers) == [{"motor": 2.0}]


def test_what_is_no_recommender_is_an_error() -> None:
    with pytest.raises(TypeError, match="ingest_many"):
        recommender_factory(object(), ["motor"], ["det"])


def test_a_pause_is_an_answer_and_resume_asks_again() -> None:
    class Pausing(StepRecommender):
        first = True

        def suggest(self, n: int = 1) -> Any:
            if self.first:
                self.first = False
                raise RequestPause("look")
            raise NoRecommendation("done")

    callback, answers = recommender_factory(Pausing(1), ["motor"], ["det"])
    run_of(callback, [1.0], batch_count=0)
    [pause] = contents(answers)
    assert isinstance(pause, RequestPause)
    callback.command({"command": "resume"})
    assert contents(answers) == [None]


def test_answers_go_to_the_queue_that_was_given() -> None:
    mine: queue.Queue[Any] = queue.Queue()
    callback, answers = recommender_factory(StepRecommender(1), ["motor"], ["det"], queue=mine)
    assert answers is mine
    run_of(callback, [1.0], batch_count=0)
    assert contents(mine) == [{"motor": 2.0}]


class Saying(StepRecommender):
    """Suggests what it was given, or raises it."""

    def __init__(self, answer: Any) -> None:
        super().__init__(1)
        self.answer = answer

    def suggest(self, n: int = 1) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "answer", [4, 4.0, [4], [[4.0]], np.float32(4), np.array(4), np.array([[4]]), {"motor": 4}]
)
def test_all_shapes_of_one_point_are_understood(answer: Any) -> None:
    callback, answers = recommender_factory(Saying(answer), ["motor"], ["det"])
    run_of(callback, [1.0], batch_count=0)
    assert contents(answers) == [{"motor": 4.0}]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("1.5", "no point"),
        (True, "no point"),
        (None, "no point"),
        (1j, "no point"),
        ({"other": 1.0}, "no point"),
        ([1.0, 2.0], "shape"),
        ([[1.0], [2.0]], "shape"),
        (ZeroDivisionError("model"), "model"),
    ],
)
def test_what_goes_wrong_is_the_answer_and_keeps_no_document_from_other_callbacks(
    answer: Any, reason: str
) -> None:
    callback, answers = recommender_factory(Saying(answer), ["motor"], ["det"])
    run_of(callback, [1.0], batch_count=0)
    [error] = contents(answers)
    assert isinstance(error, Exception)
    assert reason in str(error)


def test_a_reading_that_is_no_number_is_the_answer() -> None:
    callback, answers = recommender_factory(StepRecommender(1), ["motor"], ["det"])
    run_of(callback, ["far"], batch_count=0)  # type: ignore[list-item]
    [error] = contents(answers)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("mode", ["run", "event"])
def test_a_key_that_is_not_measured_is_the_answer(mode: str) -> None:
    callback, answers = recommender_factory(StepRecommender(1), ["motor"], ["dett"])
    run_of(callback, [1.0], batch_count=0, batch_mode=mode)
    [error] = contents(answers)
    assert "nothing was measured that has all the keys motor, dett" in str(error)


def test_in_event_mode_other_streams_are_not_answered() -> None:
    callback, answers = recommender_factory(StepRecommender(1), ["motor"], ["dett"])
    run_of(callback, [1.0], batch_count=0, batch_mode="event", stream="baseline")
    assert contents(answers) == []


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4), st.booleans()), max_size=12))
def test_as_many_answers_as_runs_of_the_batch(runs: list[tuple[int, int, bool]]) -> None:
    callback, answers = recommender_factory(StepRecommender(1), ["motor"], ["det"], max_count=5)
    callback("event", {"descriptor": "unknown", "data": {}, "seq_num": 1})
    run_of(callback, [0.0], batch_count=0)
    for count, rows, success in runs:
        status = "success" if success else "fail"
        run_of(callback, [1.0] * rows, batch_count=count, exit_status=status)
    expected = 1 + sum(success or count > 5 for count, _, success in runs)
    assert len(contents(answers)) == expected


def test_a_processed_value_needs_the_service_and_that_is_said_at_once() -> None:
    with pytest.raises(ValueError, match=r"processing\.fit\.peak needs the recommender service"):
        recommender_factory(StepRecommender(1.5), ["motor"], ["det", "processing.fit.peak"])
