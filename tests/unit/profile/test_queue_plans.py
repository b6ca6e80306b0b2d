"""What the queue takes of jobs, by the lists that are shipped."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
import yaml
from bluesky_queueserver import validate_plan
from bluesky_queueserver.manager.profile_ops import existing_plans_and_devices_from_nspace

from bluesky_plugins.plans import trigger_and_wait
from bluesky_plugins.profile.queue_plans import _job


@pytest.fixture(scope="module")
def shipped() -> Any:
    text = (files("bluesky_plugins.profile") / "existing_plans_and_devices.yaml").read_text()
    return yaml.safe_load(text)["existing_plans"]


def said(shipped: Any, argv: Any, **options: Any) -> tuple[bool, str]:
    item = {"name": "trigger_and_wait", "args": [argv], "kwargs": options, "item_type": "plan"}
    valid, message = validate_plan(item, allowed_plans=shipped, allowed_devices={})
    return bool(valid), str(message)


def test_the_shipped_description_is_the_one_of_the_plan(shipped: Any) -> None:
    made, *_ = existing_plans_and_devices_from_nspace(nspace={"it": _job(trigger_and_wait)})
    assert shipped["trigger_and_wait"] == {**made["it"], "name": "trigger_and_wait"}


@pytest.mark.parametrize("options", [{}, {"method": "local_bash_script", "timeout": 60.0}])
def test_a_program_and_its_words_are_taken(shipped: Any, options: dict[str, Any]) -> None:
    assert said(shipped, ["/bin/echo", "a b"], **options) == (True, "")


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        ("echo a", {}),
        (["/bin/echo", {"a": 1}], {}),
        (["/bin/echo"], {"method": "slurm_rest_api"}),
        (["/bin/echo"], {"timeout": -1.0}),
        (["/bin/echo"], {"trigger": "mine"}),
    ],
)
def test_anything_else_is_refused_when_it_is_queued(
    shipped: Any, argv: Any, options: dict[str, Any]
) -> None:
    valid, message = said(shipped, argv, **options)
    assert not valid
    assert message
