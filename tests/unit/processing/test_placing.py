"""A job out of a decision, with each target's own paths."""

from __future__ import annotations

from typing import Any

import pytest

from bluesky_plugins.processing.jobs.job import JobRecord
from bluesky_plugins.processing.jobs.machine import accept
from bluesky_plugins.processing.model import JobState, Resources
from bluesky_plugins.processing.recipes.documents import RunDocuments
from bluesky_plugins.processing.recipes.evaluation import Ending, evaluate
from bluesky_plugins.processing.recipes.paths import PathRule
from bluesky_plugins.processing.recipes.placing import Target, job_of, merged, person_job
from bluesky_plugins.processing.recipes.recipe import Recipe

TARGETS = {
    "slurm": Target(
        name="slurm",
        paths=(PathRule(local="/gpfs/current", remote="/core/1"),),
        resources=Resources(partition="all", memory_mb=1000, features=("big",)),
        programs={"fit": "/opt/fit/bin/fit"},
    ),
    "local": Target(name="local"),
}


def documents(*paths: str, **start: Any) -> RunDocuments:
    one = RunDocuments({"uid": "run-uid", "plan_name": "scan", **start})
    for number, path in enumerate(paths):
        doc = {"uid": f"s{number}", "uri": f"file://{path}", "data_key": f"cam{number}"}
        one = one.with_document("stream_resource", doc)
    return one.with_document("stop", {"exit_status": "success"})


def recipe(*argv: str, **changes: Any) -> Recipe:
    values = {
        "name": "focus",
        "argv": ["/opt/run", *argv],
        "when": {"start": {}},
        "targets": ["slurm", "local"],
        **changes,
    }
    return Recipe.model_validate(values)


def job(one: Recipe, run: RunDocuments, **changes: Any) -> JobRecord:
    ending = Ending.of_run(run)
    (decision,) = evaluate([one], ending)
    assert decision.fires
    return accept(job_of(one, decision, ending, TARGETS, time=1000.0, **changes))


def argvs(one: JobRecord) -> dict[str, tuple[str, ...]]:
    return {place.target: place.argv for place in one.places}


def test_each_target_gets_its_own_paths_and_the_program_as_it_is() -> None:
    one = job(recipe("--in={file.path}", "{start.uid}"), documents("/gpfs/current/raw/f.h5"))
    assert argvs(one) == {
        "slurm": ("/opt/run", "--in=/core/1/raw/f.h5", "run-uid"),
        "local": ("/opt/run", "--in=/gpfs/current/raw/f.h5", "run-uid"),
    }


def test_a_program_below_a_root_is_not_mapped() -> None:
    one = job(recipe(argv=["/gpfs/current/x", "/gpfs/current/y"]), documents())
    assert argvs(one)["slurm"] == ("/gpfs/current/x", "/core/1/y")


def test_a_program_that_a_target_knows_by_name_is_called_by_its_path_there() -> None:
    one = job(recipe(argv=["fit", "fit"]), documents())
    assert argvs(one) == {"slurm": ("/opt/fit/bin/fit", "fit"), "local": ("fit", "fit")}


def test_a_person_s_program_is_found_by_its_name_too() -> None:
    found = person_job(
        ["fit", "x"], [TARGETS["slurm"]], name="p", fresh="1", time=1.0, because="asked"
    )
    assert found.places[0].argv == ("/opt/fit/bin/fit", "x")


def test_the_folder_and_the_environment_are_mapped_too() -> None:
    one = job(
        recipe(directory="/gpfs/current/{start.uid}", environment={"OUT": "/gpfs/current/o"}),
        documents(),
    )
    assert one.places[0].directory == "/core/1/run-uid"
    assert one.places[0].environment == {"OUT": "/core/1/o"}


def test_a_missing_value_fails_the_job_before_any_submission() -> None:
    one = job(recipe("{start.sampel}"), documents(sample="x"))
    assert one.state is JobState.FAILED
    assert one.reason == (
        "{start.sampel} has no value: the start document has no sampel; did you mean sample?"
    )
    assert one.attempt.submissions == 0


def test_a_path_that_is_refused_leaves_the_other_target() -> None:
    one = job(recipe("{start.f}"), documents(f="/gpfs/current/../x"))
    assert (one.state, one.place.target) == (JobState.ACCEPTED, "local")
    assert one.history[-1].text == "slurm cannot take it: /gpfs/current/../x holds .."


