"""Other people's queueserver profiles can offer the plans as they are."""

from __future__ import annotations

from typing import Any

import pytest
from bluesky_queueserver import validate_plan
from bluesky_queueserver.manager.profile_ops import existing_plans_and_devices_from_nspace
from ophyd.sim import SynAxis, SynGauss

from bluesky_plugins import plans


@pytest.fixture(scope="module")
def allowed() -> Any:
    motor = SynAxis(name="motor")
    det = SynGauss("det", motor, "motor", center=0, Imax=1, sigma=1)
    names = {"adaptive_plan": plans.adaptive_plan, "adaptive_scan": plans.adaptive_scan}
    existing_plans, existing_devices, _, _ = existing_plans_and_devices_from_nspace(
        nspace={**names, "motor": motor, "det": det}
    )
    return existing_plans, existing_devices


@pytest.mark.parametrize("name", ["adaptive_plan", "adaptive_scan"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"timeout": 5.0, "on_timeout": "stop", "md": {"sample": "Ni"}, "resume": "a-batch"},
        {"recommender": "step", "bounds": {"motor": [0, 1]}},
    ],
)
def test_a_call_with_names_is_valid(allowed: Any, name: str, options: dict[str, Any]) -> None:
    item = {"name": name, "args": [["det"], {"motor": 0}], "kwargs": options, "item_type": "plan"}
    valid, message = validate_plan(item, allowed_plans=allowed[0], allowed_devices=allowed[1])
    assert valid, message


@pytest.mark.parametrize("name", ["adaptive_plan", "adaptive_scan"])
@pytest.mark.parametrize("options", [{"timeout": "soon"}, {"on_timeout": 3}, {"colour": "red"}])
def test_a_call_with_wrong_kinds_is_not(allowed: Any, name: str, options: dict[str, Any]) -> None:
    item = {"name": name, "args": [["det"], {"motor": 0}], "kwargs": options, "item_type": "plan"}
    valid, _ = validate_plan(item, allowed_plans=allowed[0], allowed_devices=allowed[1])
    assert not valid
