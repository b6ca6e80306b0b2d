"""Processing as people run it: a run ends, its job is done, its result is in the database."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bluesky_plugins.adaptive import Result
from bluesky_plugins.embedded.tether import tethered
from bluesky_plugins.messaging import Producer, TopicReader, decode, make_topics
from bluesky_plugins.processing import Trigger, TriggerMethod
from bluesky_plugins.settings import Settings
from bluesky_plugins.testing import composed_run
from tests.slurm import SlurmSite, wait_until
from tests.system.conftest import DEADLINE, Loop, Process

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

REDUCE = """\
import json, os, pathlib, sys, threading
with open(sys.argv[2], "a") as starts:
    starts.write(f"{os.getpid()}\\n")
gate = pathlib.Path(sys.argv[3])
while not gate.exists():
    threading.Event().wait(0.02)
print("reduced", sys.argv[1])
pathlib.Path("numbers.json").write_text(json.dumps({"peak": 2.0 * float(sys.argv[1])}))
"""


class Bench(Loop):
    """Services with a recipe that takes every run; its program waits for `gate`."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__(settings, folder)
        self.gate, self.starts_file = folder / "gate", folder / "starts"
        program = folder / "reduce.py"
        program.write_text(REDUCE)
        self.recipe: dict[str, Any] = {
            "name": "reduce",
            "when": {"start": {"plan_name": "count"}},
            "argv": [
                *(sys.executable, str(program), "{event.data.det}"),
                *(str(self.starts_file), str(self.gate)),
            ],
            "result": {"numbers": ["peak"]},
            "outputs": ["*.json"],
            # It waits for the test, and that for services that start.
            "resources": {"time_limit_s": 600},
        }
        self.recipes = folder / "recipes.yaml"
        self.write_recipe()
        self.environment |= {
            "BLUESKY_PLUGINS_PROCESSING__RECIPES": str(self.recipes),
            "BLUESKY_PLUGINS_PROCESSING__POLL_SECONDS": "0.2",
            "BLUESKY_PLUGINS_PROCESSING__DOUBT_SECONDS": "2",
        }

    def write_recipe(self) -> None:
        self.recipes.write_text(json.dumps({"recipes": [self.recipe]}))

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
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def recommender(self) -> Process:
        self.process = process = self.run("-m", "bluesky_plugins.cli", "recommender")
        self.ready(process)
        return process

    def ready(self, process: Process) -> None:
        """Until the recommender answers and processing reads."""
        self.url = process.line("recommender ready").split()[-1]
        self.until(lambda: self.healthy()["processing"]["ready"], "processing")

    def healthy(self) -> dict[str, Any]:
        return dict(self.get("/healthz"))

    def get(self, path: str, **query: str) -> Any:
        """What the recommender says over HTTP."""
        return httpx.get(f"{self.url}{path}", params=query, timeout=DEADLINE).json()

    def measure(self, **start: Any) -> str:
        """A run goes over Kafka; its uid. The last value of det is 2."""
        documents = composed_run(3, **start)
        return self.send(documents)

    def send(self, documents: list[tuple[str, dict[str, Any]]]) -> str:
        """Documents of one run go over Kafka; its uid."""
        doc = documents[0][1]
        uid = str(doc.get("run_start", doc["uid"]))
        producer = Producer(self.settings, client_id="run", spool=False)
        topic = self.settings.topic("documents")
        producer.deliver([(topic, uid, name, doc) for name, doc in documents], DEADLINE)
        producer.close(1.0)
        return uid

    def job_of(self, run: str, *states: str) -> dict[str, Any]:
        """The job of a run, when it is in one of these states."""

        def found() -> dict[str, Any] | None:
            query = {"run": run, **({"state": {"$in": states}} if states else {})}
            return self.collection("plugins", "jobs").find_one(query)

        return dict(self.until(found, f"job of {run} in {states}"))

    def started(self) -> list[str]:
        return self.starts_file.read_text().split() if self.starts_file.exists() else []


