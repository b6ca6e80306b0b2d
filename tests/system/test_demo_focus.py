"""`bluesky-plugins demo-focus`, as a new user sees it, and what can be asked of its jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest
from pymongo import MongoClient

from bluesky_plugins.cli.programs import make_program
from tests.scenario import until
from tests.system.test_demo import until_ended

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def run(stack: Any, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bluesky_plugins.cli", *argv],
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def asked(stack: Any, *argv: str) -> Any:
    done = run(stack, *argv, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def told(stack: Any) -> subprocess.CompletedProcess[str]:
    done = run(stack, "demo-focus", "--json")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def demo(stack: Any, told: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    until_ended(stack, found["batch_id"])
    return found


@pytest.fixture(scope="module")
def jobs(stack: Any, demo: dict[str, Any]) -> list[dict[str, Any]]:
    """Its jobs, in the order of their points."""
    listed = asked(stack, "jobs", "list", "--batch", demo["batch_id"])
    return sorted(listed, key=lambda job: job["batch_count"])


def test_it_ends_near_the_true_focus(demo: dict[str, Any]) -> None:
    assert demo["best"] == pytest.approx(demo["true"], abs=0.2)


def test_each_of_its_runs_was_reduced_by_a_job(
    demo: dict[str, Any], jobs: list[dict[str, Any]]
) -> None:
    assert demo["runs"] == demo["jobs"] == len(jobs) >= 5
    assert [job["batch_count"] for job in jobs] == list(range(demo["runs"]))
    assert {(job["recipe"], job["state"], job["target"]) for job in jobs} == {
        ("focus", "succeeded", "local")
    }


def test_it_leaves_a_picture(demo: dict[str, Any]) -> None:
    assert Path(demo["picture"]).read_bytes().startswith(b"\x89PNG")


def test_its_table_has_a_row_for_each_run_with_what_its_job_found(
    told: subprocess.CompletedProcess[str], jobs: list[dict[str, Any]]
) -> None:
    for job in jobs:
        (row,) = [line for line in told.stderr.splitlines() if f"  {job['key'][:16]}  " in line]
        assert row.split()[0] == str(job["batch_count"])
        assert f"{job['numbers']['width']:.3f}" in row


def test_it_says_what_the_plan_waits_for(told: subprocess.CompletedProcess[str]) -> None:
    assert "waits for recipe focus" in told.stderr


def test_it_says_why_it_ended(told: subprocess.CompletedProcess[str]) -> None:
    assert "runs in" in told.stderr
    assert "; the best focus is " in told.stderr


def test_explain_says_of_a_run_why_it_was_processed(stack: Any, jobs: list[dict[str, Any]]) -> None:
    (focus,) = asked(stack, "jobs", "explain", jobs[1]["run"])["recipes"]
    assert (focus["recipe"], focus["verdict"]) == ("focus", "fires")
    assert focus["reason"] == "the start document lists it in processing, for local"
    assert [job["key"] for job in focus["jobs"]] == [jobs[1]["key"]]


def test_show_answers_what_can_be_asked_of_a_job(stack: Any, jobs: list[dict[str, Any]]) -> None:
    job = asked(stack, "jobs", "show", jobs[2]["key"][:16])
    program, option, frames = job["argv"]
    assert Path(program) == stack.state_dir / "programs" / "focus" / "bin" / "reduce-focus"
    assert option == "--saturation=65535.0"
    with h5py.File(frames) as file:
        assert file["/entry/data"].shape == (1, 48, 64)
    assert job["because"] == "the start document lists it in processing, for local"
    assert job["submissions"] == 1
    assert set(job["numbers"]) == {"x", "y", "width"}
    files = {Path(output["path"]).name for output in job["outputs"]}
    assert files == {"numbers.json", "reduced.h5"}


def test_show_says_which_point_a_job_decided(
    stack: Any, demo: dict[str, Any], jobs: list[dict[str, Any]]
) -> None:
    shown = asked(stack, "batches", "show", demo["batch_id"])
    for job in (jobs[2], jobs[-1]):
        decided = asked(stack, "jobs", "show", job["key"])["decided"]
        (answer,) = [a for a in shown["suggestions"] if a["batch_count"] == job["batch_count"]]
        assert decided["action"] == answer["action"]
        assert decided["point"] == answer["point"]
    assert decided["action"] == "stop"


def test_replay_of_its_batch_finds_the_same_suggestions(
    stack: Any, demo: dict[str, Any], jobs: list[dict[str, Any]]
) -> None:
    of_runs = {"run_start": {"$in": [job["run"] for job in jobs]}}
    with MongoClient[dict[str, Any]](stack.settings.mongo.address) as client:
        stops = client[stack.settings.database("documents")]["run_stop"]
        until(lambda: stops.count_documents(of_runs) == len(jobs), "stop of each run", 120.0)
    done = run(stack, "batches", "replay", demo["batch_id"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_target_that_is_away_is_named_with_the_way_to_it(stack: Any) -> None:
    away = {**stack.environment, "BLUESKY_PLUGINS_PROCESSING__TARGETS": json.dumps(AWAY)}
    done = subprocess.run(
        [sys.executable, "-m", "bluesky_plugins.cli", "demo-focus", "--target", "slurm"],
        env=away,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 1
    assert "target slurm does not answer at 127.0.0.1:1 " in done.stderr
    assert "launchers/start_compute_pod.sh" in done.stderr


AWAY = {
    "slurm": {"kind": "slurm", "via": "openssh", "host": "127.0.0.1", "port": 1, "work_dir": "/x"}
}


def test_a_program_that_was_made_half_is_made_again(tmp_path: Path) -> None:
    left = tmp_path / "programs" / ".focus-left"
    (left / "bin").mkdir(parents=True)
    said: list[str] = []
    program = make_program(tmp_path, said.append)
    assert (len(said), left.exists()) == (1, False)
    (program.parents[1] / ".made-from").write_text("something else")
    program.unlink()
    assert make_program(tmp_path, said.append) == make_program(tmp_path, said.append)
    assert len(said) == 2
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("usage: reduce-focus")
    assert [path.name for path in (tmp_path / "programs").glob(".focus-*-old")] == []
