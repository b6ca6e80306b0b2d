"""The simulated beamline as its clients see it: real Channel Access on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import psutil
import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

# It only bounds a hang: a busy machine takes ten times as long as an idle one.
DEADLINE = 120.0
CLIENT = Path(__file__).with_name("beamline_client.py")


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


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BLUESKY_", "EPICS_"))}
    return {
        **kept,
        "BLUESKY_PLUGINS_STATE_DIR": str(folder),
        "BLUESKY_PLUGINS_IOCS__CA_SERVER_PORT": str(free_port()),
        "BLUESKY_PLUGINS_IOCS__CA_REPEATER_PORT": str(free_port()),
        "BLUESKY_PLUGINS_IOCS__PREFIX": "test:",
        **more,
    }


def start(env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bluesky_plugins.iocs"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ready_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], DEADLINE)
    assert readable, "the IOCs say nothing"
    return process.stdout.readline()


def stop(process: subprocess.Popen[str]) -> int:
    process.terminate()
    status = process.wait(DEADLINE)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return status


@pytest.fixture(scope="module")
def beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of clients of running IOCs."""
    env = environment(tmp_path_factory.mktemp("iocs"))
    process = start(env)
    assert "ready" in ready_line(process)
    yield env
    assert stop(process) == 0


@pytest.fixture(scope="module")
def seen(beamline: dict[str, str]) -> dict[str, Any]:
    """What one client saw."""
    done = subprocess.run(
        [sys.executable, str(CLIENT)],
        env=beamline,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_device_connects(seen: dict[str, Any]) -> None:
    assert seen["missing"] == []


def test_data_keys_are_those_of_the_old_profiles(seen: dict[str, Any]) -> None:
    assert seen["reading"] == {"motor": ["motor", "motor_user_setpoint"], "det": ["det"]}


def test_motor_has_units_and_precision(seen: dict[str, Any]) -> None:
    assert seen["units"] == ["mm", 4]


def test_move_ends_at_the_very_position(seen: dict[str, Any]) -> None:
    assert [(move["at"], move["success"]) for move in seen["step"]] == [
        (1.5, True),
        (3.0, True),
        (3.0, True),
        (24.0, True),
    ]


@pytest.mark.timed
def test_move_takes_its_time(seen: dict[str, Any]) -> None:
    short, _, nowhere, long = (move["took"] for move in seen["step"])
    assert short >= 0.03
    assert nowhere < long
    assert long >= 21 / 50


def test_position_beyond_a_limit_is_refused_by_the_device(seen: dict[str, Any]) -> None:
    assert seen["beyond"] == "LimitError"


@pytest.mark.parametrize("put", ["nan", "far"])
def test_put_beyond_the_limits_moves_nothing(seen: dict[str, Any], put: str) -> None:
    assert seen[put] == {"moved": False, "violation": 1}


def test_stopped_motor_stands_where_it_was_stopped(seen: dict[str, Any]) -> None:
    stopped = seen["stopped"]
    assert 2 <= stopped["at"] < 90
    assert stopped["setpoint"] == stopped["at"]
    assert not stopped["moving"]


def test_done_goes_to_zero_and_back_for_each_move(seen: dict[str, Any]) -> None:
    assert seen["stopped"]["done"] == [0, 1, 0, 1]


def test_redefined_position_moves_offset_and_limits(seen: dict[str, Any]) -> None:
    redefined = seen["redefined"]
    assert (redefined["offset"], redefined["limits"]) == (-3.0, [-103.0, 97.0])
    assert redefined["move"]["at"] == 2.0


def test_new_limit_holds_at_once_and_after_the_next_move(seen: dict[str, Any]) -> None:
    assert seen["limits"] == {
        "limits": [-100.0, 50.0],
        "beyond": "LimitError",
        "after_a_move": "LimitError",
    }


def test_move_that_the_record_refuses_fails(seen: dict[str, Any]) -> None:
    assert seen["refused"] == "UnknownStatusFailure"


def test_home_is_zero(seen: dict[str, Any]) -> None:
    assert seen["home"] == 0.0


def test_detector_is_a_function_of_the_position(seen: dict[str, Any]) -> None:
    assert seen["det"][0] == seen["det"][2] == 1000.0
    assert seen["det"][1] == pytest.approx(606.5306597)


def test_each_acquisition_is_a_file_with_its_frames(
    seen: dict[str, Any], beamline: dict[str, str]
) -> None:
    resources = [doc for name, doc in seen["pictures"]["assets"] if name == "resource"]
    frames = []
    for resource in resources:
        assert resource["root"] == str(Path(beamline["BLUESKY_PLUGINS_STATE_DIR"]) / "camera")
        with h5py.File(Path(resource["root"]) / resource["resource_path"]) as file:
            frames.append(file[resource["resource_kwargs"]["dataset"]].shape)
    assert frames == [(1, 48, 64), (3, 48, 64)]


def test_camera_documents_are_resource_and_datum(seen: dict[str, Any]) -> None:
    pictures = seen["pictures"]
    assert [name for name, _ in pictures["assets"]] == [
        "resource",
        "datum",
        "resource",
        *["datum"] * 3,
    ]
    assert pictures["assets"][0][1]["spec"] == "BP_CAMERA_HDF5"
    assert [d["datum_kwargs"] for n, d in pictures["assets"] if n == "datum"][1:] == [
        {"index": 0},
        {"index": 1},
        {"index": 2},
    ]
    assert pictures["events"] == 3


def test_camera_does_not_write_out_of_its_folder(seen: dict[str, Any]) -> None:
    assert "not below the camera's own" in seen["escape"]


def test_client_leaves_no_repeater_behind(seen: dict[str, Any], beamline: dict[str, str]) -> None:
    port = int(beamline["BLUESKY_PLUGINS_IOCS__CA_REPEATER_PORT"])
    listeners = [c for c in psutil.net_connections("udp") if c.laddr and c.laddr.port == port]
    assert [c.laddr.ip for c in listeners] == ["127.0.0.1"]


def test_command_line_client_finds_the_repeater(beamline: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "caproto.commandline.get", "test:motor.HLM", "--terse"],
        env={
            **beamline,
            "EPICS_CA_ADDR_LIST": "127.0.0.1",
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_CA_SERVER_PORT": beamline["BLUESKY_PLUGINS_IOCS__CA_SERVER_PORT"],
            "EPICS_CA_REPEATER_PORT": beamline["BLUESKY_PLUGINS_IOCS__CA_REPEATER_PORT"],
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    assert "100" in done.stdout
    assert repeaters_of(beamline["BLUESKY_PLUGINS_STATE_DIR"]) == []


def repeaters_of(state_dir: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "caproto.commandline.repeater" not in (process.info["cmdline"] or []):
            continue
        # Another test's may have ended meanwhile.
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.environ().get("BLUESKY_PLUGINS_STATE_DIR") == state_dir:
                found.append(process)
    return found


def test_everything_is_on_loopback(beamline: dict[str, str]) -> None:
    ports = {
        int(beamline["BLUESKY_PLUGINS_IOCS__CA_SERVER_PORT"]),
        int(beamline["BLUESKY_PLUGINS_IOCS__CA_REPEATER_PORT"]),
    }
    bound = [c for c in psutil.net_connections("inet") if c.laddr.port in ports and not c.raddr]
    assert {c.laddr.ip for c in bound} == {"127.0.0.1"}


def test_second_server_on_the_port_says_so(beamline: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bluesky_plugins.iocs"],
        env=beamline,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "is in use" in done.stderr


def test_unknown_setting_is_bad_usage(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bluesky_plugins.iocs"],
        env=environment(tmp_path, BLUESKY_PLUGINS_IOCS__PREFIXX="x"),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 2
    assert "PREFIXX" in done.stderr
