"""The queue: as people reach it over HTTP, and when its processes or Redis are killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from bluesky_plugins.embedded.processes import running_after
from bluesky_plugins.profile import mend_queue
from bluesky_plugins.profile.mending import MendState
from bluesky_plugins.profile.queue_control import NoAnswerError, QueueControl
from bluesky_plugins.settings import Settings

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

# They only bound a hang: a busy machine takes ten times as long as an idle one.
DEADLINE = 180.0
LISTS = "existing_plans_and_devices.yaml"


def wait_until(condition: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    pause, deadline = threading.Event(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        pause.wait(0.1)
    raise AssertionError(f"not within {seconds} s")


# -- over HTTP ------------------------------------------------------------------------------


class Door:
    """The queue of the stack, over HTTP."""

    def __init__(self, settings: Settings) -> None:
        http = settings.http
        self.address = f"http://{http.host}:{http.queueserver_port}"
        self.client = httpx.Client(
            base_url=self.address,
            headers={"Authorization": f"ApiKey {http.key()}"},
            timeout=DEADLINE,
        )

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        out: dict[str, Any] = answer.json()
        return out

    def get(self, path: str) -> dict[str, Any]:
        out: dict[str, Any] = self.client.get(path).json()
        return out

    def add(self, name: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        item = {"item_type": "plan", "name": name, "args": args, "kwargs": kwargs}
        return self.post("/api/queue/item/add", item=item)

    def idle(self) -> bool:
        return self.get("/api/status")["manager_state"] == "idle"

    def results(self) -> list[dict[str, Any]]:
        return [item["result"] for item in self.get("/api/history/get")["items"]]


@pytest.fixture(scope="module")
def door(stack: Any) -> Iterator[Door]:
    """The stack's queue with an open environment, empty."""
    door = Door(stack.settings)
    if not door.get("/api/status")["worker_environment_exists"]:
        assert door.post("/qs/create_environment")["success"]
    door.post("/api/queue/clear")
    yield door
    door.client.close()


def test_adaptive_plan_with_names_takes_its_17_runs(door: Door) -> None:
    door.post("/api/history/clear")
    assert door.add("adaptive_plan", dets=["det"], first_point={"motor": 0})["success"]
    assert door.post("/api/queue/start")["success"]
    (result,) = wait_until(lambda: door.idle() and door.results())
    assert (result["exit_status"], len(result["run_uids"])) == ("completed", 17)


def test_adaptive_scan_with_names_is_one_run(door: Door) -> None:
    door.post("/api/history/clear")
    assert door.add("adaptive_scan", dets=["det"], first_point={"motor": 0})["success"]
    assert door.post("/api/queue/start")["success"]
    (result,) = wait_until(lambda: door.idle() and door.results())
    assert (result["exit_status"], len(result["run_uids"])) == ("completed", 1)


def test_old_routes_run_the_old_plan(door: Door) -> None:
    door.post("/api/history/clear")
    old = {"name": "count", "args": [["det1", "det2"]], "kwargs": {"num": 10, "delay": 0.01}}
    assert door.post("/qs/add_to_queue", plan=old)["success"]
    assert door.post("/qs/process_queue")["success"]
    (result,) = wait_until(lambda: door.idle() and door.results())
    assert result["exit_status"] == "completed"


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("adaptive_plan", {"dets": ["nothing"], "first_point": {"motor": 0}}),
        ("adaptive_plan", {"dets": ["motor"], "first_point": {"motor": 0}}),
        ("adaptive_plan", {"dets": ["det"], "first_point": {"nothing": 0}}),
        ("adaptive_plan", {"dets": ["det"], "first_point": {"det": 0}}),
        ("adaptive_plan", {"dets": ["det"], "first_point": {"motor": 0}, "on_timeout": "wait"}),
        ("adaptive_plan", {"dets": ["det"], "first_point": {"motor": 0}, "bounds": {"det": [0]}}),
        ("adaptive_scan", {"dets": ["nothing"], "first_point": {"motor": 0}}),
        ("focus_scan", {"camera": "det", "motor": "focus", "low": -8, "high": 8}),
        ("focus_scan", {"camera": "camera", "motor": "det", "low": -8, "high": 8}),
        ("focus_scan", {"camera": "camera", "motor": "focus", "low": -8, "high": 8, "points": 2}),
        ("count", {"detectors": ["nothing"]}),
        ("count", {"detectors": ["motor"]}),
        ("scan", {"detectors": ["det"], "args": ["det", 0, 1], "num": 2}),
        ("fly", {"flyers": ["det"]}),
        ("nothing", {}),
    ],
)
def test_unknown_names_and_wrong_kinds_are_refused_at_submission(
    door: Door, name: str, kwargs: dict[str, Any]
) -> None:
    args = [kwargs.pop("detectors"), *kwargs.pop("args")] if "args" in kwargs else []
    assert not door.add(name, *args, **kwargs)["success"]


