"""A batch whose recommender takes processed values: what it awaits, and what ends that."""

from __future__ import annotations

from typing import Any

import pytest

from bluesky_plugins.adaptive import Action
from bluesky_plugins.adaptive.dependence import Dependence
from bluesky_plugins.adaptive.model import BatchMode, Suggestion
from bluesky_plugins.adaptive.registry import Registry
from bluesky_plugins.adaptive.renewing import awaiting
from bluesky_plugins.adaptive.state import Wait, story
from bluesky_plugins.processing import Recipe
from bluesky_plugins.testing.batches import (
    Bench,
    batch_event,
    command,
    descriptor,
    event,
    opened,
    refused,
    result,
    rules,
    run,
    start,
    stop,
)

PEAK = "processing.fit.peak"


class Listing:
    """Goes up by one; keeps what it was told."""

    def __init__(self) -> None:
        self.rows: list[Any] = []

    def ingest_many(self, xs: Any, ys: Any) -> None:
        self.rows.append((xs.tolist(), ys.tolist()))

    def suggest(self, n: int) -> float:
        return float(len(self.rows))


def listing(*keys: str, **changes: Any) -> tuple[Bench, Listing]:
    recommender = Listing()
    registry = Registry({"listing": lambda: recommender})
    given = {"name": "listing", "parameters": {}, "dependent_keys": list(keys or (PEAK,))}
    bench = Bench(rules(registry, **given, **changes), registry)
    bench.feed(opened())
    return bench, recommender


def row(x: float, y: float = 1.0) -> dict[str, float]:
    return {"motor": x, "det": y}


def stopped(answers: list[Suggestion]) -> str:
    (answer,) = answers
    assert answer.action is Action.STOP
    return answer.reason


def test_a_count_is_answered_when_the_result_of_its_run_is_in_the_log() -> None:
    bench, recommender = listing()
    assert bench.feed(*run(0, row(2.0))) == []
    assert bench.state.awaited is not None
    (answer,) = bench.feed(result("run0", peak=4.0))
    assert recommender.rows == [([[2.0]], [[4.0]])]
    assert (answer.batch_count, answer.revision, answer.point) == (0, 0, {"motor": 1.0})
    assert bench.state.awaited is None
    assert bench.violations == []


def test_an_answer_and_its_revisions_name_the_jobs_that_they_came_from() -> None:
    bench, _ = listing(PEAK, "processing.b.peak")
    bench.feed(*run(0, row(2.0)), result("run0", peak=4.0, key="k1"))
    (answer,) = bench.feed(result("run0", recipe="b", peak=4.0, key="k2"))
    assert answer.jobs == ("k1", "k2")
    (revised,) = bench.feed(refused(answer))
    assert (revised.revision, revised.jobs) == (1, ("k1", "k2"))
    bench.feed(*run(1, row(2.0)))
    (failed,) = bench.feed(result("run1", state="failed", key="k3"))
    assert failed.jobs == ("k3",)


def test_a_result_may_be_in_the_log_before_the_runs_stop() -> None:
    bench, recommender = listing()
    documents = run(0, row(2.0))
    bench.feed(*documents[:-1], result("run0", peak=4.0))
    (answer,) = bench.feed(documents[-1])
    assert recommender.rows == [([[2.0]], [[4.0]])]
    assert answer.action is Action.MOVE


def test_values_stand_in_the_order_of_the_keys_and_with_the_last_row_of_the_run() -> None:
    bench, recommender = listing("processing.b.peak", "det", PEAK)
    bench.feed(*run(0, row(1.0, 10.0), row(2.0, 20.0)))
    assert bench.feed(result("run0", peak=4.0)) == []
    assert len(bench.feed(result("run0", recipe="b", peak=5.0))) == 1
    assert recommender.rows == [([[2.0]], [[5.0, 20.0, 4.0]])]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"state": "failed", "reason": "exit status 3"}, "failed, exit status 3"),
        ({"values": {"processing.fit.width": 1.0}}, f"succeeded without {PEAK}"),
        ({"peak": float("nan")}, f"{PEAK} is nan"),
    ],
)
def test_a_result_that_cannot_be_used_stops_the_batch_and_says_why(
    fields: dict[str, Any], said: str
) -> None:
    bench, recommender = listing()
    bench.feed(*run(0, row(2.0)))
    reason = stopped(bench.feed(result("run0", key="1cc" + 61 * "0", **fields)))
    assert reason.startswith("recipe fit for run run0: job 1cc")
    assert reason.endswith(said)
    assert recommender.rows == []


