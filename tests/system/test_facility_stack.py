"""The whole stack by the settings file that the documentation shows, on a facility's servers."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pymongo
import pytest
import yaml

from tests.conftest import RunningStack
from tests.facility import KAFKA_PASSWORD, REDIS_PASSWORD, USER, FacilityKafka, traces_of

# Three nodes of Kafka, and the stack, may have to start first.
pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "facility-servers.md"
# It only bounds a hang: a busy machine takes ten times as long as an idle one.
DEADLINE = 180.0


def documented(kafka: FacilityKafka, redis: str, mongo: str) -> dict[str, Any]:
    """The example of the documentation, with the addresses and passwords that are there."""
    found = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    example: dict[str, Any] = yaml.safe_load(found[1])
    own = {
        "ssl.ca.location": str(kafka.certificates.authority),
        "sasl.username": USER,
        "sasl.password": KAFKA_PASSWORD,
    }
    for client in ("producer_config", "consumer_config"):
        assert set(own) < set(example["kafka"][client])
        example["kafka"][client] |= own
    assert example["kafka"]["replication_factor"] == 3
    example["kafka"]["bootstrap_servers"] = kafka.secure_address
    assert set(example) == {"beamline", "kafka", "mongo", "redis"}
    return example | {"mongo": {"uri": mongo}, "redis": {"url": redis}}


class FacilityStack(RunningStack):
    """A stack whose settings are a file."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        super().__init__(folder / "state")
        self.config = folder / "facility.yaml"
        self.config.write_text(yaml.safe_dump(settings))

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "BLUESKY_PLUGINS_CONFIG": str(self.config)}


@pytest.fixture(scope="module")
def facility_stack(
    facility_kafka: FacilityKafka,
    facility_redis: str,
    mongo: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FacilityStack]:
    settings = documented(facility_kafka, facility_redis, mongo)
    running = FacilityStack(tmp_path_factory.mktemp("facility-stack"), settings)
    up = running.command("up", BLUESKY_PLUGINS_EMBEDDED__READY_SECONDS="300")
    try:
        assert up.returncode == 0, f"{up.stdout}\n{up.stderr}"
        yield running
    finally:
        down = running.command("down")
        assert down.returncode == 0, down.stderr


def test_a_batch_of_the_queue_is_measured_answered_and_recorded(
    facility_stack: FacilityStack, mongo: str
) -> None:
    web = json.loads(facility_stack.command("status", "--json").stdout)["httpserver"]["address"]
    key = (facility_stack.state_dir / "api_key").read_text().strip()
    headers = {"Authorization": f"ApiKey {key}"}
    with httpx.Client(base_url=f"http://{web}", headers=headers, timeout=DEADLINE) as door:
        assert answered(door.post("/qs/create_environment"))["success"]
        until(lambda: answered(door.get("/api/status"))["manager_state"] == "idle")
        kwargs = {"dets": ["det"], "first_point": {"motor": 0}}
        item = {"item_type": "plan", "name": "adaptive_plan", "kwargs": kwargs}
        assert answered(door.post("/api/queue/item/add", json={"item": item}))["success"]
        assert answered(door.post("/api/queue/start"))["success"]
        result = until(lambda: finished(door))
    assert (result["exit_status"], len(result["run_uids"])) == ("completed", 17)
    with pymongo.MongoClient(mongo) as client:
        stops = client["tst-bluesky-documents"].run_stop
        of_runs = {"run_start": {"$in": result["run_uids"]}}
        until(lambda: stops.count_documents(of_runs) == 17)


def answered(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def finished(door: httpx.Client) -> dict[str, Any] | None:
    items = answered(door.get("/api/history/get"))["items"]
    found: dict[str, Any] | None = items[0]["result"] if items else None
    return found


def until(condition: Any) -> Any:
    deadline, pause = time.monotonic() + DEADLINE, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline
        pause.wait(0.1)
    return found


def test_doctor_finds_all_well(facility_stack: FacilityStack) -> None:
    def findings() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(facility_stack.command("doctor", "--json").stdout)
        print({name: one["problem"] for name, one in found.items() if not one["ok"]})
        return found if all(one["ok"] for one in found.values()) else {}

    # It asks each server for 3 s, too short for one answer or the other on a busy machine.
    found = until(findings)
    assert found["kafka"]["detail"] == "brokers: 3"
    assert "4 partitions" in found["topics"]["detail"]


def test_no_password_is_in_a_file_of_the_stack_or_on_a_command_line(
    facility_stack: FacilityStack,
) -> None:
    secrets = traces_of(KAFKA_PASSWORD, REDIS_PASSWORD)
    written = {
        path: path.read_bytes() for path in facility_stack.state_dir.rglob("*") if path.is_file()
    }
    assert any(path.name == "queueserver.log" for path in written)
    for secret in secrets:
        assert [path for path, text in written.items() if secret.encode() in text] == []
    mine = str(facility_stack.state_dir)
    lines = [
        " ".join(process.cmdline())
        for process in psutil.process_iter()
        if process.is_running() and mine in environment_of(process)
    ]
    assert len(lines) >= 5
    assert [line for line in lines for secret in secrets if secret in line] == []


def environment_of(process: psutil.Process) -> str:
    try:
        return process.environ().get("BLUESKY_PLUGINS_STATE_DIR", "")
    except psutil.Error:
        return ""