def test_focus_scan_is_taken_with_names(door: Door) -> None:
    assert door.add("focus_scan", "camera", "focus", -8, 8, target="local")["success"]
    door.post("/api/queue/clear")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", '"3"', "null"])
@pytest.mark.parametrize("route", ["/api/queue/item/add", "/qs/add_to_queue"])
def test_point_that_is_no_finite_number_is_refused_with_its_reason(
    door: Door, route: str, number: str
) -> None:
    plan = '{"name": "adaptive_plan", "kwargs": {"dets": ["det"], "first_point": {"motor": %s}}'
    key = "item" if "item" in route else "plan"
    more = ', "item_type": "plan"}' if key == "item" else "}"
    answer = door.client.post(route, content=f'{{"{key}": {plan % number}{more}}}')
    assert answer.status_code == 422
    assert "first_point.motor" in answer.json()["detail"]


def test_point_without_motors_is_refused(door: Door) -> None:
    plan = {"name": "adaptive_plan", "kwargs": {"dets": ["det"], "first_point": {}}}
    assert door.client.post("/qs/add_to_queue", json={"plan": plan}).status_code == 422


@pytest.mark.parametrize(
    "path",
    ["/qs/create_environment", "/qs/add_to_queue", "/qs/process_queue", "/api/queue/start"],
)
def test_nothing_is_done_without_the_key(door: Door, path: str) -> None:
    body = {"plan": {"name": "count", "args": [["det"]]}}
    assert httpx.post(door.address + path, json=body).status_code == 401
    wrong = {"Authorization": "ApiKey wrong"}
    assert httpx.post(door.address + path, json=body, headers=wrong).status_code == 401


def test_lists_that_are_shipped_are_those_of_the_worker(door: Door, stack: Any) -> None:
    shipped = Path(sys.modules["bluesky_plugins.profile"].__path__[0]) / LISTS
    renewed = stack.state_dir / "queue" / LISTS
    assert yaml.safe_load(shipped.read_text()) == yaml.safe_load(renewed.read_text())


# -- killed ---------------------------------------------------------------------------------


def free_port() -> int:
    for _ in range(200):
        port = random.randint(10240, 32000)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 10240 and 32000")