def test_a_failed_result_stops_the_batch_although_others_are_missing() -> None:
    bench, _ = listing(PEAK, "processing.b.peak")
    bench.feed(*run(0, row(2.0)))
    assert "failed" in stopped(bench.feed(result("run0", recipe="b", state="failed")))


def test_the_first_result_decides_and_later_ones_are_told() -> None:
    bench, recommender = listing()
    bench.feed(result("run0", peak=4.0), result("run0", peak=5.0), *run(0, row(2.0)))
    assert bench.feed(result("run0", peak=6.0, count=0)) == []
    assert recommender.rows == [([[2.0]], [[4.0]])]
    assert [line.text for line in story(bench.state)].count("it comes too late: no effect") == 2


def test_results_of_other_runs_and_recipes_decide_nothing() -> None:
    bench, _ = listing()
    bench.feed(*run(0, row(2.0)))
    assert bench.feed(result("run9", peak=4.0), result("run0", recipe="other", peak=4.0)) == []
    assert len(bench.feed(result("run0", peak=4.0))) == 1


def test_a_count_measured_again_while_it_is_awaited_is_no_data() -> None:
    bench, recommender = listing()
    bench.feed(*run(0, row(2.0), uid="a"))
    bench.feed(*run(0, row(3.0), uid="b"))
    assert bench.feed(result("b", peak=9.0)) == []
    assert len(bench.feed(result("a", peak=4.0))) == 1
    assert recommender.rows == [([[2.0]], [[4.0]])]


def test_a_later_count_is_awaited_in_the_place_of_an_earlier_one() -> None:
    bench, recommender = listing()
    bench.feed(*run(0, row(2.0)), *run(1, row(3.0)))
    assert bench.feed(result("run0", peak=4.0)) == []
    (answer,) = bench.feed(result("run1", peak=5.0))
    assert answer.batch_count == 1
    assert recommender.rows == [([[3.0]], [[5.0]])]


def test_in_event_mode_the_result_of_each_event_answers_it() -> None:
    bench, recommender = listing()
    bench.feed(opened(batch_mode="event"), start(0, "r", batch_mode="event"), descriptor("r"))
    for number in (1, 2, 3):
        assert bench.feed(event("r", row(number), number)) == []
        assert bench.feed(result("r", count=number + 7, peak=0.0)) == []
        (answer,) = bench.feed(result("r", count=number - 1, peak=10.0 * number))
        assert answer.batch_count == number - 1
    assert bench.feed(stop("r")) == []
    assert [ys for _, ys in recommender.rows] == [[[10.0]], [[20.0]], [[30.0]]]


def test_a_stop_answers_the_awaited_count_at_once() -> None:
    bench, _ = listing()
    bench.feed(*run(0, row(2.0)))
    assert "stop by a person: enough" in stopped(bench.feed(command("stop", reason="enough")))
    assert bench.feed(result("run0", peak=4.0, count=0)) == []


def test_a_pause_is_given_with_the_results_and_a_resume_goes_on_from_them() -> None:
    bench, recommender = listing()
    bench.feed(*run(0, row(2.0)))
    assert bench.feed(command("pause")) == []
    (pause,) = bench.feed(result("run0", peak=4.0))
    assert pause.action is Action.PAUSE
    (move,) = bench.feed(command("resume"))
    assert (move.batch_count, move.revision, move.action) == (0, 1, Action.MOVE)
    assert recommender.rows == [([[2.0]], [[4.0]])]


def test_nothing_is_awaited_for_a_batch_that_ended() -> None:
    bench, recommender = listing()
    bench.feed(*run(0, row(2.0)), batch_event("ended", outcome="failed"))
    assert bench.state.awaited is None
    assert bench.feed(result("run0", peak=4.0)) == []
    bench.feed(opened(resume=True), *run(0, row(3.0), uid="again"))
    assert len(bench.feed(result("again", peak=5.0))) == 1
    assert recommender.rows == [([[3.0]], [[5.0]])]


