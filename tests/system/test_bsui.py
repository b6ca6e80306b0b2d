"""bsui as a person uses it, its commands through a pipe."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

ADAPTIVE = (
    "uids = RE(adaptive_plan([det], {motor: 0}, "
    "to_recommender=to_recommender, from_recommender=from_recommender))"
)


def bsui(stack: Any, *lines: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in stack.environment.items() if k != "DISPLAY"}
    return subprocess.run(
        [sys.executable, "-m", "bluesky_plugins.cli", "bsui", "--headless"],
        env=environment,
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def after(marker: str, output: str) -> str:
    found = re.search(rf"{marker}=(.*)", output)
    assert found, output
    return found.group(1).strip()


@pytest.fixture(scope="module")
def epics_session(stack: Any) -> str:
    """Output of a session with the beamline's own devices."""
    done = bsui(
        stack,
        ADAPTIVE,
        "print(f'kind={type(uids).__name__} {len(uids)}')",
        "print(f'position={motor.position}')",
        "print(f'last={db[-1].primary.read()[\"motor\"].values.tolist()}')",
        "print(f'number={RE.md[\"scan_id\"]}')",
        "camera_uid, = RE(count([camera, det], 2))",
        "images = db[camera_uid].primary.read()['camera_image']",
        "print(f'images={images.shape} {int(images.max()) > 100}')",
        "1/0",
        "print(f'after_error={1+1}')",
        "exit",
        "print('unreachable=')",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_two_lines_of_the_old_profiles_run_as_typed(stack: Any) -> None:
    done = bsui(
        stack, "from ophyd.sim import *", ADAPTIVE, "print(f'runs={len(uids)} {motor.position}')"
    )
    assert (done.returncode, after("runs", done.stdout)) == (0, "17 24.0")


def test_adaptive_plan_runs_on_the_beamlines_own_devices(epics_session: str) -> None:
    assert after("kind", epics_session) == "tuple 17"
    assert after("position", epics_session) == "24.0"


def test_a_person_is_told_why_the_batch_ended(epics_session: str) -> None:
    assert re.search(r"batch \S+ ended, done: max_count 15 is reached", epics_session)


def test_last_run_can_be_read_at_once(epics_session: str) -> None:
    assert after("last", epics_session) == "[24.0]"


def test_images_of_the_camera_are_read_back(epics_session: str) -> None:
    assert after("images", epics_session) == "(2, 48, 64) True"


def test_live_table_is_shown(epics_session: str) -> None:
    assert "|   seq_num |       time |        det |      motor |" in epics_session


def test_banner_says_what_there_is(epics_session: str) -> None:
    head = epics_session.split("In [1]")[0]
    assert all(name in head for name in ("RE ", "db", "motor, motor1", "det, det1", "grid_scan"))


def test_session_goes_on_after_an_error_and_ends_at_exit(epics_session: str) -> None:
    assert after("after_error", epics_session) == "2"
    assert "unreachable=" not in epics_session.split("In [1]")[1].replace("print(", "")


def test_noise_of_libraries_is_not_shown(epics_session: str) -> None:
    assert "Warning" not in epics_session


def test_scan_numbers_go_on_after_a_restart(stack: Any, epics_session: str) -> None:
    done = bsui(stack, "_ = RE(count([det]))", "print(f'number={RE.md[\"scan_id\"]}')")
    assert int(after("number", done.stdout)) > int(after("number", epics_session))


def test_example_data_has_a_run_of_every_shape(stack: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bluesky_plugins.profile.example_data"],
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(maxsplit=3) for line in done.stdout.splitlines()[-8:]]
    assert [(row[1], row[2]) for row in rows] == [
        ("count", "success"),
        ("scan", "success"),
        ("grid", "success"),
        ("camera", "success"),
        ("fly", "success"),
        ("multi-stream", "success"),
        ("failed", "fail"),
        ("aborted", "abort"),
    ]