@pytest.fixture
def bench(make_settings: Callable[..., Settings], tmp_path: Path) -> Iterator[Bench]:
    settings = make_settings()
    make_topics(settings, DEADLINE)
    made = Bench(settings, tmp_path)
    yield made
    made.gate.touch()
    made.close()


def analysis_of(bench: Bench, run: str) -> list[dict[str, Any]]:
    starts = bench.collection("analysis", "run_start")
    return list(starts.find({"processing_of.run": run}))


def test_a_run_ends_and_its_result_is_in_the_database(bench: Bench) -> None:
    bench.gate.touch()
    bench.recommender()
    bench.service("recorder")
    run = bench.measure()
    job = bench.job_of(run, "succeeded")
    (start,) = bench.until(lambda: analysis_of(bench, run), "analysis run")
    assert start["processing_of"]["key"] == job["key"]
    assert start["processing_of"]["chain"] == ["reduce"]
    descriptors = bench.collection("analysis", "event_descriptor")
    descriptor = bench.until(lambda: descriptors.find_one({"run_start": start["uid"]}), "it")
    events = bench.collection("analysis", "event")
    event = bench.until(lambda: events.find_one({"descriptor": descriptor["uid"]}), "event")
    assert event["data"] == {"peak": 4.0}

    shown = bench.told("jobs", "show", job["key"][:12])
    assert shown["because"] == "the start document has what it asks of plan_name"
    assert shown["argv"][2] == "2.0"
    assert shown["submissions"] == 1
    assert shown["numbers"] == {"peak": 4.0}
    (file,) = shown["outputs"]
    assert json.loads(Path(file["here"]).read_text()) == {"peak": 4.0}
    assert [line["state"] for line in shown["story"]][-1] == "succeeded"
    explained = bench.until(lambda: explained_of(bench, run), "explanation")
    assert [(one["recipe"], one["verdict"]) for one in explained["recipes"]] == [
        ("reduce", "fires")
    ]
    assert explained["recipes"][0]["jobs"][0]["state"] == "succeeded"
    assert bench.told("jobs", "logs", job["key"])["stdout"] == "reduced 2.0\n"
    page = bench.get("/api/jobs", run=run)
    assert [one["key"] for one in page["jobs"]] == [job["key"]]


def explained_of(bench: Bench, run: str) -> Any:
    done = bench.command("jobs", "explain", run, "--json")
    return json.loads(done.stdout) if done.returncode == 0 else None


def test_killed_in_the_middle_there_is_one_start_and_one_result(bench: Bench) -> None:
    recommender = bench.recommender()
    bench.service("recorder")
    run = bench.measure()
    bench.job_of(run, "submitting", "queued", "running")
    recommender.kill()
    recommender.start()
    bench.ready(recommender)
    bench.until(bench.started, "start")
    recommender.kill()
    bench.gate.touch()
    recommender.start()
    bench.ready(recommender)
    bench.job_of(run, "succeeded")
    bench.until(lambda: analysis_of(bench, run), "analysis run")
    recommender.kill()
    recommender.start()
    bench.ready(recommender)
    second = bench.measure()
    bench.until(lambda: analysis_of(bench, second), "second analysis run")
    assert len(bench.started()) == 2
    assert len(analysis_of(bench, run)) == 1
    jobs = bench.collection("plugins", "jobs")
    assert [one["state"] for one in jobs.find()] == ["succeeded", "succeeded"]


@pytest.mark.timed
def test_a_person_at_a_prompt_runs_a_program_looks_at_it_and_stops_it(bench: Bench) -> None:
    bench.recommender()
    trigger = Trigger(TriggerMethod.LOCAL_BASH_SCRIPT, settings=bench.settings)
    said = 'it\'s $(id) "quoted"\nand more'
    done = trigger.run([sys.executable, "-c", "import sys; print(sys.argv[1])", said])
    assert done.wait(timeout=30) == "succeeded"
    assert done.logs()[0] == f"{said}\n"

    waits = f"import threading; print('up', flush=True); threading.Event().wait({60})"
    long = trigger.run([sys.executable, "-c", waits])
    bench.until(lambda: long.state == "running", "running job")
    answer = bench.until(lambda: logs_of(bench, long.key)["stdout"], "its output while it runs")
    assert answer == "up\n"
    assert bench.process.stop(5.0) == 0
    bench.process.start()
    bench.ready(bench.process)
    assert long.state == "running"
    long.cancel("enough")
    assert long.wait(timeout=30) == "cancelled"
    record = long.record
    assert record is not None
    assert record.reason.endswith(": enough")

    auto = Trigger(TriggerMethod.AUTO, settings=bench.settings).run(["/bin/true"])
    assert auto.wait(timeout=30) == "succeeded"
    assert bench.told("jobs", "show", auto.key)["because"].endswith("auto: no cluster is set")
    nowhere = Trigger(settings=bench.settings).run(["/bin/true"])
    assert nowhere.wait(timeout=30) == "failed"
    assert "no target of kind slurm is set" in bench.told("jobs", "show", nowhere.key)["reason"]


