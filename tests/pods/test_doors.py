"""The doors of the beamline in the pods: bsui, the queue, Kafka's edge, what shows the runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pexpect
import pytest
from PIL import Image

from tests.pods.beamline import (
    DATABROKER,
    DEADLINE,
    QUEUE,
    RECOMMENDER,
    ROOT,
    Beamline,
    after,
    until,
)
from tests.pods.conftest import refuse

pytestmark = [pytest.mark.pods, pytest.mark.timeout(900, func_only=True)]

POINTS = [1.5 * n for n in range(17)]
ADAPTIVE = (
    "uids = RE(adaptive_plan([det], {motor: 0}, "
    "to_recommender=to_recommender, from_recommender=from_recommender))"
)
UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHAPES = ["count", "scan", "grid", "camera", "fly", "multi-stream", "failed", "aborted"]


# -- bsui -----------------------------------------------------------------------------------


def test_bsui_in_a_terminal_takes_17_runs(beamline: Beamline) -> None:
    terminal = pexpect.spawn(
        "bash",
        ["launchers/launch_bluesky.sh"],
        cwd=str(ROOT),
        env={**beamline.podman.environment, "TERM": "xterm", "DISPLAY": ""},
        dimensions=(50, 200),
        encoding="utf-8",
        timeout=300,
    )
    try:
        terminal.expect(r"In .*\[")
        terminal.send(f"{ADAPTIVE}\r")
        terminal.expect("ended, done: max_count 15 is reached")
        terminal.send("print(f'runs={len(uids)} at={motor.position}')\r")
        terminal.expect(r"runs=17 at=24\.0")
        terminal.send("exit\r")
        terminal.expect(pexpect.EOF)
        terminal.wait()  # or `close` may still find it ending, and end it by a signal
    finally:
        terminal.close(force=True)
    assert terminal.exitstatus == 0


@pytest.fixture(scope="module")
def headless(beamline: Beamline) -> str:
    """Output of a bsui whose commands come through a pipe."""
    return beamline.bsui(
        ADAPTIVE,
        "print(f'uids={\" \".join(uids)}')",
        "print(f'last={db[-1].primary.read()[\"motor\"].values.tolist()}')",
        "camera_uid, = RE(count([camera, det], 2))",
        "images = db[camera_uid].primary.read()['camera_image']",
        "print(f'camera={camera_uid} {images.shape} {int(images.sum())}')",
        "from ophyd.sim import *",
        ADAPTIVE.replace("uids", "simulated"),
        "print(f'simulated={len(simulated)} {motor.position}')",
        "exit",
        "print('unreachable' '=')",
    )


@pytest.fixture(scope="module")
def uids(headless: str) -> list[str]:
    return after("uids", headless).split()


def test_bsui_with_commands_from_a_pipe_takes_17_runs(uids: list[str]) -> None:
    assert len(uids) == 17


def test_old_profiles_lines_run_as_typed(headless: str) -> None:
    assert after("simulated", headless) == "17 24.0"


def test_last_run_is_read_in_bsui_at_once(headless: str) -> None:
    assert after("last", headless) == "[24.0]"


def test_bsui_ends_at_exit(headless: str) -> None:
    assert "unreachable=" not in headless


def test_example_data_are_made_from_the_host(beamline: Beamline) -> None:
    done = beamline.launcher("generate_example_data.sh")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert [line.split()[1] for line in done.stdout.splitlines()[-8:]] == SHAPES


# -- the queue ------------------------------------------------------------------------------


class Queue:
    """The queue's HTTP server, through nginx."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def add(self, name: str, *args: Any, **kwargs: Any) -> bool:
        item = {"item_type": "plan", "name": name, "args": args, "kwargs": kwargs}
        return bool(self.post("/api/queue/item/add", item=item)["success"])

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/api/status").json()
        return found

    def result(self) -> dict[str, Any]:
        """Of the only plan of the history, once it is over."""

        def result() -> Any:
            items = self.client.get("/api/history/get").json()["items"]
            return self.status()["manager_state"] == "idle" and items

        found: dict[str, Any] = until(result, "end of the plan")[-1]["result"]
        return found


