"""The plans by the names that people type."""

from __future__ import annotations

from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp

from bluesky_plugins.plans import adaptive_plan, adaptive_scan, focus_scan, trigger_and_wait

__all__ = ["PLAN_NAMES", "usual_plans"]

PLAN_NAMES = (
    "count",
    "scan",
    "rel_scan",
    "list_scan",
    "rel_list_scan",
    "log_scan",
    "grid_scan",
    "rel_grid_scan",
    "list_grid_scan",
    "scan_nd",
    "spiral",
    "spiral_fermat",
    "adaptive_scan",
    "fly",
)
STUB_NAMES = ("mv", "mvr", "sleep")


def usual_plans() -> dict[str, Any]:
    """Plans and stubs by name; `adaptive_scan` is ours, that of bluesky is `bp.adaptive_scan`."""
    plans = {name: getattr(bp, name) for name in PLAN_NAMES}
    stubs = {name: getattr(bps, name) for name in STUB_NAMES}
    ours = {
        "adaptive_plan": adaptive_plan,
        "adaptive_scan": adaptive_scan,
        "focus_scan": focus_scan,
        "trigger_and_wait": trigger_and_wait,
    }
    return {**plans, **stubs, **ours, "bp": bp, "bps": bps}
