"""The launchers: refusals that say what to do, and a stop that leaves the data and nothing else."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from bluesky_plugins.embedded.processes import running_after
from tests.pods.beamline import (
    DATABROKER,
    DEADLINE,
    PODS,
    ROOT,
    Beamline,
    Podman,
    after,
    claims,
    containers,
)

pytestmark = [pytest.mark.pods, pytest.mark.timeout(900, func_only=True)]


# -- while they run -------------------------------------------------------------------------


def test_start_while_they_run_leaves_them_as_they_are(beamline: Beamline) -> None:
    before = beamline.podman("ps", "--format", "{{.Names}} {{.ID}}")
    for name, *arguments in beamline.starts:
        done = beamline.launcher(name, *arguments)
        assert done.returncode == 0, done.stderr
        assert "runs already" in done.stderr
    assert beamline.podman("ps", "--format", "{{.Names}} {{.ID}}") == before


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("start_core_pods.sh", ["--nothing"]),
        ("start_core_pods.sh", ["--timeout", "soon"]),
        ("start_adaptive_server.sh", ["--timeout", "0"]),
        ("start_compute_pod.sh", ["--data", "/not/a/folder"]),
        ("stop_pods.sh", ["--all"]),
        ("launch_bluesky_headless.sh", ["nothing"]),
    ],
)
def test_option_that_there_is_not_is_refused(
    podman: Podman, script: str, arguments: list[str]
) -> None:
    done = podman.script(f"launchers/{script}", *arguments)
    assert (done.returncode, "Usage" in done.stderr or arguments[-1] in done.stderr) == (2, True)


# -- stopped --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(beamline: Beamline) -> str:
    """A run from before the stop."""
    return after("uid", beamline.bsui("uid, = RE(count([det]))", "print(f'uid={uid}')"))


@pytest.fixture(scope="module")
def processes(beamline: Beamline, measured: str) -> list[psutil.Process]:
    """All that runs in the containers, and those that look after them."""
    tops = beamline.podman(
        *("ps", "--format", "{{.Names}}", "--filter", "network=bluesky"),
    ).split()
    pids = {
        int(pid)
        for name in (*containers(), *tops)
        for pid in beamline.inspect(name, "{{.State.Pid}} {{.State.ConmonPid}}").split()
    }
    found = [psutil.Process(pid) for pid in pids]
    return [*found, *(child for each in found for child in each.children(recursive=True))]


@pytest.fixture(scope="module")
def keys(beamline: Beamline) -> dict[str, bytes]:
    """The compute pod's keys from before the stop."""
    return {path.name: path.read_bytes() for path in (beamline.folder / "compute").iterdir()}


@pytest.fixture(scope="module")
def stopped(
    beamline: Beamline, measured: str, keys: dict[str, bytes], processes: list[psutil.Process]
) -> Iterator[subprocess.CompletedProcess[str]]:
    """The pods after `stop_pods.sh`; afterwards they run again."""
    yield beamline.launcher("stop_pods.sh")
    start_if_stopped(beamline)


def start_if_stopped(beamline: Beamline) -> None:
    if not beamline.podman.names("pod", "ls", "--format", "{{.Name}}") & set(PODS):
        beamline.start()


def test_stop_leaves_no_container_pod_or_network(
    beamline: Beamline, stopped: subprocess.CompletedProcess[str]
) -> None:
    assert stopped.returncode == 0, stopped.stderr
    podman = beamline.podman
    left = {
        name
        for name in podman.names("ps", "--all", "--format", "{{.Names}}")
        if name.startswith(PODS)
    }
    left |= podman.names("pod", "ls", "--format", "{{.Name}}") & set(PODS)
    left |= podman.names("network", "ls", "--format", "{{.Name}}") & {"bluesky"}
    assert left == set()


def test_stop_leaves_no_process(
    processes: list[psutil.Process], stopped: subprocess.CompletedProcess[str]
) -> None:
    # What looked after a container ends when podman has tidied up behind it.
    assert (running_after(processes, DEADLINE), len(processes) > 40) == ([], True)