class PrivateQueue:
    """A manager of the test's own, beside IOCs of its own."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder = folder
        self.settings = Settings(
            redis={"url": redis_url},
            kafka={"bootstrap_servers": f"127.0.0.1:{free_port()}"},  # nobody is there
            iocs={"ca_server_port": free_port(), "ca_repeater_port": free_port()},
            http={
                "queueserver_control_port": free_port(),
                "queueserver_info_port": free_port(),
            },
        )
        self.log = folder / "queue.log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._spawn(sys.executable, "-m", "bluesky_plugins.iocs")

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("BLUESKY_", "EPICS_"))}
        prefix, s = "BLUESKY_PLUGINS_", self.settings
        return {
            **kept,
            f"{prefix}STATE_DIR": str(self.folder),
            f"{prefix}REDIS__URL": s.redis.address,
            f"{prefix}KAFKA__BOOTSTRAP_SERVERS": s.kafka.address,
            f"{prefix}IOCS__CA_SERVER_PORT": str(s.iocs.ca_server_port),
            f"{prefix}IOCS__CA_REPEATER_PORT": str(s.iocs.ca_repeater_port),
            f"{prefix}HTTP__QUEUESERVER_CONTROL_PORT": str(s.http.queueserver_control_port),
            f"{prefix}HTTP__QUEUESERVER_INFO_PORT": str(s.http.queueserver_info_port),
        }

    def _spawn(self, *argv: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            process = subprocess.Popen(argv, env=self.environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def spawn_manager(self, *argv: str) -> subprocess.Popen[bytes]:
        module = "bluesky_plugins.profile.queue_manager"
        return self._spawn(*(argv or (sys.executable, "-m", module)))

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        """Start the manager, and open the environment."""
        wait_until(lambda: "IOCs ready" in self.log.read_text())
        process = self.spawn_manager(*argv)
        wait_until(self.status)
        wait_until(lambda: self.ask("environment_open")["success"])
        wait_until(lambda: (self.status() or {}).get("worker_environment_state") == "idle")
        return process

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        address = f"tcp://127.0.0.1:{self.settings.http.queueserver_control_port}"
        # Short where a manager that does not answer is looked at again, long where it must.
        with QueueControl(address, timeout=2.0 if method == "status" else DEADLINE) as control:
            return control.ask(method, parameters)

    def status(self) -> dict[str, Any] | None:
        try:
            return self.ask("status")
        except NoAnswerError:
            return None

    def add(self, **kwargs: Any) -> str:
        """Queue a count; the uid of its item."""
        item = {"item_type": "plan", "name": "count", "args": [["det"]], "kwargs": kwargs}
        answer = self.ask("queue_item_add", item=item, user="test", user_group="primary")
        assert answer["success"], answer
        return str(answer["item"]["item_uid"])

    def begin(self, **kwargs: Any) -> None:
        """Start a count that takes a while, and return when it runs."""
        self.add(**kwargs)
        assert self.ask("queue_start")["success"]
        wait_until(lambda: (self.status() or {}).get("re_state") == "running")

    def state(self) -> str | None:
        status = self.status()
        return status and status["manager_state"]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(DEADLINE)


@pytest.fixture
def queue(tmp_path: Path, private_valkey: Any) -> Iterator[PrivateQueue]:
    """A queue on a Redis of its own."""
    queue = PrivateQueue(tmp_path, private_valkey.address)
    yield queue
    queue.close()


def children_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not running_after(processes, DEADLINE)


@pytest.mark.timed
def test_manager_that_is_terminated_closes_the_run_and_leaves_nobody(queue: PrivateQueue) -> None:
    manager = queue.start()
    children = children_of(manager)
    queue.begin(num=1000, delay=0.5)
    began = time.monotonic()
    manager.terminate()
    assert manager.wait(10) == 0
    assert time.monotonic() - began < 5
    assert len(children) >= 2
    assert gone(children)
    assert "Plan state: aborted" in queue.log.read_text()


def test_manager_that_is_killed_leaves_nobody(queue: PrivateQueue) -> None:
    manager = queue.start()
    children = children_of(manager)
    queue.begin(num=1000, delay=0.5)
    manager.kill()
    manager.wait(DEADLINE)
    assert len(children) >= 2
    assert gone(children)


def test_queue_is_usable_again_by_itself_after_redis_was_killed_in_a_plan(
    queue: PrivateQueue, private_valkey: Any
) -> None:
    queue.start()
    queue.begin(num=20, delay=0.5)
    private_valkey.kill()
    private_valkey.start()
    wait_until(lambda: queue.state() == "idle")
    uid = queue.add(num=1)
    assert queue.ask("queue_start")["success"]
    # The first may stand in the history too: Redis is back before it ends, or after it.
    done = wait_until(
        lambda: [
            item["result"]["exit_status"]
            for item in queue.ask("history_get")["items"]
            if item["item_uid"] == uid
        ]
    )
    assert done == ["completed"]


def test_manager_that_finds_no_redis_waits_for_it(queue: PrivateQueue, private_valkey: Any) -> None:
    private_valkey.kill()
    manager = queue.spawn_manager()
    wait_until(lambda: "waiting for a server" in queue.log.read_text())
    private_valkey.start()
    wait_until(queue.status)
    assert manager.poll() is None


@pytest.mark.timed
def test_manager_that_waits_for_redis_ends_when_it_is_terminated(
    queue: PrivateQueue, private_valkey: Any
) -> None:
    private_valkey.kill()
    manager = queue.spawn_manager()
    wait_until(lambda: "waiting for a server" in queue.log.read_text())
    manager.terminate()
    assert manager.wait(5) == 0


def test_the_first_request_after_redis_was_restarted_is_taken(
    queue: PrivateQueue, private_valkey: Any
) -> None:
    queue.start()
    queue.add(num=1)
    private_valkey.kill()
    private_valkey.start()
    queue.add(num=1)  # it asserts that it is taken
    assert wait_until(queue.status)["items_in_queue"] == 2


def test_doctor_mends_a_manager_that_hangs(queue: PrivateQueue, private_valkey: Any) -> None:
    from bluesky_plugins.profile.queue_files import manager_arguments, write_queue_files

    # Without our process around it, nothing mends it by itself.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLUESKY_PLUGINS_STATE_DIR", str(queue.folder))
        folder = write_queue_files(queue.settings)
    script = str(Path(sys.executable).with_name("start-re-manager"))
    manager = queue.start(script, *manager_arguments(folder), "--keep-re")
    try:
        queue.begin(num=20, delay=0.5)
        private_valkey.kill()
        private_valkey.start()
        wait_until(lambda: (queue.status() or {}).get("re_state") == "idle")

        def mended() -> Any:
            # As long as the worker's last news comes in, it may still be about to go on.
            report = mend_queue(queue.settings, timeout=DEADLINE)
            return report.state is not MendState.FINE and report

        assert wait_until(mended).state is MendState.MENDED
        assert wait_until(queue.state) == "idle"
    finally:
        children = children_of(manager)
        manager.send_signal(signal.SIGTERM)
        manager.wait(DEADLINE)
        for child in children:
            if child.is_running():
                child.kill()


def test_doctor_leaves_a_queue_alone_that_works(queue: PrivateQueue) -> None:
    queue.start()
    queue.begin(num=1000, delay=0.5)
    manager = wait_until(queue.status)["re_state"]
    assert mend_queue(queue.settings).state is MendState.FINE
    assert wait_until(queue.status)["re_state"] == manager == "running"


def test_doctor_says_that_a_queue_is_down() -> None:
    settings = Settings(http={"queueserver_control_port": free_port()})
    assert mend_queue(settings).state is MendState.DOWN
