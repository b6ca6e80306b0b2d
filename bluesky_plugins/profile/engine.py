"""The RunEngine of bsui and of the queue."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.utils import ProgressBarManager

from bluesky_plugins.callbacks import KafkaPublisher
from bluesky_plugins.profile.scan_numbers import make_scan_numbers
from bluesky_plugins.settings import Settings

__all__ = ["can_plot", "has_display", "make_engine"]

# Plots are drawn by callbacks in the RunEngine's thread. Only for Qt bluesky has the main thread do
# it; with another toolkit the first plot would take bsui down.
TOOLKITS = ("PyQt6", "PySide6", "PyQt5", "PySide2")


def has_display() -> bool:
    """Whether there is a display for windows."""
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def can_plot() -> bool:
    """Whether plots can be shown: on a display, by a toolkit that bluesky can drive."""
    return has_display() and any(importlib.util.find_spec(name) for name in TOOLKITS)


def make_engine(settings: Settings, *, headless: bool, table: bool) -> Any:
    """A RunEngine that publishes every document, counts its scans with all others, shows a table.

    :param headless: no plots, and no progress bars unless somebody watches a terminal.
    :param table: the live table, and plots where they can be shown.
    """
    engine = RunEngine({"beamline": settings.beamline}, scan_id_source=make_scan_numbers(settings))
    engine.subscribe(KafkaPublisher("documents", settings=settings))
    if settings.document_proxy is not None:
        from bluesky_plugins.profile.document_proxy import ProxyPublisher

        engine.subscribe(ProxyPublisher(settings.document_proxy))
    if table:
        engine.subscribe(_live_table(plots=can_plot() and not headless))
    if sys.stderr.isatty():
        engine.waiting_hook = ProgressBarManager()
    return engine


def _live_table(*, plots: bool) -> BestEffortCallback:
    best = BestEffortCallback()
    if not plots:
        best.disable_plots()
    return best
