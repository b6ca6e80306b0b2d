"""What breaks while something is measured: nothing is lost, nothing doubled, no scan hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.pods.beamline import (
    QUEUE,
    RECOMMENDER,
    Beamline,
    Session,
    answered,
    containers,
    until,
)

pytestmark = [pytest.mark.pods, pytest.mark.timeout(1200, func_only=True)]

# Each of these is killed while an adaptive plan runs. Those of a line that no plan waits for are
# killed in one scan.
KILLED = {
    "kafka": ["acquisition-kafka"],
    "mongo": ["acquisition-mongo"],
    "redis": ["acquisition-redis"],
    "recommender": ["recommender-recommender"],
    "recorders": ["acquisition-recorder", "databroker-recorder", "databroker-mongo"],
    "doors": [
        "acquisition-ioc-camera",
        "acquisition-proxy",
        "acquisition-queueserver",
        "acquisition-httpserver",
        "acquisition-nginx",
        "recommender-nginx",
        "databroker-server",
        "databroker-nginx",
    ],
}

# Killed in test_compute.py: of this pod no scan here knows.
COMPUTE = ["compute-slurm", "compute-sshd"]


class Ledger:
    """Every run that was measured, by what happened to it."""

    def __init__(self) -> None:
        self.uids: dict[str, list[str]] = {}

    def add(self, what: str, uids: list[str]) -> None:
        self.uids.setdefault(what, []).extend(uids)

    @property
    def all(self) -> list[str]:
        return [uid for uids in self.uids.values() for uid in uids]

    def name(self, uid: str) -> str:
        return next(what for what, uids in self.uids.items() if uid in uids)


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def disturbed(
    session: Session, ledger: Ledger, request: pytest.FixtureRequest
) -> Callable[..., dict[str, Any]]:
    """`disturbed(fault)`: 17 adaptive runs; `fault()` is called when the third has begun."""

    def disturbed(fault: Callable[[], None], plan: str = "adaptive()") -> dict[str, Any]:
        session.go(plan)
        session.hear("@start 3")
        fault()
        ended = session.ended()
        ledger.add(request.node.name, ended["uids"])
        return ended

    return disturbed


@contextmanager
def stopped(beamline: Beamline, *names: str) -> Iterator[None]:
    """The containers are stopped; afterwards they work again."""
    beamline.podman("stop", "--time", "10", *names)
    try:
        yield
    finally:
        beamline.podman("start", *names)
        beamline.wait_healthy(*names)


@contextmanager
def cut_off(beamline: Beamline, pod: str) -> Iterator[None]:
    """The pod has no network; afterwards it has."""
    infra = beamline.podman("pod", "inspect", "--format", "{{.InfraContainerID}}", pod).strip()
    beamline.podman("network", "disconnect", "bluesky", infra)
    try:
        yield
    finally:
        beamline.podman("network", "connect", "bluesky", infra)


# -- kill -9 --------------------------------------------------------------------------------


def test_every_container_is_killed_in_some_test() -> None:
    killed = [name for names in KILLED.values() for name in names]
    elsewhere = ["acquisition-ioc-beam", *COMPUTE]
    assert sorted([*killed, *elsewhere]) == sorted(containers())


@pytest.mark.parametrize("what", KILLED)
def test_scan_goes_on_when_these_are_killed_and_they_come_back(
    beamline: Beamline, disturbed: Callable[..., dict[str, Any]], what: str
) -> None:
    names = KILLED[what]
    before = {name: beamline.restarts(name) for name in names}

    def kill() -> None:
        for name in names:
            beamline.kill(name)

    ended = disturbed(kill)
    assert (ended["error"], len(ended["uids"])) == (None, 17)
    beamline.wait_healthy(*names)
    assert {name: beamline.restarts(name) - before[name] for name in names} == dict.fromkeys(
        names, 1
    )
    until(lambda: beamline.shown(ended["uids"][-1]), "last run at the databroker server")


@pytest.fixture(scope="module")
def without_iocs(beamline: Beamline, session: Session, ledger: Ledger) -> dict[str, Any]:
    """How a long move goes whose IOC is killed, and the scan after it."""
    before = beamline.restarts("acquisition-ioc-beam")
    session.go("slow_move(80)")
    session.hear("@moving")
    beamline.kill("acquisition-ioc-beam")
    killed = time.monotonic()
    moved = session.ended()
    moved["seconds"] = time.monotonic() - killed  # without what podman took to kill it
    beamline.wait_healthy("acquisition-ioc-beam")
    session.type("motor.wait_for_connection(timeout=200); det.wait_for_connection(timeout=200)")
    session.go("adaptive(0)")
    ended = session.ended()
    ledger.add("after the IOCs were killed", ended["uids"])
    restarts = beamline.restarts("acquisition-ioc-beam") - before
    return {"move": moved, "scan": ended, "restarts": restarts}


def test_move_whose_iocs_are_killed_fails_and_does_not_hang(without_iocs: dict[str, Any]) -> None:
    assert "FailedStatus" in without_iocs["move"]["error"]
    assert without_iocs["move"]["seconds"] < 20


def test_devices_are_there_again_after_their_iocs_were_killed(without_iocs: dict[str, Any]) -> None:
    scan = without_iocs["scan"]
    assert (scan["error"], len(scan["uids"]), without_iocs["restarts"]) == (None, 17, 1)


# -- servers that are away ------------------------------------------------------------------


def test_scan_waits_for_kafka_and_goes_on(
    beamline: Beamline, disturbed: Callable[..., dict[str, Any]]
) -> None:
    def away() -> None:
        with stopped(beamline, "acquisition-kafka"):
            pass

    ended = disturbed(away)
    assert (ended["error"], len(ended["uids"])) == (None, 17)


@pytest.fixture(scope="module")
def without_kafka(beamline: Beamline, session: Session, ledger: Ledger) -> dict[str, Any]:
    """How a plain and an adaptive plan go while there is no Kafka."""
    with stopped(beamline, "acquisition-kafka"):
        session.go("count([det], 3)")
        plain = session.ended()
        session.type("RE(bps.mv(motor, 3))")
        session.go("adaptive(x=7, timeout=5)")
        adaptive = session.ended()
    ledger.add("plain plan without Kafka", plain["uids"])
    return {"plain": plain, "adaptive": adaptive}


def test_plain_plan_measures_without_kafka(without_kafka: dict[str, Any]) -> None:
    plain = without_kafka["plain"]
    assert (plain["error"], len(plain["uids"])) == (None, 1)
    assert plain["seconds"] < 10


def test_documents_of_the_plain_plan_arrive_when_kafka_is_back(
    beamline: Beamline, without_kafka: dict[str, Any]
) -> None:
    (uid,) = without_kafka["plain"]["uids"]
    until(lambda: beamline.shown(uid), "run at the databroker server")


def test_adaptive_plan_without_kafka_says_why_after_its_timeout(
    without_kafka: dict[str, Any],
) -> None:
    adaptive = without_kafka["adaptive"]
    assert "could not be reached within 5 s; nothing was measured" in adaptive["error"]
    assert 5 <= adaptive["seconds"] < 15


def test_adaptive_plan_without_kafka_moves_nothing(without_kafka: dict[str, Any]) -> None:
    assert (without_kafka["adaptive"]["at"], without_kafka["adaptive"]["uids"]) == (3, [])


def test_scan_goes_on_when_both_mongos_are_away_for_a_while(
    beamline: Beamline, disturbed: Callable[..., dict[str, Any]]
) -> None:
    def away() -> None:
        with stopped(beamline, "acquisition-mongo", "databroker-mongo"):
            pass

    ended = disturbed(away)
    assert (ended["error"], len(ended["uids"])) == (None, 17)
    until(lambda: beamline.shown(ended["uids"][-1]), "last run at the databroker server")


def test_queue_is_usable_again_by_itself_after_redis_was_away_in_a_plan(
    beamline: Beamline, ledger: Ledger
) -> None:
    def take(client: Any, **kwargs: Any) -> None:
        item = {"item_type": "plan", "name": "count", "args": [["det"]], "kwargs": kwargs}
        assert client.post("/api/queue/item/add", json={"item": item}).json()["success"]
        assert client.post("/api/queue/start").json()["success"]

    def status(client: Any) -> dict[str, Any]:
        answer = answered(client, "/api/status")
        return answer.json() if answer is not None else {}

    with beamline.http(QUEUE) as client:
        client.post("/api/environment/open")
        until(lambda: status(client).get("worker_environment_state") == "idle", "environment")
        client.post("/api/history/clear")
        take(client, num=10, delay=0.5)
        until(lambda: status(client).get("re_state") == "running", "running plan")
        with stopped(beamline, "acquisition-redis"):
            pass
        until(lambda: status(client).get("manager_state") == "idle", "idle queue")
        take(client, num=1)
        completed = until(lambda: _completed(client, num=1), "plan of the queue")
    ledger.add("queue while Redis was away", completed)


def _completed(client: Any, **kwargs: Any) -> list[str]:
    """Runs of the last plan of the history, if it is the one with these arguments."""
    items = client.get("/api/history/get").json()["items"]
    last = items[-1]["result"] if items and items[-1].get("kwargs") == kwargs else {}
    return last["run_uids"] if last.get("exit_status") == "completed" else []


# -- networks -------------------------------------------------------------------------------


def test_scan_waits_for_a_recommender_that_is_cut_off(
    beamline: Beamline, disturbed: Callable[..., dict[str, Any]]
) -> None:
    def away() -> None:
        with cut_off(beamline, "recommender"):
            pass

    ended = disturbed(away)
    assert (ended["error"], len(ended["uids"])) == (None, 17)
    with beamline.http(RECOMMENDER) as client:
        until(lambda: answered(client, "/healthz"), "answer from the host's port")


def test_databroker_pod_that_was_cut_off_gets_what_it_missed(
    beamline: Beamline, session: Session, ledger: Ledger
) -> None:
    with cut_off(beamline, "databroker"):
        session.go("count([det], 3)")
        ended = session.ended()
    ledger.add("databroker pod cut off", ended["uids"])
    until(lambda: beamline.shown(ended["uids"][0]), "run at the databroker server")


# -- all of it ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def audit(
    beamline: Beamline, ledger: Ledger
) -> Callable[[str], tuple[list[str], list[dict[str, Any]]]]:
    """What a pod's store holds of every run of these tests."""

    def audit(container: str) -> tuple[list[str], list[dict[str, Any]]]:
        uids = ledger.all
        return uids, beamline.stored(container, uids)["runs"]

    return audit


@pytest.mark.parametrize("container", ["acquisition-recorder", "databroker-recorder"])
def test_every_document_of_every_run_is_stored_once(
    ledger: Ledger, audit: Any, container: str
) -> None:
    uids, runs = audit(container)
    wrong = {}
    for uid, run in zip(uids, runs, strict=True):
        told = [event["seq_num"] for event in run["events"]]
        counts = (len(run["start"]), len(run["descriptors"]), len(run["stop"]))
        expected = run["stop"][0]["num_events"].get("primary", 0)
        if counts != (1, 1, 1) or told != list(range(1, expected + 1)):
            wrong[ledger.name(uid)] = (counts, told)
    assert (wrong, len(runs) > 100) == ({}, True)


def test_pods_that_are_stopped_and_started_have_their_data_and_measure(
    beamline: Beamline, ledger: Ledger
) -> None:
    beamline.podman("pod", "stop", "--time", "20", "recommender", "databroker", "acquisition")
    beamline.podman("pod", "start", "acquisition", "databroker", "recommender")
    beamline.start()
    assert beamline.shown(ledger.all[0])
    with Session(beamline) as session:
        session.go("adaptive(0)")
        ended = session.ended()
    assert (ended["error"], len(ended["uids"])) == (None, 17)
