"""Processing inside the loop: each point of a scan is decided by what its job found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from bluesky import RunEngine

from bluesky_plugins.messaging import make_topics
from bluesky_plugins.plans import JobFailed, trigger_and_wait
from bluesky_plugins.processing import Trigger, TriggerMethod
from bluesky_plugins.settings import Settings
from tests.system.conftest import DEADLINE, Loop, Process

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

# For each point it waits for a file; another one makes it fail.
REDUCE = """\
import json, pathlib, sys, threading
folder, count, value = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
while not any((folder / name).exists() for name in ("open", f"open-{count}")):
    threading.Event().wait(0.02)
if (folder / f"fail-{count}").exists():
    sys.exit(f"no peak at point {count}")
pathlib.Path("numbers.json").write_text(json.dumps({"peak": value}))
"""
STEPS = {
    "name": "step",
    "parameters": {"step": 1.5},
    "max_count": 3,
    "dependent_keys": ["processing.reduce.peak"],
}
POINTS = [0.0, 1.5, 3.0, 4.5, 6.0]


class Bench(Loop):
    """Services, a recipe of each point, and one of the whole batch."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.folder = folder
        program = folder / "reduce.py"
        program.write_text(REDUCE)
        point = {
            "name": "reduce",
            "when": {"after": "point", "start": {"batch_id": {"present": True}}},
            "argv": [
                *(sys.executable, str(program), str(folder)),
                *("{batch.batch_count}", "{event.data.det}"),
            ],
            "result": {"numbers": ["peak"]},
            # It waits for the test, and that for services that start.
            "resources": {"time_limit_s": 600},
        }
        listed = {**point, "name": "listed", "when": {"after": "point"}}
        whole = {
            "name": "whole",
            "when": {"after": "batch", "start": {}},
            "argv": ["/bin/echo", "{batch.batch_id}", "{start.batch_count}"],
        }
        recipes = folder / "recipes.yaml"
        recipes.write_text(json.dumps({"recipes": [point, listed, whole]}))
        self.environment |= {
            "BLUESKY_PLUGINS_PROCESSING__RECIPES": str(recipes),
            "BLUESKY_PLUGINS_PROCESSING__POLL_SECONDS": "0.2",
            "BLUESKY_PLUGINS_PROCESSING__DOUBT_SECONDS": "2",
        }

    def touch(self, name: str) -> None:
        (self.folder / name).touch()

    def recommender(self) -> Process:
        process = self.run("-m", "bluesky_plugins.cli", "recommender")
        self.ready(process)
        return process

    def ready(self, process: Process) -> None:
        """Until it answers and processing reads."""
        self.url = process.line("recommender ready").split()[-1]
        self.until(lambda: self.health()["ready"], "processing")

    def health(self) -> dict[str, Any]:
        return dict(self.get("/healthz")["processing"])

    def get(self, path: str) -> Any:
        """What the recommender says over HTTP."""
        return httpx.get(f"{self.url}{path}", timeout=DEADLINE).json()

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bluesky_plugins.cli", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def told(self, *arguments: str) -> Any:
        done = self.command(*arguments, "--json")
        assert done.returncode == 0, done.stderr + done.stdout
        return json.loads(done.stdout)

    def batch(self) -> dict[str, Any]:
        """The one batch, as MongoDB has it; empty if there is none yet."""
        return self.collection("plugins", "batches").find_one() or {}

    def job(self, recipe: str, state: str) -> Any:
        """A job of this recipe in this state, if there is one."""
        query = {"recipe": recipe, "state": state}
        return self.collection("plugins", "jobs").find_one(query)

    def shown(self, key: str) -> dict[str, Any]:
        """All about a job, over HTTP."""
        return dict(self.get(f"/api/jobs/{key}"))

    def awaiting(self, count: int) -> Any:
        """What is awaited, once it is for this count."""

        def found() -> Any:
            awaiting = self.batch().get("awaiting")
            return awaiting if awaiting and awaiting["batch_count"] == count else None

        return self.until(found, f"count {count} that is awaited")

    def over(self, batch_id: str) -> dict[str, Any]:
        """A batch, when it has ended."""
        batches = self.collection("plugins", "batches")
        query = {"batch_id": batch_id, "outcome": {"$ne": None}}
        return dict(self.until(lambda: batches.find_one(query), "the batch's end"))

    def same_again(self, runs: list[str]) -> None:
        """The batch of these runs is over and comes out as it did."""
        self.until(lambda: self.batch().get("state") == "ended", "the batch's end")
        self.recorded(runs)
        report = self.told("batches", "replay", self.batch()["batch_id"])
        assert report["same"], report