def logs_of(bench: Bench, key: str) -> dict[str, str]:
    return dict(bench.get(f"/api/jobs/{key}/logs"))


def test_a_recorded_run_is_processed_again_only_when_that_is_said(bench: Bench) -> None:
    bench.gate.touch()
    bench.recommender()
    bench.service("recorder")
    run = bench.measure()
    first = bench.job_of(run, "succeeded")["key"]
    bench.until(lambda: explained_of(bench, run), "recorded run")
    for what, why in (("cancel", "has ended: it is succeeded"), ("retry", "has succeeded; ")):
        refused = bench.command("jobs", what, first)
        assert refused.returncode == 1
        assert why in refused.stderr
    asked = ("jobs", "submit", "--recipe", "reduce", "--run", run)
    assert bench.told(*asked)["key"] == first
    assert bench.command(*asked, "--again").returncode == 2
    second = bench.told(*asked, "--again", "--reason", "new calibration")["key"]
    assert second != first
    bench.until(lambda: shown(bench, second).get("state") == "succeeded", "second job")
    assert shown(bench, second)["because"].endswith(": new calibration")
    assert len(bench.started()) == 2
    unknown = bench.command("jobs", "submit", "--recipe", "redcue", "--run", run)
    assert unknown.returncode == 1
    assert "no recipe is called redcue" in unknown.stderr


def shown(bench: Bench, key: str) -> dict[str, Any]:
    done = bench.command("jobs", "show", key, "--json")
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def test_what_cannot_be_is_shown_and_the_batch_hears_of_its_points(bench: Bench) -> None:
    bench.gate.touch()
    heard = Listener(bench.settings, "adaptive", "alerts")
    bench.recommender()
    run = bench.measure(
        batch_id="b1", batch_count=0, batch_mode="run", processing=["reduce", "nonsense"]
    )
    key = bench.job_of(run, "succeeded")["key"]
    result = bench.until(lambda: heard.next("result"), "result in the batch's log")
    parsed = Result.model_validate(result)
    assert (parsed.batch_id, parsed.run, parsed.key) == ("b1", run, key)
    assert parsed.values == {"processing.reduce.peak": 4.0}
    alert = bench.until(lambda: heard.next("alert"), "alert")
    assert alert["reason"].startswith("no recipe is called 'nonsense'")
    heard.close()


class Listener:
    """Messages of some topics by their names, from now on."""

    def __init__(self, settings: Settings, *topics: str) -> None:
        self._readers = [TopicReader(settings, settings.topic(topic)) for topic in topics]
        self._heard: list[tuple[str, dict[str, Any]]] = []
        for reader in self._readers:
            reader.start("end", DEADLINE)

    def next(self, name: str) -> dict[str, Any] | None:
        for reader in self._readers:
            self._heard += [decode(message.value) for message in reader.poll(100, 0.1)]
        return next((doc for heard, doc in self._heard if heard == name), None)

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


