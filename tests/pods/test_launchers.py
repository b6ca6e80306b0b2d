"""What a person starts beside the pods: example data, JupyterLab, typhos, bsui with checkouts."""

from __future__ import annotations

import io
import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.pods.beamline import DEADLINE, Beamline, after
from tests.pods.conftest import refuse

pytestmark = [pytest.mark.pods, pytest.mark.timeout(900, func_only=True)]

JUPYTER = "http://127.0.0.1:18888"
# As start-jupyter does it for the notebooks of a person.
EXECUTE = """
TILED_API_KEY=$(cat "$BLUESKY_PLUGINS_SECRETS_DIR/api_key")
export TILED_API_KEY
exec jupyter nbconvert --log-level ERROR --to notebook --execute --stdout \\
    /opt/bluesky-plugins/notebooks/last_run.ipynb
"""


def test_example_data_are_made_in_a_container_of_the_pod(beamline: Beamline) -> None:
    mounts = {
        "bluesky-settings": "/etc/bluesky-plugins",
        "acquisition-secrets": "/run/bluesky-plugins/secrets",
        "acquisition-state": "/var/lib/bluesky-plugins",
        "acquisition-camera": "/var/lib/camera",
    }
    said = beamline.podman(
        "run",
        "--rm",
        "--pod=acquisition",
        *(f"--volume={volume}:{place}" for volume, place in mounts.items()),
        "--env=BLUESKY_PLUGINS_CONFIG=/etc/bluesky-plugins/settings.yaml",
        "--env=BLUESKY_PLUGINS_SECRETS_DIR=/run/bluesky-plugins/secrets",
        "--env=BLUESKY_PLUGINS_STATE_DIR=/var/lib/bluesky-plugins",
        "localhost/bluesky",
        "bash",
        "/opt/bluesky-plugins/launchers/generate_example_data.sh",
        timeout=DEADLINE,
    )
    rows = [line.split()[1:3] for line in said.splitlines()[-8:]]
    assert [rows[0], rows[3], *rows[-2:]] == [
        ["count", "success"],
        ["camera", "success"],
        ["failed", "fail"],
        ["aborted", "abort"],
    ]


# -- JupyterLab -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jupyter(beamline: Beamline) -> Iterator[str]:
    """Its token, while it runs."""
    podman = beamline.podman
    if podman.try_("container", "exists", "jupyter").returncode == 0:
        refuse("a JupyterLab runs here already: bash launchers/start_jupyter.sh --stop")
    kept = podman.try_("volume", "exists", "jupyter-notebooks").returncode == 0
    try:
        done = beamline.launcher("start_jupyter.sh", "--port", "18888", "--timeout", "600")
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        assert "18888/lab" in done.stdout
        yield (beamline.folder / "jupyter_token").read_text().strip()
    finally:
        stopped = beamline.launcher("start_jupyter.sh", "--stop")
        assert stopped.returncode == 0, stopped.stderr
        if not kept:
            podman("volume", "rm", "--force", "jupyter-notebooks")


def test_jupyter_lab_gives_nothing_without_its_token(jupyter: str) -> None:
    wrong = {"Authorization": "token 0000000000"}
    answers = [
        httpx.get(f"{JUPYTER}/api/contents", timeout=70).status_code,
        httpx.post(f"{JUPYTER}/api/kernels", timeout=70).status_code,
        httpx.get(f"{JUPYTER}/api/contents", headers=wrong, timeout=70).status_code,
        httpx.get(f"{JUPYTER}/lab", timeout=70).status_code,
    ]
    assert answers == [403, 403, 403, 302]


def test_jupyter_lab_shows_the_example_to_who_has_the_token(jupyter: str) -> None:
    headers = {"Authorization": f"token {jupyter}"}
    answer = httpx.get(f"{JUPYTER}/api/contents", headers=headers, timeout=70)
    assert "last_run.ipynb" in [each["name"] for each in answer.json()["content"]]
    assert httpx.get(f"{JUPYTER}/lab", headers=headers, timeout=70).status_code == 200


def test_token_of_jupyter_lab_is_in_a_file_of_its_owner_alone(
    beamline: Beamline, jupyter: str
) -> None:
    file = beamline.folder / "jupyter_token"
    logs = beamline.podman.try_("logs", "jupyter")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert jupyter not in logs.stdout + logs.stderr + beamline.podman("inspect", "jupyter")


def test_example_notebook_reads_and_plots_the_last_run_of_the_pod(
    beamline: Beamline, jupyter: str
) -> None:
    uid = after(
        "uid",
        beamline.bsui(
            "uid, = RE(scan([det], motor, -1, 3, 5))", "_ = db[uid]", "print(f'{uid=!s}')"
        ),
    )
    notebook = json.loads(beamline.podman("exec", "jupyter", "sh", "-c", EXECUTE))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    shown = "".join("".join(output.get("data", {}).get("text/plain", "")) for output in outputs)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert (f"'uid': '{uid}'" in shown, len(pictures)) == (True, 1), shown
    # The last cell reads the same from the store itself.
    assert "time: 5" in "".join(outputs[-1]["data"]["text/plain"])


