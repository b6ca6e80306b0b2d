"""Which recipes fire when a run, a point or a batch is over, and the reasons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bluesky_plugins.processing.jobs.job import Subject
from bluesky_plugins.processing.recipes.documents import RunDocuments
from bluesky_plugins.processing.recipes.evaluation import (
    Decision,
    Ending,
    Verdict,
    evaluate,
    with_parameters,
)
from bluesky_plugins.processing.recipes.recipe import Recipe
from bluesky_plugins.processing.recipes.templates import ArgumentError


def recipe(name: str = "focus", **changes: Any) -> Recipe:
    when = {"start": {"plan_name": "scan"}, **changes.pop("when", {})}
    return Recipe.model_validate({"name": name, "argv": ["/bin/x"], "when": when, **changes})


def run(status: str | None = "success", **start: Any) -> RunDocuments:
    documents = RunDocuments({"uid": "run-uid", "plan_name": "scan", **start})
    stop = {"uid": "stop-uid", "run_start": "run-uid", "exit_status": status}
    return documents if status is None else documents.with_document("stop", stop)


def decide(one: Recipe, documents: RunDocuments) -> Decision:
    (decision,) = evaluate([one], Ending.of_run(documents))
    return decision


def test_a_recipe_fires_where_its_filter_fits() -> None:
    decision = decide(recipe(), run())
    assert decision.fires
    assert decision.reason == "the start document has what it asks of plan_name"
    assert decision.subject == Subject(run="run-uid")


def test_a_recipe_without_conditions_fires_after_every_run() -> None:
    decision = decide(recipe(when={"start": {}}), run(plan_name="count"))
    assert (decision.fires, decision.reason) == (True, "it fires after every run")


@pytest.mark.parametrize(
    ("when", "start", "reason"),
    [
        ({}, {"plan_name": "count"}, "plan_name of the start document is 'count', not equals"),
        ({"start": {"sample": "x"}}, {}, "sample of the start document is not there"),
        (
            {"start": {"hints.gap": 1}},
            {"hints": {"gap": 2}},
            "hints.gap of the start document is 2",
        ),
        ({"start": None}, {}, "the start document does not list it in processing"),
        ({"after": "batch"}, {}, "fires after a batch; this is a run"),
        ({"after": "point"}, {}, "fires after a point; this is a run"),
        (
            {"after": "batch"},
            {"batch_id": "b"},
            "fires after a batch; this is a run and a point",
        ),
        ({}, {"processing_of": {"run": "x"}}, "the run is a result of processing"),
    ],
)
def test_a_recipe_that_does_not_fire_says_why(
    when: dict[str, Any], start: dict[str, Any], reason: str
) -> None:
    decision = decide(recipe(when=when), run(**start))
    assert decision.verdict is Verdict.SKIPPED
    assert decision.reason.startswith(reason)


def test_numbers_of_numpy_are_numbers() -> None:
    condition = {"start": {"num_points": {"at_least": 3}}}
    assert decide(recipe(when=condition), run(num_points=np.int64(3))).fires


@pytest.mark.parametrize("status", ["abort", "fail"])
def test_failed_runs_are_skipped_unless_the_recipe_asks(status: str) -> None:
    skipped = decide(recipe(), run(status))
    assert skipped.reason == f"the run's exit status is {status}, and the recipe takes success"
    assert decide(recipe(when={"exit_status": [status]}), run(status)).fires
    assert not decide(recipe(when={"exit_status": [status]}), run("success")).fires


@pytest.mark.parametrize(
    "processing", ["focus", ["focus"], [{"name": "focus"}], ["other", "focus"], ("focus",)]
)
def test_a_recipe_fires_where_it_is_listed(processing: Any) -> None:
    decisions = evaluate([recipe(when={"start": None})], Ending.of_run(run(processing=processing)))
    assert decisions[0].fires
    assert decisions[0].reason == "the start document lists it in processing"


def test_listed_goes_over_the_filter_but_not_over_the_exit_status() -> None:
    listed = {"plan_name": "count", "processing": ["focus"]}
    assert decide(recipe(), run(**listed)).fires
    assert not decide(recipe(), run("fail", **listed)).fires


def test_a_name_that_no_recipe_has_is_told() -> None:
    _, unknown = evaluate([recipe()], Ending.of_run(run(processing=["focsu"])))
    assert (unknown.recipe, unknown.verdict) == ("focsu", Verdict.FAULTY)
    assert unknown.reason == "no recipe is called 'focsu'; did you mean focus?"


@pytest.mark.parametrize(
    "processing", [3, {"nme": "focus"}, [None], [["focus"]], [{"name": "focus", "argv": ["sh"]}]]
)
def test_a_list_that_is_none_is_told_and_fires_nothing(processing: Any) -> None:
    first, *others = evaluate(
        [recipe(when={"start": None})], Ending.of_run(run(processing=processing))
    )
    assert not first.fires
    assert [one.verdict for one in others] == [Verdict.FAULTY]
    assert others[0].reason.startswith("processing of the start document: ")


def test_a_listed_recipe_may_get_parameters() -> None:
    processing = [{"name": "focus", "parameters": {"threshold": 4}}]
    decision = decide(
        recipe(parameters={"threshold": 3.5, "mode": "a"}), run(processing=processing)
    )
    assert decision.parameters == {"threshold": 4.0, "mode": "a"}
    assert isinstance(decision.parameters["threshold"], float)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"treshold": 4}, "recipe focus has no parameter treshold; did you mean threshold?"),
        ({"threshold": "4"}, "parameter threshold: '4': a number is expected"),
        ({"threshold": True}, "parameter threshold: True: a number is expected"),
        ({"mode": 1}, "parameter mode: 1: a text is expected"),
    ],
)
def test_a_wrong_parameter_is_told_and_fires_nothing(given: dict[str, Any], reason: str) -> None:
    one = recipe(parameters={"threshold": 3.5, "mode": "a"})
    decision = decide(one, run(processing=[{"name": "focus", "parameters": given}]))
    assert (decision.verdict, decision.reason) == (Verdict.FAULTY, reason)
    with pytest.raises(ArgumentError):
        with_parameters(one, given)


def test_results_of_processing_are_processed_where_a_recipe_asks_but_never_its_own() -> None:
    one = recipe(when={"analysis": True})
    assert decide(one, run(processing_of={"run": "x", "recipe": "other"})).fires
    assert not decide(one, run(processing_of={"run": "x", "recipe": "focus"})).fires
    chained = run(processing_of={"run": "x", "recipe": "other", "chain": ["focus", "other"]})
    assert decide(one, chained).reason == "the run is a result of this very recipe"
    assert decide(one, run(processing_of="?")).fires


# ---- batches


def test_each_run_of_a_batch_is_a_point_of_it() -> None:
    decision = decide(
        recipe(when={"after": "point"}), run(batch_id="b", batch_count=3, batch_mode="run")
    )
    assert decision.fires
    assert decision.subject == Subject(run="run-uid", batch_id="b", batch_count=3)


def test_a_run_of_a_batch_is_a_run_too() -> None:
    assert decide(recipe(), run(batch_id="b", batch_count=3)).fires


def test_each_event_of_a_run_is_a_point_in_event_mode() -> None:
    documents = run(None, batch_id="b", batch_mode="event", batch_count=10)
    documents = documents.with_document("descriptor", {"uid": "d", "name": "primary"})
    for number in (1, 2, 3):
        event = {"uid": f"e{number}", "descriptor": "d", "seq_num": number, "data": {}}
        documents = documents.with_document("event", event)
    point = Ending.of_point(documents)
    (decision,) = evaluate([recipe(when={"after": "point"})], point)
    assert decision.fires
    assert decision.subject.batch_count == 12
    (whole,) = evaluate(
        [recipe(when={"after": "point"})],
        Ending.of_run(documents.with_document("stop", {"exit_status": "success"})),
    )
    assert whole.reason == "fires after a point; this is a run"


@pytest.mark.parametrize(("outcome", "fires"), [("done", True), ("failed", False)])
def test_a_batch_as_a_whole_is_processed_once_at_its_end(outcome: str, fires: bool) -> None:
    ending = Ending.of_batch(run(batch_id="b"), {"batch_id": "b"}, outcome)
    (decision,) = evaluate([recipe(when={"after": "batch"})], ending)
    assert decision.fires is fires
    assert decision.subject == Subject(batch_id="b")
    if not fires:
        assert decision.reason.startswith("the batch ended as failed, and the recipe takes done")


def test_every_recipe_gets_one_decision_in_order() -> None:
    recipes = [recipe(name) for name in ("a", "b", "c")]
    decisions = evaluate(recipes, Ending.of_run(run()))
    assert [one.recipe for one in decisions] == ["a", "b", "c"]
    assert all(one.reason for one in decisions)


def test_a_run_without_a_stop_document_is_not_over() -> None:
    with pytest.raises(ValueError, match="no stop document"):
        Ending.of_run(run(None))


@pytest.mark.parametrize(
    ("target", "hint"), [("slrum", "did you mean slurm?"), ("gpu", "it has slurm, local")]
)
def test_a_listed_target_that_the_recipe_does_not_have_is_faulty(target: str, hint: str) -> None:
    one = recipe(targets=["slurm", "local"])
    decision = decide(one, run(processing=[{"name": "focus", "target": target}]))
    assert decision.verdict is Verdict.FAULTY
    assert decision.reason == f"recipe focus has no target {target}; {hint}"


def test_a_listed_target_is_said_in_the_reason() -> None:
    one = recipe(targets=["slurm", "local"])
    decision = decide(one, run(processing=[{"name": "focus", "target": "local"}]))
    assert decision.reason == "the start document lists it in processing, for local"