@pytest.fixture(scope="module")
def queue(beamline: Beamline) -> Iterator[Queue]:
    """The queue with an open environment, opened by the old route."""
    with beamline.http(QUEUE) as client:
        queue = Queue(client)
        if not queue.status()["worker_environment_exists"]:
            assert queue.post("/qs/create_environment")["success"]
        until(lambda: queue.status()["worker_environment_state"] == "idle", "open environment")
        queue.post("/api/history/clear")
        yield queue


def test_queue_takes_17_runs_by_names(queue: Queue) -> None:
    assert queue.add("adaptive_plan", dets=["det"], first_point={"motor": 0})
    assert queue.post("/api/queue/start")["success"]
    result = queue.result()
    assert (result["exit_status"], len(result["run_uids"])) == ("completed", 17)


def test_old_routes_take_17_runs(queue: Queue) -> None:
    queue.post("/api/history/clear")
    plan = {"name": "adaptive_plan", "kwargs": {"dets": ["det"], "first_point": {"motor": 0}}}
    assert queue.post("/qs/add_to_queue", plan=plan)["success"]
    assert queue.post("/qs/process_queue")["success"]
    result = queue.result()
    assert (result["exit_status"], len(result["run_uids"])) == ("completed", 17)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("nothing", {}),
        ("count", {"detectors": ["nothing"]}),
        ("adaptive_plan", {"dets": ["det"], "first_point": {"nothing": 0}}),
    ],
)
def test_names_that_nobody_has_are_refused(queue: Queue, name: str, kwargs: Any) -> None:
    assert not queue.add(name, **kwargs)


@pytest.mark.parametrize(
    ("route", "key"), [("/api/queue/item/add", "item"), ("/qs/add_to_queue", "plan")]
)
def test_point_that_is_not_a_number_is_refused(queue: Queue, route: str, key: str) -> None:
    body = (
        f'{{"{key}": {{"item_type": "plan", "name": "adaptive_plan",'
        ' "kwargs": {"dets": ["det"], "first_point": {"motor": NaN}}}}'
    )
    answer = queue.client.post(route, content=body)
    assert (answer.status_code, "first_point.motor" in answer.text) == (422, True)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "ApiKey wrong"}], ids=["none", "wrong"])
@pytest.mark.parametrize(
    ("method", "address"),
    [
        ("POST", f"{QUEUE}/qs/create_environment"),
        ("POST", f"{QUEUE}/qs/add_to_queue"),
        ("POST", f"{QUEUE}/qs/process_queue"),
        ("POST", f"{QUEUE}/api/queue/start"),
        ("GET", f"{QUEUE}/api/status"),
        ("GET", f"{RECOMMENDER}/api/batches"),
        ("GET", f"{DATABROKER}/api/v1/search/"),
    ],
)
def test_nothing_is_told_or_done_without_the_key(
    beamline: Beamline, method: str, address: str, headers: dict[str, str]
) -> None:
    body = {"plan": {"name": "count", "args": [["det"]]}} if method == "POST" else None
    answer = httpx.request(method, address, json=body, headers=headers, timeout=70)
    assert answer.status_code == 401


# -- Kafka ----------------------------------------------------------------------------------


# Ends by itself: with the run, or with its alarm.
LISTENER = """
import os, signal
from bluesky.callbacks.zmq import RemoteDispatcher
signal.alarm(600)
dispatcher = RemoteDispatcher("127.0.0.1:5578")
def tell(name, doc):
    print(name, doc["uid"], flush=True)
    if name == "stop":
        os._exit(0)
dispatcher.subscribe(tell)
print("listening", flush=True)
dispatcher.start()
"""