@pytest.fixture
def bench(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Bench]:
    settings = make_settings()
    make_topics(settings, DEADLINE)
    made = Bench(settings, tmp_path)
    yield made
    made.touch("open")
    made.close()


def test_a_scan_goes_by_processed_values_through_a_kill_of_the_service(bench: Bench) -> None:
    recommender = bench.recommender()
    bench.service("recorder")
    plan = bench.plan(delay=0, recommender=STEPS)
    bench.touch("open-0")
    plan.line("run 1 ")
    awaiting = bench.awaiting(1)
    assert awaiting["recipes"] == ["reduce"]
    job = bench.until(
        lambda: bench.collection("plugins", "jobs").find_one({"run": awaiting["run"]}), "job"
    )
    told = f"job {job['key'][:16]} is running on local"
    bench.until(lambda: told in plan.errors(), "word to the plan's user")
    recommender.kill()
    bench.touch("open")
    recommender.start()
    bench.ready(recommender)
    report = bench.report(plan)
    assert (report["error"], report["points"]) == ("", POINTS)
    assert "recipe reduce" in plan.errors()
    bench.same_again(report["runs"])
    assert bench.collection("plugins", "jobs").count_documents({"recipe": "reduce"}) == 5
    shown = bench.told("jobs", "show", job["key"][:16])
    decided = {"batch_count": 1, "revision": 0, "action": "move", "point": {"motor": 3.0}}
    assert shown["decided"].pop("suggestion")
    assert shown["decided"] == decided
    assert bench.shown(job["key"])["decided"]["point"] == {"motor": 3.0}
    # A batch as a whole is processed at its end; of it no point is decided.
    whole = bench.until(lambda: bench.job("whole", "succeeded"), "the batch's own job")
    logs = bench.get(f"/api/jobs/{whole['key']}/logs")
    assert logs["stdout"] == f"{report['batch_id']} 4\n"
    assert bench.shown(whole["key"])["decided"] is None


def test_each_event_of_a_scan_is_a_point_until_a_job_fails(bench: Bench) -> None:
    bench.touch("open")
    bench.touch("fail-2")
    bench.recommender()
    bench.service("recorder")
    report = bench.report(bench.plan(scan=True, delay=0, recommender=STEPS))
    assert (report["error"], report["points"], report["counts"]) == ("", POINTS[:3], [0])
    bench.same_again(report["runs"])
    failed = bench.job("reduce", "failed")
    shown = bench.shown(failed["key"])
    assert shown["batch_count"] == 2
    reason = bench.batch()["reason"]
    assert failed["key"][:16] in reason
    assert "exited with 1" in reason
    assert (shown["decided"]["batch_count"], shown["decided"]["action"]) == (2, "stop")


def test_what_never_comes_stops_the_scan_and_is_said(bench: Bench) -> None:
    recommender = bench.recommender()

    def stopped(key: str, said: str) -> None:
        report = bench.report(bench.plan(delay=0, recommender={**STEPS, "dependent_keys": [key]}))
        (run,) = report["runs"]
        assert report["error"] == ""
        batch = bench.over(report["batch_id"])
        assert said.format(run) in batch["reason"]

    stopped("processing.listed.peak", "recipe listed for run {} failed, it did not fire")
    stopped("processing.reduce.width", "recipe reduce has no number width; it has peak")
    # Not before: that a recipe does not fire may take as long to be heard of.
    recommender.kill()
    bench.environment["BLUESKY_PLUGINS_ADAPTIVE__PROCESSING_WAIT_SECONDS"] = "4"
    recommender.start()
    bench.ready(recommender)
    stopped("processing.reduce.peak", "no result of recipe reduce for run {} after 4 s")


def test_a_plan_waits_for_a_job_of_its_own(bench: Bench) -> None:
    bench.recommender()
    engine = RunEngine({}, context_managers=[])
    here = Trigger(TriggerMethod.LOCAL_BASH_SCRIPT, settings=bench.settings)
    jobs = []

    def plan() -> Any:
        jobs.append((yield from trigger_and_wait(["/bin/echo", "a  b"], trigger=here)))
        yield from trigger_and_wait(["/bin/false"], trigger=here)

    with pytest.raises(JobFailed, match="failed: exited with 1"):
        engine(plan())
    assert jobs[0].state == "succeeded"
    assert jobs[0].logs()[0] == "a  b\n"
