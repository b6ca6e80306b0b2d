"""Targets that say no, ways to reach one, and what a person sees and does about it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.plans import scan
from ophyd.sim import det, motor

from bluesky_plugins.callbacks import KafkaPublisher
from bluesky_plugins.processing import Trigger
from tests.servers import free_port
from tests.slurm import SlurmSite
from tests.system.conftest import DEADLINE
from tests.system.test_processing import Bench, bench
from tests.words import HOSTILE

__all__ = ["bench"]

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

FULL = """
case "$*" in *--account=crowded*) cat > /dev/null
    echo "sbatch: error: AssocMaxSubmitJobLimit" >&2
    echo "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy" >&2
    exit 1;;
esac
exec /usr/bin/sbatch "$@"
"""
SHOW = "import json, sys; print(json.dumps(sys.argv[1:]))"


@pytest.fixture
def site(slurm_site: SlurmSite) -> Iterator[SlurmSite]:
    yield slurm_site
    for path in slurm_site.bin.iterdir():
        path.unlink()


def cluster(site: SlurmSite, **changes: Any) -> dict[str, Any]:
    over_ssh = {
        "via": "asyncssh",
        "host": "127.0.0.1",
        "port": site.ssh_port,
        "user": site.user,
        "keys": [str(site.folder / "user_key")],
        "known_hosts": str(site.known_hosts()),
        "ssh_config": os.devnull,
    }
    about = {"kind": "slurm", "work_dir": str(site.work_dir), "python": "/usr/bin/python3"}
    return {**about, **({} if changes.get("via") == "here" else over_ssh), **changes}


def use(bench: Bench, targets: dict[str, Any], **recipe: Any) -> None:
    """These targets, and for each of them a recipe that takes every run."""
    bench.environment["BLUESKY_PLUGINS_PROCESSING__TARGETS"] = json.dumps(targets)
    recipes = [{**bench.recipe, "name": name, "targets": [name], **recipe} for name in targets]
    bench.recipes.write_text(json.dumps({"recipes": recipes}, ensure_ascii=False))


def job(bench: Bench, run: str, recipe: str, *states: str) -> dict[str, Any]:
    """The job of a recipe for a run, when it is in one of these states."""
    query = {"run": run, "recipe": recipe, "state": {"$in": states}}
    jobs = bench.collection("plugins", "jobs")
    found = bench.until(lambda: jobs.find_one(query), f"job of {recipe} in {states}")
    return dict(bench.get(f"/api/jobs/{found['key']}"))


def test_who_says_no_is_named_with_its_reason_where_a_person_looks(
    bench: Bench, site: SlurmSite
) -> None:
    site.stand_in("sbatch", FULL)
    stranger = str(site.known_hosts("other_host_key"))
    use(
        bench,
        {
            "stranger": cluster(site, known_hosts=stranger),
            "stranger-openssh": cluster(site, known_hosts=stranger, via="openssh"),
            "closed": cluster(site, port=free_port()),
            "account": cluster(site, user="nobody-here"),
            "partition": cluster(site, resources={"partition": "nowhere"}),
            "full": cluster(site, resources={"account": "crowded"}),
        },
    )
    bench.recommender()
    run = bench.measure()
    words = {
        "stranger": "does not show the host key that is known of it",
        "stranger-openssh": "Host key verification failed",
        "closed": "refuses the connection",
        "account": "does not take this account or its key",
        "full": "AssocMaxSubmitJobLimit",
    }
    for name, said in words.items():
        bench.until(lambda n=name, s=said: s in job(bench, run, n, "deferred")["reason"], name)
    key = job(bench, run, "partition", "failed")["key"]
    assert "Invalid partition name" in bench.told("jobs", "show", key)["reason"]

    def named() -> set[str]:
        # A look at a target that fails otherwise, say for its time, changes the reason for a while.
        listed = bench.told("jobs", "list", "--state", "deferred")
        return {one["recipe"] for one in listed if words[one["recipe"]] in one["reason"]}

    bench.until(lambda: named() == set(words), "each job in the list, with its reason")


WAYS = ("openssh", "here", "local")


def test_over_every_way_words_arrive_and_a_person_stops_and_repeats(
    bench: Bench, site: SlurmSite
) -> None:
    bench.environment |= {"PATH": site.path, "SLURM_CONF": str(site.slurm_conf)}
    targets = {
        "openssh": cluster(site, via="openssh"),
        "here": cluster(site, via="here"),
        "local": {"kind": "local"},
    }
    waits = (
        f"{SHOW}; import os, time\nwhile not os.path.exists({str(bench.gate)!r}): time.sleep(.05)"
    )
    argv = ["/usr/bin/python3", "-S", "-c", waits, *HOSTILE, "{start.sample}"]
    use(bench, targets, argv=argv, result=None)
    bench.recommender()
    sample = " ".join(HOSTILE)
    run = bench.measure(sample=sample)
    for way in WAYS:
        key = job(bench, run, way, "running")["key"]
        bench.told("jobs", "cancel", key, "--reason", "wrong sample")
        assert job(bench, run, way, "cancelled")["reason"].endswith(": wrong sample")
        bench.told("jobs", "retry", key)
    bench.gate.touch()
    for way in WAYS:
        ended = job(bench, run, way, "succeeded")
        assert [one["state"] for one in ended["attempts"]] == ["cancelled", "succeeded"]
        assert json.loads(bench.told("jobs", "logs", ended["key"])["stdout"]) == [*HOSTILE, sample]
    asked = Trigger(settings=bench.settings).run(["/usr/bin/python3", "-c", SHOW, *HOSTILE])
    assert asked.wait(timeout=DEADLINE) == "succeeded"
    assert json.loads(asked.logs()[0]) == list(HOSTILE)


def test_what_is_over_while_the_service_is_down_is_processed_when_it_is_back(bench: Bench) -> None:
    bench.gate.touch()
    process = bench.recommender()
    process.kill()
    runs = [bench.measure() for _ in range(3)]
    process.start()
    bench.ready(process)
    for run in runs:
        assert bench.job_of(run, "succeeded")["run"] == run
    assert len(bench.started()) == 3


def test_with_the_cluster_down_plain_scans_are_measured_to_their_end(
    bench: Bench, slurm_site: SlurmSite
) -> None:
    use(bench, {"closed": cluster(slurm_site, port=free_port())}, when={"start": {}})
    bench.recommender()
    engine = RunEngine()
    engine.subscribe(KafkaPublisher(settings=bench.settings))
    # Not one of these jobs can ever end, so a RunEngine that waited would not come back.
    runs = [uid for _ in range(20) for uid in engine(scan([det], motor, 0, 1, 3))]
    assert len(runs) == 20
    jobs = bench.collection("plugins", "jobs")
    bench.until(lambda: jobs.count_documents({"state": "deferred"}) == 20, "20 deferred jobs")
    assert {one["run"] for one in jobs.find()} == set(runs)
