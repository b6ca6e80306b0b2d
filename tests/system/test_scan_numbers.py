"""Scan numbers of a RunEngine while their Redis is killed in the middle of a scan."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import pytest
from bluesky import RunEngine
from ophyd.sim import det, motor

from bluesky_plugins.adaptive import StepRecommender, recommender_factory
from bluesky_plugins.plans import adaptive_plan
from bluesky_plugins.profile.scan_numbers import make_scan_numbers
from bluesky_plugins.settings import Settings

pytestmark = [pytest.mark.system, pytest.mark.timed, pytest.mark.timeout(180)]


def test_redis_killed_in_the_middle_holds_no_scan_up(
    private_valkey: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLUESKY_PLUGINS_STATE_DIR", str(tmp_path / "state"))
    settings = Settings(redis={"url": private_valkey.address})
    engine = RunEngine({}, scan_id_source=make_scan_numbers(settings))
    numbers: list[int] = []

    def kill(name: str, doc: dict[str, Any]) -> None:
        numbers.append(doc["scan_id"])
        if len(numbers) == 4:
            private_valkey.kill()

    engine.subscribe(kill, "start")
    callback, answers = recommender_factory(StepRecommender(1.5), ["motor"], ["det"], max_count=15)
    begun = time.monotonic()
    engine(adaptive_plan([det], {motor: 0}, to_recommender=callback, from_recommender=answers))
    assert time.monotonic() - begun < 10
    private_valkey.start()
    engine(bp.count([det]))
    assert numbers == list(range(1, 19))
    engine.loop.call_soon_threadsafe(engine.loop.stop)
    engine._th.join(5)
    engine.loop.close()