def test_over_ssh_a_cluster_carries_out_what_a_person_and_a_recipe_ask(
    bench: Bench, slurm_site: SlurmSite
) -> None:
    bench.gate.touch()
    cluster = {
        "kind": "slurm",
        "via": "asyncssh",
        "host": "127.0.0.1",
        "port": slurm_site.ssh_port,
        "user": slurm_site.user,
        "keys": [str(slurm_site.folder / "user_key")],
        "known_hosts": str(slurm_site.known_hosts()),
        "ssh_config": os.devnull,
        "work_dir": str(slurm_site.work_dir),
        "python": "/usr/bin/python3",
    }
    bench.environment["BLUESKY_PLUGINS_PROCESSING__TARGETS"] = json.dumps({"cluster": cluster})
    bench.recipe["targets"] = ["cluster"]
    bench.write_recipe()
    bench.recommender()
    run = bench.measure()
    by_hand = Trigger(settings=bench.settings).run(["/bin/echo", "it's $(id)"])
    assert by_hand.wait(timeout=DEADLINE) == "succeeded"
    assert by_hand.logs()[0] == "it's $(id)\n"
    # Only now: who is asked whether it can be reached has 10 s, and is to have its connection.
    auto = Trigger(TriggerMethod.AUTO, settings=bench.settings).run(["/bin/true"])
    assert auto.wait(timeout=DEADLINE) == "succeeded"
    assert "cluster can be reached" in bench.told("jobs", "show", auto.key)["because"]
    job = bench.told("jobs", "show", bench.job_of(run, "succeeded")["key"])
    assert job["target"] == "cluster"
    assert job["numbers"] == {"peak": 4.0}
    assert job["attempts"][0]["native_id"]


def test_a_beamtime_s_account_nodes_and_reservation_carry_out_the_jobs_of_its_runs(
    bench: Bench, slurm_site: SlurmSite, tmp_path: Path
) -> None:
    bench.gate.touch()
    gpfs, core = tmp_path / "gpfs", tmp_path / "core"
    for folder in (gpfs / "current", core / "raw", core / "scratch_cc"):
        folder.mkdir(parents=True)
    (core / "raw" / "frame").write_text("2.5")
    metadata: dict[str, Any] = {"beamline": "p99", "beamtimeId": "11", "corePath": str(core)}
    file = gpfs / "current" / "beamtime-metadata-11.json"
    file.write_text(json.dumps(metadata))
    target = {
        "kind": "slurm",
        "via": "asyncssh",
        "port": slurm_site.ssh_port,
        "known_hosts": str(slurm_site.known_hosts()),
        "ssh_config": os.devnull,
        "python": "/usr/bin/python3",
        "beamtime": {"root": str(gpfs)},
    }
    bench.environment["BLUESKY_PLUGINS_PROCESSING__TARGETS"] = json.dumps({"maxwell": target})
    bench.recipe |= {
        "targets": ["maxwell"],
        "argv": ["/usr/bin/cat", "{start.frame}"],
        "paths": {"demand": True},
        "result": None,
        "resources": {"time_limit_s": 60},  # as long as the partition allows
    }
    bench.write_recipe()
    bench.recommender()
    frame = str(gpfs / "current" / "raw" / "frame")
    bare = bench.job_of(bench.measure(frame=frame), "failed")
    assert "startBeamtime ... --online" in bench.told("jobs", "show", bare["key"])["reason"]

    reserved = slurm_site.command(
        *("scontrol", "create", "reservation", "ReservationName=online_11", "StartTime=now"),
        *("Duration=60", f"Users={slurm_site.user}", "Nodes=ALL", "Flags=IGNORE_JOBS"),
    )
    assert reserved.returncode == 0, reserved.stderr
    try:
        metadata["onlineAnalysis"] = {
            "userAccount": slurm_site.user,
            "sshPrivateKeyPath": str(slurm_site.folder / "user_key"),
            "reservedNodes": ["127.0.0.1"],
            "slurmPartition": "short",
            "slurmReservation": "online_11",
            "slurmFeatures": "fast",
        }
        file.write_text(json.dumps(metadata))
        key = bench.job_of(bench.measure(frame=frame), "succeeded", "failed")["key"]
        job = bench.told("jobs", "show", key)
        assert (job["state"], job["argv"][1]) == ("succeeded", str(core / "raw" / "frame"))
        assert bench.told("jobs", "logs", key)["stdout"] == "2.5"
        given = slurm_site.command("scontrol", "show", "job", job["attempts"][0]["native_id"])
        for word in ("Reservation=online_11", "Partition=short", "Features=fast"):
            assert word in given.stdout
        told = [line["text"] for line in job["story"] if line["text"].startswith("beamtime 11")]
        assert told
        assert "reservation online_11" in told[0]
        assert str(slurm_site.folder / "user_key") not in json.dumps(job)
    finally:
        # It is in use until Slurm too knows that the job has ended, and keeps others from the node.
        delete = ("scontrol", "delete", "ReservationName=online_11")
        wait_until(lambda: slurm_site.command(*delete).returncode == 0, "the reservation is gone")