def test_stopping_jupyter_lab_leaves_its_notebooks_alone(beamline: Beamline, jupyter: str) -> None:
    done = beamline.launcher("start_jupyter.sh", "--stop")
    assert done.returncode == 0, done.stderr
    left = beamline.podman.names("volume", "ls", "--format", "{{.Name}}")
    assert beamline.podman.try_("container", "exists", "jupyter").returncode == 1
    assert {each for each in left if each.startswith("jupyter")} == {"jupyter-notebooks"}


# -- typhos ---------------------------------------------------------------------------------


def test_typhos_shows_where_the_motor_is(beamline: Beamline, tmp_path: Path) -> None:
    beamline.bsui("RE(bps.mv(motor, 3.25))")
    file = tmp_path / "screens.png"
    done = beamline.launcher("start_typhos.sh", "--picture", str(file), "motor", "detectors")
    assert done.returncode == 0, done.stderr
    shown = dict(re.findall(r"^ca://mad:(\S+) (.*)$", done.stderr, re.MULTILINE))
    assert (shown["motor.RBV"], shown["det"]) == ("3.2500 mm", "91.393755")
    picture = Image.open(io.BytesIO(file.read_bytes()))
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


@pytest.mark.parametrize("display", ["", "localhost:10.0"])
def test_typhos_says_how_a_display_reaches_the_pod(beamline: Beamline, display: str) -> None:
    environment = beamline.podman.environment
    before = environment.get("DISPLAY")
    environment["DISPLAY"] = display
    try:
        done = beamline.launcher("start_typhos.sh")
    finally:
        environment.pop("DISPLAY")
        if before is not None:
            environment["DISPLAY"] = before
    assert done.returncode == 1
    assert all(way in done.stderr for way in ("X11UseLocalhost no", "Xvfb", "--picture"))


# -- bsui with checkouts --------------------------------------------------------------------


@pytest.fixture
def snapshot(beamline: Beamline) -> Iterator[Any]:
    """Builds bluesky-dev; a person's own is there again afterwards."""
    podman, before = beamline.podman, "localhost/bluesky-dev:before-the-tests"
    kept = podman.try_("image", "exists", "localhost/bluesky-dev:latest").returncode == 0
    if kept:
        podman("tag", "localhost/bluesky-dev:latest", before)
    try:
        yield lambda *names: podman.script("image_builders/build_bluesky_snapshot.sh", *names)
    finally:
        podman.try_("image", "rm", "localhost/bluesky-dev:latest")
        if kept:
            podman("tag", before, "localhost/bluesky-dev:latest")
            podman("untag", before)


def test_bluesky_dev_has_the_checkout(beamline: Beamline, snapshot: Any, tmp_path: Path) -> None:
    checkout = tmp_path / "bluesky-live"
    checkout.mkdir()
    (checkout / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "bluesky-live"\nversion = "99.1"\n[tool.setuptools]\npy-modules = []\n'
    )
    built = snapshot("--checkouts", str(tmp_path), "bluesky-live")
    assert built.returncode == 0, built.stderr
    assert "bluesky-live 99.1 (no git)" in built.stderr
    done = beamline.launcher(
        "launch_bluesky_headless.sh",
        "bluesky-dev",
        stdin="import importlib.metadata as m; print('has=' + m.version('bluesky-live'))\n",
    )
    assert done.returncode == 0, done.stderr
    assert after("has", done.stdout) == "99.1"


def test_snapshot_of_nothing_says_what_was_looked_for(snapshot: Any, tmp_path: Path) -> None:
    done = snapshot("--checkouts", str(tmp_path))
    assert done.returncode == 1
    assert f"No checkout was found in {tmp_path}" in done.stderr
    assert "event-model" in done.stderr


# -- bad usage ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("launcher", "argument"),
    [
        ("launch_bluesky.sh", "no-such-image"),
        ("launch_bluesky_headless.sh", "no-such-image"),
        ("generate_example_data.sh", "--no-such-option"),
        ("start_jupyter.sh", "--no-such-option"),
        ("start_jupyter.sh", "--port=99999"),
        ("start_typhos.sh", "no-such-screen"),
    ],
)
def test_a_wrong_argument_is_named(beamline: Beamline, launcher: str, argument: str) -> None:
    done = beamline.launcher(launcher, *argument.split("="))
    assert done.returncode == 2
    assert argument.split("=")[-1] in done.stderr
