"""What the focus demo says when it cannot work, and what it shows of its runs."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bluesky_plugins.adaptive import fit_focus
from bluesky_plugins.cli.demo_focus import check_target, found_focus
from bluesky_plugins.cli.focus_picture import draw_focus
from bluesky_plugins.cli.focus_runs import FocusRun, FocusRuns, waiting_told
from bluesky_plugins.cli.stack_processing import example
from bluesky_plugins.embedded import StackError
from bluesky_plugins.iocs.camera import frame, write_frames
from bluesky_plugins.settings import Settings

RECIPES = str(example("recipes.yaml"))


@pytest.mark.parametrize(
    ("processing", "reason"),
    [
        ({}, "the stack runs without recipes"),
        ({"recipes": "other.yaml"}, "other.yaml has no recipe `focus`"),
        ({"recipes": RECIPES}, "there is no target slurm for recipe focus"),
    ],
)
def test_what_it_lacks_is_said_before_anything_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processing: dict[str, Any], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.yaml").write_text("recipes: []\n")
    settings = Settings.model_validate({"processing": processing})
    with pytest.raises(StackError, match=reason):
        check_target(settings, "slurm")


def job(run: str, **numbers: float) -> Any:
    """As the store has it."""
    record = SimpleNamespace(host="node7")
    return SimpleNamespace(
        key="0123456789abcdef" * 4,
        subject=SimpleNamespace(run=run),
        numbers=numbers,
        place=SimpleNamespace(target="slurm"),
        attempt=SimpleNamespace(record=record),
    )


def seen(runs: FocusRuns, uid: str, count: int, position: float) -> None:
    runs.document("start", {"uid": uid, "batch_id": "b", "batch_count": count})
    runs.document("resource", {"root": "/camera", "resource_path": f"{uid}.h5"})
    runs.document("event", {"data": {"focus": position}})


def test_a_run_is_told_when_the_next_one_begins_and_the_last_one_at_the_end() -> None:
    said: list[str] = []
    jobs = {"b": [job("one", width=7.0214, x=1.0, y=2.0), job("two", width=4.8, x=1.0, y=2.0)]}
    runs = FocusRuns("focus", jobs.__getitem__, said.append)
    seen(runs, "one", 0, -8.0)
    assert said == []
    seen(runs, "two", 1, -4.0)
    assert said == ["      0      -8.000       7.021  0123456789abcdef  slurm (node7)"]
    runs.tell()
    runs.tell()
    assert len(said) == 2
    assert [run.frames for run in runs.runs] == [Path("/camera/one.h5"), Path("/camera/two.h5")]


def test_a_run_without_a_job_has_a_row_and_no_part_in_the_focus() -> None:
    said: list[str] = []
    runs = FocusRuns("focus", lambda batch: [], said.append)
    seen(runs, "one", 0, -8.0)
    runs.tell()
    assert said[0].split() == ["0", "-8.000", "nan", "-", "-"]
    assert runs.reduced == []
    with pytest.raises(StackError, match="no focus is to be seen in 0 widths"):
        found_focus(runs)


def test_what_a_plan_waits_for_is_told_without_the_run_and_only_meanwhile() -> None:
    said: list[str] = []
    logger = logging.getLogger("bluesky_plugins.plans.batch")
    awaited = "results of processing for run 1: recipe focus, job 2 is queued on slurm: as 7"
    with waiting_told(said.append):
        logger.warning("count %d waits for %s", 3, awaited)
        logger.warning("suggestions for batch b; dropped: 1 stale")
    told, other = said
    assert told.strip() == "waits for recipe focus, job 2 is queued on slurm"
    assert other == "suggestions for batch b; dropped: 1 stale"
    assert logging.getLogger("bluesky_plugins.plans").handlers == []


def test_the_picture_is_drawn_for_many_runs_and_for_points_at_one_place(tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    write_frames(path, [frame(0.0, 0.0, 0.0)])
    zs = [*np.linspace(-8.0, 8.0, 20), 3.27, 3.27]
    widths = [float(np.hypot(2.0, 0.6 * (z - 3.27))) for z in zs]
    runs = [
        FocusRun(f"{n}", n, z, {"x": 32.0, "y": 24.0, "width": width}, frames=path)
        for n, (z, width) in enumerate(zip(zs, widths, strict=True))
    ]
    fit = fit_focus(zs, widths)
    assert fit is not None
    draw_focus(runs, fit, tmp_path / "new" / "p.png", title="22 runs", true=None)
    assert (tmp_path / "new" / "p.png").read_bytes().startswith(b"\x89PNG")