def test_while_results_are_awaited_the_plan_is_told_and_nothing_changes() -> None:
    bench, _ = listing()
    bench.feed(*run(0, row(2.0)))
    state = bench.state
    bench.tick(now=101.0)
    (wait,) = bench.waits
    assert isinstance(wait, Wait)
    assert (wait.awaited.count, wait.awaited.run, wait.recipes) == (0, "run0", ("fit",))
    assert bench.state is state
    bench.feed(result("run0", peak=4.0))
    bench.tick(now=102.0)
    assert len(bench.waits) == 1


def test_a_result_that_never_comes_stops_the_batch_and_says_so() -> None:
    bench, _ = listing(processing_wait=30.0)
    bench.feed(*run(0, row(2.0)))
    bench.tick(now=129.0)
    assert bench.suggestions == []
    bench.tick(now=131.0)
    assert "no result of recipe fit for run run0 after 30 s" in stopped(bench.suggestions)


def test_giving_up_has_no_effect_once_the_result_was_there() -> None:
    bench, _ = listing(processing_wait=30.0)
    bench.feed(*run(0, row(2.0)))
    bench.hold = True
    bench.tick(now=131.0)
    bench.feed(result("run0", peak=4.0))
    bench.release()
    assert [one.action for one in bench.suggestions] == [Action.MOVE]
    assert bench.state.stop_requested is None


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("processing.fit.width", "no number width of fit in run mode"),
        ("processing.fit", "it is not processing.<recipe>.<number>"),
        ("processing.fit.a.b", "it is not processing.<recipe>.<number>"),
        ("processing..a", "it is not processing.<recipe>.<number>"),
    ],
)
def test_a_value_that_will_never_be_there_stops_the_batch_at_its_first_count(
    key: str, said: str
) -> None:
    def unknown(key: str, mode: BatchMode) -> str:
        return f"{key}: no number width of fit in {mode} mode"

    bench, _ = listing(key, unknown=unknown)
    reason = stopped(bench.feed(*run(0, row(2.0))))
    assert reason == f"dependent key {key}: {said}"


def test_the_plan_is_told_the_run_the_recipes_and_where_their_jobs_are() -> None:
    bench, _ = listing(PEAK, "processing.cut.peak")
    bench.feed(*run(0, row(2.0)))
    bench.tick(now=101.0)

    def progress(run: str, count: int, recipe: str) -> str | None:
        return f"job of {run} at {count}" if recipe == "fit" else None

    waiting = awaiting(bench.waits[0], progress, until=130.0)
    assert (waiting.batch_id, waiting.batch_count, waiting.until) == ("b0", 0, 130.0)
    assert waiting.reason == (
        "results of processing for run run0: recipe fit, job of run0 at 0; recipe cut"
    )


POINTS_ONLY = {"after": "point", "start": {}}


@pytest.mark.parametrize(
    ("when", "key", "mode", "said"),
    [
        ({}, PEAK, "run", None),
        (POINTS_ONLY, PEAK, "run", None),
        (POINTS_ONLY, PEAK, "event", None),
        ({}, PEAK, "event", "fires `after: run`, and a point here is an event"),
        (
            {"after": "batch", "start": {}},
            PEAK,
            "run",
            "fires `after: batch`, and a point here is a run",
        ),
        ({}, "processing.fit.width", "run", "has no number width; it has peak"),
        ({}, "processing.fti.peak", "run", "there is no recipe fti"),
    ],
)
def test_the_service_knows_which_values_its_recipes_can_bring(
    when: dict[str, Any], key: str, mode: str, said: str | None
) -> None:
    recipe = Recipe.model_validate(
        {"name": "fit", "when": when, "argv": ["/bin/fit"], "result": {"numbers": ["peak"]}}
    )

    class Processing:
        recipes = (recipe,)

    found = Dependence(Processing()).unknown(key, BatchMode(mode))
    assert (found is None) if said is None else (found is not None and said in found)


def test_a_service_without_processing_says_so() -> None:
    assert Dependence(None).unknown(PEAK, BatchMode.RUN) == f"{PEAK}: this service does not process"