def test_where_the_cluster_foresees_too_long_a_wait_a_job_runs_here_at_once(
    bench: Bench, slurm_site: SlurmSite
) -> None:
    bench.gate.touch()
    target = {"kind": "slurm", "work_dir": str(slurm_site.work_dir), "python": "/usr/bin/python3"}
    bench.environment["SLURM_CONF"] = str(slurm_site.slurm_conf)
    bench.environment["BLUESKY_PLUGINS_PROCESSING__TARGETS"] = json.dumps({"cluster": target})
    bench.recipe |= {"targets": ["cluster", "local"], "wait_s": 600}
    bench.write_recipe()
    bench.recommender()
    filled = slurm_site.command("sbatch", "--parsable", "-n8", "--time=60", "--wrap=sleep 300")
    assert filled.returncode == 0, filled.stderr
    state = ("squeue", "-h", "-o%T", "-j", filled.stdout.strip())
    try:
        bench.until(lambda: slurm_site.command(*state).stdout.strip() == "RUNNING", "full node")
        job = bench.told("jobs", "show", bench.job_of(bench.measure(), "succeeded")["key"])
        assert (job["target"], job["submissions"]) == ("local", 1)
        assert any(
            "as cluster expects) is longer than the 600 s" in one["text"] for one in job["story"]
        )
    finally:
        slurm_site.command("scancel", filled.stdout.strip())


@pytest.fixture
def display() -> Iterator[str]:
    """A display without a screen."""
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("no Xvfb here")
    read, write = os.pipe()
    server = subprocess.Popen(
        tethered([program, "-displayfd", str(write), "-screen", "0", "800x600x24"]),
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(read) as number:
            yield f":{number.readline().strip()}"
    finally:
        server.terminate()
        server.wait(DEADLINE)


def windows(display: str) -> str:
    asked = "import tkinter; print(tkinter.Tk().tk.call('winfo', 'interps'))"
    return subprocess.run(
        [sys.executable, "-c", asked],
        env={**os.environ, "DISPLAY": display},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    ).stdout


def test_a_plot_begins_with_the_run_that_it_follows_and_stays_until_it_is_cancelled(
    bench: Bench, display: str
) -> None:
    plot = "bluesky_plugins.processing.examples.follow_scan"
    since = ("--since", "{start.time}")
    ours = {
        name: value.replace("{", "{{").replace("}", "}}")
        for name, value in bench.environment.items()
        if name.startswith("BLUESKY_PLUGINS_") and "PROCESSING" not in name
    }
    bench.recipe = {
        "name": "follow",
        "kind": "viewer",
        "when": {"after": "start", "start": {"plan_name": "count"}},
        "argv": [sys.executable, "-m", plot, "{start.uid}", "det", *since],
        "environment": ours,
    }
    bench.write_recipe()
    bench.environment["DISPLAY"] = display
    bench.recommender()
    documents = composed_run(3)
    uid = str(documents[0][1]["uid"])
    bench.send(documents[:1])
    key = bench.job_of(uid, "running")["key"]
    bench.until(lambda: "matplotlib" in windows(display), "window")
    bench.send(documents[1:])
    second = bench.measure()
    bench.job_of(second, "running")
    assert bench.told("jobs", "show", key)["state"] == "running"
    for run in (uid, second):
        bench.told("jobs", "cancel", bench.job_of(run)["key"])
        bench.job_of(run, "cancelled")
    bench.until(lambda: "matplotlib" not in windows(display), "closed window")
