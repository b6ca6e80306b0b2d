"""Doors of the RunEngine: plans."""

from bluesky_plugins.plans.adaptive import TakeReadingError, adaptive_plan, adaptive_scan
from bluesky_plugins.plans.focus import focus_scan
from bluesky_plugins.plans.gate import Refusal
from bluesky_plugins.plans.triggering import JobFailed, trigger_and_wait
from bluesky_plugins.plans.waiting import AdaptiveTimeout

__all__ = [
    "AdaptiveTimeout",
    "JobFailed",
    "Refusal",
    "TakeReadingError",
    "adaptive_plan",
    "adaptive_scan",
    "focus_scan",
    "trigger_and_wait",
]