def test_stop_keeps_the_data_and_no_other_volume(
    beamline: Beamline, stopped: subprocess.CompletedProcess[str]
) -> None:
    there = beamline.podman.names("volume", "ls", "--format", "{{.Name}}")
    ours = {name for name in there if name.startswith((*PODS, "bluesky-"))}
    assert ours == claims()


def test_port_that_is_taken_is_named_and_nothing_is_started(
    beamline: Beamline, stopped: subprocess.CompletedProcess[str]
) -> None:
    with socket.create_server(("127.0.0.1", 60640)):
        done = beamline.launcher("start_core_pods.sh")
    assert (done.returncode, "Port 60640" in done.stderr) == (1, True)
    assert not beamline.podman.names("pod", "ls", "--format", "{{.Name}}") & set(PODS)


def test_full_disk_is_said_before_anything_is_started(
    beamline: Beamline, stopped: subprocess.CompletedProcess[str]
) -> None:
    environment = {**beamline.podman.environment, "BP_MINIMUM_FREE_MB": "999999999"}
    done = subprocess.run(
        ["bash", "launchers/start_core_pods.sh"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, "MB free; the pods need 999999999" in done.stderr) == (1, True)


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of the launchers and manifests, to be spoilt."""
    for folder in ("launchers", "pods"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def start_changed(beamline: Beamline, changed: Path) -> subprocess.CompletedProcess[str]:
    return beamline.podman.script(str(changed / "launchers" / "start_core_pods.sh"))


def test_image_that_is_missing_is_named_with_its_script(
    beamline: Beamline, stopped: subprocess.CompletedProcess[str], changed: Path
) -> None:
    manifest = changed / "pods" / "databroker.yaml"
    text = manifest.read_text()
    manifest.write_text(text.replace("localhost/databroker-server:", "localhost/absent:"))
    done = start_changed(beamline, changed)
    assert done.returncode == 1
    assert "bash image_builders/build_absent_image.sh" in done.stderr


def test_wrong_value_in_the_settings_is_named(
    beamline: Beamline, stopped: subprocess.CompletedProcess[str], changed: Path
) -> None:
    settings = changed / "pods" / "settings.yaml"
    settings.write_text(settings.read_text().replace("partitions: 4", "partitions: four"))
    done = start_changed(beamline, changed)
    assert (done.returncode, "kafka.partitions" in done.stderr) == (1, True)


def test_recommender_is_not_started_without_the_acquisition_pod(
    beamline: Beamline, stopped: subprocess.CompletedProcess[str]
) -> None:
    done = beamline.launcher("start_adaptive_server.sh")
    assert (done.returncode, "start_core_pods.sh" in done.stderr) == (1, True)


def test_bsui_without_pods_says_how_to_start_them(
    beamline: Beamline, stopped: subprocess.CompletedProcess[str]
) -> None:
    done = beamline.launcher("launch_bluesky_headless.sh", stdin="exit\n")
    assert (done.returncode, "start_core_pods.sh" in done.stderr) == (1, True)


# The last one: nothing after it needs the pods stopped.


@pytest.fixture
def again(beamline: Beamline, measured: str) -> str:
    """The run from before the stop."""
    start_if_stopped(beamline)
    return measured


def test_data_are_there_at_the_next_start(beamline: Beamline, again: str) -> None:
    with beamline.http(DATABROKER) as client:
        answer = client.get(f"/api/v1/metadata/{again}")
    assert answer.status_code == httpx.codes.OK
    said = beamline.bsui(f"print('stop=' + db['{again}'].metadata['stop']['exit_status'])")
    assert after("stop", said) == "success"


def test_the_compute_pod_is_the_same_host_at_the_next_start(
    beamline: Beamline, again: str, keys: dict[str, bytes]
) -> None:
    there = {path.name: path.read_bytes() for path in (beamline.folder / "compute").iterdir()}
    shown = beamline.podman(
        *("exec", "compute-sshd", "ssh-keygen", "-y", "-f"),
        "/run/bluesky-plugins/secrets/ssh_host_ed25519_key",
    )
    assert there == keys
    assert shown.split()[1] in keys["known_hosts"].decode()
