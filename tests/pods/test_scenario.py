"""The services cannot tell where they are: one scenario gives the same documents in the pods."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.pods.beamline import ROOT, Beamline, until
from tests.scenario import ADAPTIVE_RUNS

pytestmark = [pytest.mark.pods, pytest.mark.timeout(900, func_only=True)]

SCRIPT = ROOT / "tests" / "scenario.py"


@pytest.fixture(scope="module")
def embedded(stack: Any) -> dict[str, Any]:
    """The scenario on the embedded stack."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-", "--json"],
        input=SCRIPT.read_text(),
        env=stack.environment,
        cwd=stack.state_dir,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def uids(beamline: Beamline) -> list[str]:
    """Runs of the scenario in the acquisition pod."""
    said = beamline.podman(
        *("exec", "-i", "acquisition-recorder", "python", "-W", "ignore", "-", "--uids"),
        stdin=SCRIPT.read_text(),
        timeout=600,
    )
    return said.split()


def test_acquisition_pod_stores_the_documents_of_the_embedded_stack(
    beamline: Beamline, uids: list[str], embedded: dict[str, Any]
) -> None:
    def stored() -> dict[str, Any] | None:
        found = beamline.stored("acquisition-recorder", uids)
        return found if len(found["suggestions"]) == ADAPTIVE_RUNS else None

    assert until(stored, "suggestion to each run") == embedded


def test_databroker_pod_stores_the_documents_of_the_embedded_stack(
    beamline: Beamline, uids: list[str], embedded: dict[str, Any]
) -> None:
    assert beamline.stored("databroker-recorder", uids)["runs"] == embedded["runs"]
