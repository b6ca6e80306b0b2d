"""The same scenario gives the same documents, whoever serves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scenario import ADAPTIVE_RUNS, ScenarioError, documents_of, scenario

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
SCRIPT = Path(__file__).parents[1] / "scenario.py"


def test_facility_servers_and_embedded_ones_give_the_same_documents(
    make_loop: Callable[..., Any], facility: dict[str, Any], tmp_path: Path
) -> None:
    loops = [make_loop(), make_loop(**facility)]
    for loop in loops:
        for service in ("recommender", "recorder"):
            loop.service(service)
    embedded = piped_scenario(loops[0], tmp_path)
    assert len(embedded["runs"]) == ADAPTIVE_RUNS + 2
    assert [run["stop"][0]["exit_status"] for run in embedded["runs"][-2:]] == ["success", "fail"]
    assert scenario(loops[1].settings) == embedded


def piped_scenario(loop: Any, folder: Path) -> dict[str, Any]:
    """As in a container: the script through a pipe, into an interpreter that has no tests."""
    done = subprocess.run(
        [sys.executable, "-", "--json"],
        input=SCRIPT.read_text(),
        env=loop.environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_run_that_is_not_stored_is_an_error_and_no_short_list(loop: Any) -> None:
    with pytest.raises(ScenarioError, match="stops"):
        documents_of(loop.settings, ["nobody measured this"], timeout=0.2)
