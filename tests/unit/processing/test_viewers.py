"""Viewers begin with a run; the one that comes with the package draws what was measured."""

from __future__ import annotations

from typing import Any

import pytest

from bluesky_plugins.processing import JobRecord, RecipeError, explain_run, read_recipes
from bluesky_plugins.processing.examples.follow_scan import Points
from bluesky_plugins.processing.recipes.documents import RunDocuments
from bluesky_plugins.processing.recipes.evaluation import Ending, evaluate
from bluesky_plugins.processing.recipes.placing import Target
from bluesky_plugins.processing.recipes.recipe import Recipe
from bluesky_plugins.processing.service.acceptance import Acceptance
from bluesky_plugins.processing.service.endings import Place, Runs
from bluesky_plugins.testing import composed_run
from bluesky_plugins.testing.job_store import MemoryJobStore

FOLLOW: dict[str, Any] = {
    "name": "follow",
    "kind": "viewer",
    "when": {"after": "start", "start": {"plan_name": "count"}},
    "argv": ["/bin/plot", "{start.uid}"],
}
VIEWER = Recipe.model_validate(FOLLOW)
REDUCE = Recipe.model_validate({"name": "reduce", "argv": ["/bin/x"], "when": {"start": {}}})


def begun(documents: list[tuple[str, dict[str, Any]]]) -> Ending:
    """What the start document of a run gives, of all its documents."""
    runs = Runs()
    found = [
        one for n, doc in enumerate(documents) for one in runs.read(*doc, Place("documents", 0, n))
    ]
    first = found[0]
    assert isinstance(first, Ending)
    assert first.run.stop is None
    return first


def accepted(late_s: float) -> list[JobRecord]:
    """The jobs of a run's start that is seen so much later."""
    ending = begun(composed_run(1))
    acceptance = Acceptance(
        MemoryJobStore(),
        [VIEWER, REDUCE],
        {"local": ("local", Target(name="local"))},
        reachable=lambda target: None,
        alert=lambda message: None,
        tell=lambda message: None,
        clock=lambda: float(ending.run.start["time"]) + late_s,
    )
    return acceptance.ending(ending, "here")


def test_a_run_s_start_starts_the_viewers_and_nothing_else() -> None:
    (job,) = accepted(late_s=1.0)
    assert (job.recipe, job.kind) == ("follow", "viewer")
    assert job.places[0].argv == ("/bin/plot", job.subject.run)


def test_a_run_that_began_long_ago_gets_no_viewer() -> None:
    assert accepted(late_s=3600.0) == []


def test_at_the_end_of_a_run_its_viewer_does_not_fire_again() -> None:
    run = finished(composed_run(1))
    viewer, reduce = evaluate([VIEWER, REDUCE], Ending.of_run(run))
    assert (viewer.fires, reduce.fires) == (False, True)
    assert viewer.reason == "fires at the start of a run; this is a run"


def finished(documents: list[tuple[str, dict[str, Any]]]) -> RunDocuments:
    run = RunDocuments(start=documents[0][1])
    for name, doc in documents[1:]:
        run = run.with_document(name, doc)
    return run


class Recorded:
    """A database with one run."""

    def __init__(self, documents: list[tuple[str, dict[str, Any]]]) -> None:
        self._documents = documents

    def documents(self, uid: str) -> list[tuple[str, dict[str, Any]]]:
        return self._documents

    def last_of_batch(self, batch_id: str) -> None:
        return None


@pytest.mark.parametrize(
    ("plan", "verdict", "reason"),
    [
        ("count", "fires", "the start document has what it asks of plan_name"),
        ("scan", "skipped", "plan_name of the start document is 'scan', not equals 'count'"),
    ],
)
def test_a_viewer_is_explained_by_the_start_of_the_run(
    plan: str, verdict: str, reason: str
) -> None:
    source = Recorded(composed_run(1, plan_name=plan))
    found = explain_run(MemoryJobStore(), [VIEWER], source, "any")
    assert found is not None
    (told,) = found["recipes"]
    assert (told["verdict"], told["reason"]) == (verdict, reason)


def test_only_a_viewer_may_begin_with_a_run() -> None:
    text = "recipes: [{name: r, argv: [/bin/x], when: {after: start}}]"
    with pytest.raises(RecipeError, match="after: start is for viewers"):
        read_recipes(text)


def test_the_plot_has_the_points_of_its_run_and_no_other_s() -> None:
    documents = composed_run(3)
    points = Points(str(documents[0][1]["uid"]), "", "det")
    for name, doc in [*composed_run(2), *documents]:
        points.take(name, doc)
    assert (points.xs, points.ys, points.ended) == ([1.0, 2.0, 3.0], [0.0, 1.0, 2.0], "success")
