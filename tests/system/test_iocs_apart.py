"""Motors in one process, the camera in another, each at a port of its own, as in the pods."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

from bluesky_plugins.iocs.camera import DATASET, frame, spot_width
from tests.servers import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

# It only bounds a hang: a busy machine takes ten times as long as an idle one.
DEADLINE = 120.0
CLIENT = Path(__file__).with_name("camera_client.py")


class Apart:
    """Both processes, and what their clients need."""

    def __init__(self, folder: Path) -> None:
        self.camera_dir = folder / "camera"
        self.ports = {"beam": free_port(), "camera": free_port()}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("BLUESKY_", "EPICS_"))}
        addresses = [f"127.0.0.1:{port}" for port in self.ports.values()]
        self.environment = {
            **kept,
            "BLUESKY_PLUGINS_STATE_DIR": str(folder),
            "BLUESKY_PLUGINS_IOCS__ADDRESS_LIST": json.dumps(addresses),
            "BLUESKY_PLUGINS_IOCS__CA_REPEATER_PORT": str(free_port()),
            "BLUESKY_PLUGINS_IOCS__PREFIX": "apart:",
        }
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, part: str) -> None:
        port = str(self.ports[part])
        options = ["--only", part, "--port", port, "--camera-noise", "0"]
        process = subprocess.Popen(
            [sys.executable, "-m", "bluesky_plugins.iocs", *options],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes[part] = process
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], DEADLINE)
        assert readable, f"{part} says nothing"
        assert "ready" in process.stdout.readline()

    def end(self, part: str, *, kill: bool = False) -> int:
        process = self.processes.pop(part)
        (process.kill if kill else process.terminate)()
        status = process.wait(DEADLINE)
        if process.stdout is not None:
            process.stdout.close()
        return status

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *argv],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE,
            check=False,
        )

    def picture(self, *moves: str) -> Any:
        done = self.run(str(CLIENT), *moves)
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
        assert seen["missing"] == []
        with h5py.File(self.camera_dir / seen["path"]) as file:
            return file[DATASET][0]


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[Apart]:
    made = Apart(tmp_path)
    made.start("camera")
    made.start("beam")
    yield made
    for part in list(made.processes):
        made.end(part, kill=True)


def spot(brightness: float, x: float, y: float, focus: float = 0.0) -> Any:
    return frame(brightness, x, y, width=spot_width(focus))


def until_seen(look: Callable[[], Any], expected: Any) -> None:
    for _ in range(10):
        if (look() == expected).all():
            return
    pytest.fail("the camera never saw where the motors are")


@pytest.mark.timed  # it has half a second to ask the motors, and then goes by what it knew
def test_the_camera_sees_where_the_motors_of_the_other_process_are(apart: Apart) -> None:
    # It was there first, and finds the motors within seconds.
    until_seen(lambda: apart.picture("motor=1.5", "motor1=5", "motor2=-3"), spot(1.5, 5.0, -3.0))
    assert (apart.picture("motor1=7") == spot(1.5, 7.0, -3.0)).all()
    assert (apart.picture("focus=-4") == spot(1.5, 7.0, -3.0, focus=-4.0)).all()


def test_the_camera_bears_a_crash_of_the_motors_and_finds_them_again(apart: Apart) -> None:
    until_seen(lambda: apart.picture("motor1=5"), spot(0.0, 5.0, 0.0))
    apart.end("beam", kill=True)
    assert (apart.picture() == spot(0.0, 5.0, 0.0)).all()
    apart.start("beam")
    until_seen(lambda: apart.picture("motor1=7"), spot(0.0, 7.0, 0.0))


def test_each_process_is_probed_at_its_own_port(apart: Apart) -> None:
    def alive(part: str, seconds: int = 20) -> int:
        options = ("--port", str(apart.ports[part]), "--timeout", str(seconds))
        return apart.run("-m", "bluesky_plugins.cli", "healthy", "iocs", *options).returncode

    assert [alive(part) for part in apart.ports] == [0, 0]
    apart.end("camera", kill=True)
    assert [alive("beam"), alive("camera", 4)] == [0, 1]


def test_each_process_ends_at_sigterm(apart: Apart) -> None:
    assert [apart.end(part) for part in list(apart.ports)] == [0, 0]
