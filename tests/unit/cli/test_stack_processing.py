"""What an embedded stack processes with, as long as nobody sets anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bluesky_plugins.cli.stack_processing import example, processing_defaults
from bluesky_plugins.processing import RunDocuments, read_recipes, recipes_of
from bluesky_plugins.processing.recipes.evaluation import Ending, evaluate
from bluesky_plugins.processing.recipes.placing import job_of
from bluesky_plugins.processing.targets.named import sites_of
from bluesky_plugins.settings import Settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """As a stack in a state folder has them."""
    monkeypatch.setenv("BLUESKY_PLUGINS_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("BLUESKY_PODS_DIR", str(tmp_path / "pods"))
    defaults = processing_defaults(Settings(), tmp_path)
    return Settings.model_validate({"processing": defaults})


def run(root: Path, **start: Any) -> RunDocuments:
    documents = RunDocuments({"uid": "run-uid", **start})
    resource = {"uid": "r", "root": str(root / "camera"), "resource_path": "2026/11/c_1.h5"}
    return documents.with_document("resource", resource).with_document("stop", {})


def test_every_stack_has_the_recipe_on_both_targets(settings: Settings, tmp_path: Path) -> None:
    ending = Ending.of_run(run(tmp_path, processing=["focus"]))
    (decision,) = evaluate(recipes_of(settings), ending)
    targets = {name: site.target for name, site in sites_of(settings).items()}
    job = job_of(recipes_of(settings)[0], decision, ending, targets, time=0.0)
    assert [(place.target, place.argv, place.fault) for place in job.places] == [
        (
            "local",
            (
                str(tmp_path / "programs/focus/bin/reduce-focus"),
                "--saturation=65535.0",
                str(tmp_path / "camera/2026/11/c_1.h5"),
            ),
            "",
        ),
        (
            "slurm",
            (
                "/opt/focus/bin/reduce-focus",
                "--saturation=65535.0",
                "/beamline/data/2026/11/c_1.h5",
            ),
            "",
        ),
    ]


def test_the_recipe_fires_only_where_it_is_listed(settings: Settings, tmp_path: Path) -> None:
    (decision,) = evaluate(recipes_of(settings), Ending.of_run(run(tmp_path)))
    assert not decision.fires


def test_the_key_of_the_compute_pod_is_where_the_pods_keep_theirs(
    settings: Settings, tmp_path: Path
) -> None:
    slurm: Any = settings.processing.targets["slurm"]
    assert slurm.keys == (tmp_path / "pods/compute/id_ed25519",)
    assert slurm.known_hosts == tmp_path / "pods/compute/known_hosts"


@pytest.mark.parametrize(
    ("own", "left"),
    [
        ({"recipes": "/etc/recipes.yaml"}, {"targets"}),
        ({"targets": {"here": {"kind": "local"}}}, {"recipes"}),
    ],
)
def test_what_a_person_has_set_is_left_alone(
    tmp_path: Path, own: dict[str, Any], left: set[str]
) -> None:
    settings = Settings.model_validate({"processing": own})
    assert set(processing_defaults(settings, tmp_path)) == left


def test_the_lock_that_is_shipped_is_the_one_of_the_image() -> None:
    of_image = (ROOT / "image_builders" / "focus.lock").read_text()
    assert example("focus.lock").read_text() == of_image, "bash launchers/lock.sh --images"


def test_the_examples_of_recipes_can_be_read() -> None:
    assert [recipe.name for recipe in read_recipes(example("recipes.yaml").read_text())]
