"""A batch that waits for a recipe hears at once that it did not fire."""

from __future__ import annotations

from typing import Any

import pytest

from bluesky_plugins.adaptive import Result
from bluesky_plugins.processing.recipes.documents import RunDocuments
from bluesky_plugins.processing.recipes.evaluation import Ending
from bluesky_plugins.processing.recipes.recipe import Recipe
from bluesky_plugins.processing.service.acceptance import Acceptance
from bluesky_plugins.processing.service.results import Outgoing
from bluesky_plugins.testing import composed_run
from bluesky_plugins.testing.job_store import MemoryJobStore

FIT: dict[str, Any] = {"name": "fit", "argv": ["/bin/fit"], "result": {"numbers": ["peak"]}}
OF_SCANS = {"start": {"plan_name": "scan"}}
WANTS = {"recommender": {"name": "step", "dependent_keys": ["processing.fit.peak"]}}


def told(
    when: dict[str, Any], start: dict[str, Any], wanted: tuple[str, ...] = (), **changes: Any
) -> list[Outgoing]:
    """What a batch is told at the end of its run 7, of plan `count`: the same when read again."""
    run: RunDocuments | None = None
    start = {"batch_id": "b", "batch_count": 7, "batch_mode": "run", **start}
    for name, doc in composed_run(1, **start):
        doc = {**doc, **changes} if name == "stop" else doc
        run = RunDocuments(start=doc) if run is None else run.with_document(name, doc)
    assert run is not None
    messages: list[Outgoing] = []
    acceptance = Acceptance(
        MemoryJobStore(),
        [Recipe.model_validate({**FIT, "when": when})],
        {},
        reachable=lambda target: None,
        alert=lambda message: None,
        tell=messages.append,
        wanted=wanted,
    )
    acceptance.ending(Ending.of_run(run), "here")
    once = list(messages)
    acceptance.ending(Ending.of_run(run), "read again")
    assert messages == once * 2
    return once


def test_the_batch_gets_a_failed_result_with_the_explanation() -> None:
    ((topic, key, name, doc),) = told(OF_SCANS | {"after": "point"}, WANTS)
    assert (topic, key, name) == ("adaptive", "b", "result")
    result = Result.model_validate(doc)
    assert (result.recipe, result.batch_count, result.state) == ("fit", 7, "failed")
    assert result.reason.startswith("it did not fire: plan_name of the start document is 'count'")


def test_the_settings_say_what_is_wanted_where_the_start_document_does_not() -> None:
    assert len(told(OF_SCANS, {"recommender": {"name": "step"}}, wanted=("fit",))) == 1
    other = {"recommender": {"name": "step", "dependent_keys": ["det"]}}
    assert told(OF_SCANS, other, wanted=("fit",)) == []


@pytest.mark.parametrize(
    ("when", "start", "changes"),
    [
        (OF_SCANS, {}, {}),  # nobody waits for it
        ({"start": {}}, WANTS, {}),  # it fires
        ({"after": "batch", "start": {}}, WANTS, {}),  # this is not its occasion
        (OF_SCANS, WANTS | {"batch_id": None}, {}),  # there is no batch
        (OF_SCANS, WANTS | {"batch_mode": "event"}, {}),  # each event is a point, not the run
        (OF_SCANS, WANTS, {"exit_status": "abort"}),  # the run does not count
    ],
)
def test_nothing_is_told_where_nobody_waits(
    when: dict[str, Any], start: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert told(when, start, **changes) == []
