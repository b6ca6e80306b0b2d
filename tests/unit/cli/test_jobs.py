"""The command `jobs`: what is said of a bad request without any server."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from bluesky_plugins.cli.jobs import STATES, UNENDED, _in_vain, jobs
from bluesky_plugins.processing import JobState


def test_the_states_of_the_command_are_those_of_jobs() -> None:
    assert set(STATES) == {state.value for state in JobState}
    assert set(UNENDED) == {state.value for state in JobState if not state.final}


def test_an_unknown_state_is_bad_usage_and_the_known_ones_are_named() -> None:
    done = CliRunner().invoke(jobs, ["list", "--state", "runing"])
    assert done.exit_code == 2
    assert "'runing' is not one of" in done.output
    assert "'running'" in done.output


@pytest.mark.parametrize(
    ("what", "state", "said"),
    [
        ("cancel", "running", None),
        ("cancel", "lost", None),
        ("cancel", "failed", "job aaaa has ended: it is failed"),
        ("retry", "failed", None),
        ("retry", "lost", None),
        ("retry", "queued", "job aaaa has not ended: it is queued"),
        ("retry", "succeeded", "job aaaa has succeeded"),
    ],
)
def test_what_would_have_no_effect_is_said(what: str, state: str, said: str | None) -> None:
    found: dict[str, Any] = {"key": "aaaa", "state": state}
    why = _in_vain(what, found)
    assert (why is None) if said is None else (why is not None and why.startswith(said))