def test_a_path_that_must_be_mapped_and_is_not_is_a_fault() -> None:
    one = job(recipe("{file.path}", paths={"demand": True}), documents("/data/f.h5"))
    assert one.state is JobState.FAILED
    assert "slurm cannot take it: /data/f.h5 is below no root" in one.reason


def test_a_target_that_is_not_there_is_passed_over() -> None:
    one = job(recipe(targets=["sulrm", "local"]), documents())
    assert one.place.target == "local"
    assert one.history[-1].text == "sulrm cannot take it: no target is called sulrm"


def test_the_same_run_and_recipe_are_the_same_job() -> None:
    first, second = job(recipe(), documents()), job(recipe(), documents())
    assert first.key == second.key
    assert job(recipe(version="2"), documents()).key != first.key
    assert job(recipe(), documents(), fresh="again").key != first.key
    assert job(recipe(parameters={"a": 1}), documents()).key != first.key


def test_each_event_of_a_run_is_another_job() -> None:
    run = RunDocuments({"uid": "r", "batch_id": "b", "batch_mode": "event"})
    run = run.with_document("descriptor", {"uid": "d", "name": "primary"})
    one = recipe("{event.data.x}", "{batch.batch_count}", when={"start": {}, "after": "point"})
    keys, words = set(), []
    for number in (1, 2):
        doc = {"uid": f"e{number}", "descriptor": "d", "seq_num": number, "data": {"x": number}}
        run = run.with_document("event", doc)
        ending = Ending.of_point(run)
        (decision,) = evaluate([one], ending)
        made = job_of(one, decision, ending, TARGETS, time=1.0)
        keys.add(made.key)
        words.append(made.places[1].argv[1:])
    assert len(keys) == 2
    assert words == [("1", "0"), ("2", "1")]


def test_several_files_are_told_apart_by_their_data_keys() -> None:
    run = documents("/gpfs/current/a", "/gpfs/current/b")
    one = job(recipe("{*files.path}", "{file[cam1].path}"), run)
    assert argvs(one)["local"][1:] == ("/gpfs/current/a", "/gpfs/current/b", "/gpfs/current/b")
    assert "the only file of the run has no path" in job(recipe("{file.path}"), run).reason


def test_a_job_knows_its_own_key() -> None:
    one = job(recipe("{job.key}", "{recipe.name}"), documents())
    assert argvs(one)["local"][1:] == (one.key, "focus")


def test_what_the_recipe_says_of_resources_goes_over_the_target() -> None:
    asked = Resources(partition="gpu", gpus=1, features=("A100",))
    assert merged(asked, TARGETS["slurm"].resources) == Resources(
        partition="gpu", gpus=1, memory_mb=1000, features=("A100", "big")
    )


# ---- a person


def person(argv: tuple[str, ...], *targets: Target, fresh: str = "1") -> JobRecord:
    made = person_job(argv, targets, name="trigger", fresh=fresh, time=1.0, because="ana")
    return accept(made)


def test_a_person_s_words_are_mapped_and_braces_are_braces() -> None:
    one = person(("/opt/x", "/gpfs/current/f", "{start.uid}"), TARGETS["slurm"])
    assert argvs(one)["slurm"] == ("/opt/x", "/core/1/f", "{start.uid}")


def test_a_person_s_job_is_a_new_one_each_time() -> None:
    assert person(("x",), TARGETS["local"]).key != person(("x",), TARGETS["local"], fresh="2").key
    with pytest.raises(ValueError, match="fresh"):
        person(("x",), TARGETS["local"], fresh="")


def test_a_target_s_own_fault_is_the_job_s_reason() -> None:
    down = TARGETS["slurm"].model_copy(update={"fault": "no online nodes are reserved"})
    assert person(("x",), down).reason == "no online nodes are reserved"


def test_a_start_document_may_choose_one_of_the_recipes_targets() -> None:
    one = job(recipe(), documents(processing=[{"name": "focus", "target": "local"}]))
    assert [place.target for place in one.places] == ["local"]


def test_the_chosen_target_makes_no_other_job() -> None:
    chosen = job(recipe(), documents(processing=[{"name": "focus", "target": "local"}]))
    assert chosen.key == job(recipe(), documents()).key
