"""Images and pods for the tests of this folder; a person's own pods are never touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pods.beamline import PODS, Beamline, Podman, Session, claims

# A build from nothing on two slow cores, on which other tests run.
BUILD_SECONDS = 3600.0
REUSE = "BLUESKY_PLUGINS_TEST_PODS"


def refuse(reason: str) -> None:
    """A skip with the reason; a failure in CI, where everything must be there."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def reused() -> bool:
    return os.environ.get(REUSE) == "reuse"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    """With a failure: what the containers are at."""
    report = yield
    beamline = getattr(item, "funcargs", {}).get("beamline")
    if report.failed and isinstance(beamline, Beamline):
        report.sections.append(("containers", beamline.podman.story()))
    return report


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    """podman; the keys of the tests' pods are in a folder of their own."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    theirs = Path(os.environ.get("BLUESKY_PODS_DIR") or state / "bluesky-plugins-pods")
    podman = Podman(theirs if reused() else tmp_path_factory.mktemp("pods") / "state")
    if podman.missing:
        refuse(f"the pods cannot run here: {podman.missing}")
    return podman


@pytest.fixture(scope="session")
def images(podman: Podman) -> None:
    """All images, built by their scripts; what has not changed is not built again."""
    if reused():
        return  # they are what the running pods are made from
    done = podman.script("image_builders/build_all.sh", timeout=BUILD_SECONDS)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"


@pytest.fixture(scope="package")
def beamline(podman: Podman, images: None) -> Iterator[Beamline]:
    """The pods, started by the launchers; gone with their data after the package's last test."""
    beamline = Beamline(podman)
    if not reused():
        _refuse_to_meet_others(podman)
    try:
        beamline.start()
        yield beamline
    finally:
        if not reused():
            done = beamline.launcher("stop_pods.sh", "--data")
            assert done.returncode == 0, done.stderr


def _refuse_to_meet_others(podman: Podman) -> None:
    theirs = podman.names("pod", "ls", "--format", "{{.Name}}") & set(PODS)
    theirs |= podman.names("volume", "ls", "--format", "{{.Name}}") & claims()
    if theirs:
        refuse(
            f"pods or volumes are here that these tests have not made: {', '.join(sorted(theirs))}."
            f" To have the tests use them (containers are killed): {REUSE}=reuse;"
            " to remove them with all data: bash launchers/stop_pods.sh --data"
        )


@pytest.fixture(scope="module")
def session(beamline: Beamline) -> Iterator[Session]:
    """A bsui in the acquisition pod, for plans that are disturbed."""
    with Session(beamline) as session:
        yield session
