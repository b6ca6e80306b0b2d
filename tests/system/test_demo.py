"""`bluesky-plugins demo`, as a new user sees it, and what can be asked afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scenario import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
POINTS = [1.5 * n for n in range(17)]


def run(stack: Any, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bluesky_plugins.cli", *argv],
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def until_ended(stack: Any, batch_id: str) -> None:
    """What the recommender said of a batch is stored a moment after its plan has ended."""

    def ended() -> bool:
        shown = json.loads(run(stack, "batches", "show", batch_id, "--json").stdout or "{}")
        return shown.get("state") == "ended"

    until(ended, "end of the batch in its record", 120.0)


@pytest.fixture(scope="module")
def demo(stack: Any) -> dict[str, Any]:
    done = run(stack, "demo", "--json")
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    until_ended(stack, told["batch_id"])
    return told


def test_demo_takes_seventeen_runs(demo: dict[str, Any]) -> None:
    assert demo["points"] == POINTS
    assert demo["runs"] == len(set(demo["uids"])) == 17
    assert demo["stop_reason"]


def test_demo_leaves_a_picture(demo: dict[str, Any]) -> None:
    assert Path(demo["picture"]).read_bytes().startswith(b"\x89PNG")


def test_demo_leaves_a_running_stack_alone(stack: Any, demo: dict[str, Any]) -> None:
    assert run(stack, "status", "--json").returncode == 0


def test_batch_of_the_demo_is_listed_and_shown(stack: Any, demo: dict[str, Any]) -> None:
    listed = json.loads(run(stack, "batches", "list", "--json").stdout)
    assert demo["batch_id"] in [batch["batch_id"] for batch in listed]
    shown = json.loads(run(stack, "batches", "show", demo["batch_id"], "--json").stdout)
    assert [s["batch_count"] for s in shown["suggestions"]] == list(range(17))


def test_runs_of_the_demo_are_listed_and_shown(stack: Any, demo: dict[str, Any]) -> None:
    listed = json.loads(run(stack, "runs", "list", "--json", "--limit", "100").stdout)
    assert set(demo["uids"]) <= {found["uid"] for found in listed}
    shown = json.loads(run(stack, "runs", "show", demo["uids"][3], "--json").stdout)
    assert shown["start"]["batch_count"] == 3
    assert shown["stop"]["exit_status"] == "success"


def test_replay_of_the_demo_finds_the_same_suggestions(stack: Any, demo: dict[str, Any]) -> None:
    done = run(stack, "batches", "replay", demo["batch_id"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_replay_says_where_an_altered_reading_makes_a_difference(
    stack: Any, demo: dict[str, Any]
) -> None:
    from pymongo import MongoClient

    client: MongoClient[dict[str, Any]] = MongoClient(stack.settings.mongo.address)
    documents = client[stack.settings.database("documents")]
    descriptor = documents["event_descriptor"].find_one({"run_start": demo["uids"][5]})
    assert descriptor is not None
    of_run = {"descriptor": descriptor["uid"]}
    documents["event"].update_one(of_run, {"$set": {"data.motor": 7.0}})
    try:
        done = run(stack, "batches", "replay", demo["batch_id"])
    finally:
        documents["event"].update_one(of_run, {"$set": {"data.motor": 7.5}})
        client.close()
    assert done.returncode == 1
    assert "8.5" in done.stdout


def test_unknown_batch_is_an_error_that_names_it(stack: Any) -> None:
    done = run(stack, "batches", "show", "nothing")
    assert done.returncode == 1
    assert "nothing" in done.stderr


def test_unknown_option_is_bad_usage(stack: Any) -> None:
    assert run(stack, "recorder", "--nonsense").returncode == 2


def test_unknown_setting_is_bad_input(stack: Any, tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text("kafka: {bootstrap_server: x}\n")
    done = run(stack, "runs", "list", "--config", str(config))
    assert done.returncode == 2
    assert "bootstrap_servers" in done.stderr