@contextmanager
def listening(beamline: Beamline, *argv: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has said that it listens."""
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        env=beamline.podman.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert "listening" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def passing(beamline: Beamline) -> dict[str, list[list[str]]]:
    """Lines of who listened while a run was measured, as words; and the run."""
    script = "launchers/kafka_echo_consumer.py"
    consumer = (sys.executable, script, "--max-messages", "4", "--timeout", "60")
    inside = ("podman", "exec", "acquisition-proxy", "python", "-W", "ignore", "-c", LISTENER)
    with listening(beamline, *consumer) as echo, listening(beamline, *inside) as proxy:
        uid = after("uid", beamline.bsui("uid, = RE(count([det]))", "print(f'uid={uid}')"))
        said = {
            "echo": echo.communicate(timeout=DEADLINE)[0],
            "proxy": proxy.communicate(timeout=DEADLINE)[0],
        }
    return {
        **{k: [line.split() for line in v.splitlines()] for k, v in said.items()},
        "uid": [[uid]],
    }


def test_documents_are_seen_from_the_host_as_they_pass(passing: dict[str, Any]) -> None:
    ((uid,),) = passing["uid"]
    assert [words[2] for words in passing["echo"]] == ["start", "descriptor", "event", "stop"]
    assert uid in " ".join(passing["echo"][0])


def test_documents_are_seen_at_the_proxy_in_the_pod_as_they_pass(passing: dict[str, Any]) -> None:
    ((uid,),) = passing["uid"]
    assert [words[0] for words in passing["proxy"]] == ["start", "descriptor", "event", "stop"]
    assert passing["proxy"][0][1] == uid


def test_echo_of_the_command_shows_the_documents_that_are_there(
    beamline: Beamline, uids: list[str]
) -> None:
    echo = subprocess.Popen(
        [sys.executable, "-m", "bluesky_plugins.cli", "echo", "--from-beginning"],
        env={**os.environ, "BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9092"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert echo.stdout is not None
        # Four of each of the 17 runs, at least.
        seen = [echo.stdout.readline().split()[2] for _ in range(68)]
    finally:
        echo.kill()
        echo.communicate()
    assert set(seen) >= {"start", "descriptor", "event", "stop"}


# -- what was measured ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def catalog(beamline: Beamline) -> Iterator[Any]:
    """The databroker server, as a program outside reaches it."""
    from tiled.client import from_uri

    client = from_uri(DATABROKER, api_key=beamline.key)
    yield client
    client.context.close()


def test_databroker_server_gives_the_17_runs(
    beamline: Beamline, catalog: Any, uids: list[str]
) -> None:
    until(lambda: beamline.shown(uids[-1]), "last run at the databroker server")
    measured = [float(catalog[uid].primary.read()["motor"][0]) for uid in uids]
    assert measured == POINTS


def test_databroker_server_gives_the_images_of_the_camera(
    beamline: Beamline, catalog: Any, headless: str
) -> None:
    uid, shape = after("camera", headless).split(maxsplit=1)
    until(lambda: beamline.shown(uid), "run at the databroker server")
    images = catalog[uid].primary.read()["camera_image"].values
    assert f"{images.shape} {int(np.sum(images))}" == shape


def test_recommender_tells_of_the_batch(beamline: Beamline, catalog: Any, uids: list[str]) -> None:
    batch = catalog[uids[0]].metadata["start"]["batch_id"]
    with beamline.http(RECOMMENDER) as client:
        told = client.get(f"/api/batches/{batch}").json()
    assert len(told["suggestions"]) == 17


# -- pages ----------------------------------------------------------------------------------


class Browser:
    """Chromium without a window, and with no way to the outside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("chromium", "chromium-browser", "google-chrome")
        self.program = next(filter(None, map(shutil.which, names)), "")
        if not self.program:
            refuse("no Chromium is here to look at the pages with (package chromium)")

    def look(self, address: str) -> tuple[str, Image.Image]:
        """The page after its scripts have run: its elements, and what is seen of it."""
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
            " --disable-background-networking --disable-component-update --disable-sync"
            " --disable-dev-shm-usage --virtual-time-budget=15000 --window-size=1200,900"
        )
        # Rows are elements only when they are drawn: both in one go.
        path = self.folder / "page.png"
        own = (f"--user-data-dir={self.folder}", f"--screenshot={path}", "--dump-dom")
        done = subprocess.run(
            [self.program, *flags.split(), *own, address],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, Image.open(path).convert("L")


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return Browser(tmp_path)


def test_page_of_the_acquisition_pod_is_shown(beamline: Beamline, browser: Browser) -> None:
    page, picture = browser.look(f"{QUEUE}/")
    assert "<h1>The acquisition pod</h1>" in page
    assert len(picture.getcolors() or []) > 20, "the page is blank"


def test_page_of_the_databroker_server_lists_the_runs(
    beamline: Beamline, browser: Browser, uids: list[str]
) -> None:
    until(lambda: beamline.shown(uids[-1]), "last run at the databroker server")
    page, picture = browser.look(f"{DATABROKER}/ui/browse/?api_key={beamline.key}")
    assert len(set(UID.findall(page))) == 10  # as many as the page has rows
    assert len(picture.getcolors() or []) > 20, "the page is blank"
