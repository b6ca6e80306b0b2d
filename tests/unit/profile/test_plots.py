"""When bsui shows plots."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from bluesky_plugins.profile.engine import can_plot


@pytest.fixture(autouse=True)
def display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def find(name: str) -> Any:
        return object() if name in names else None

    monkeypatch.setattr(importlib.util, "find_spec", find)


def test_a_display_with_qt_shows_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "PyQt5")
    assert can_plot()


def test_a_display_with_tk_alone_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "tkinter")
    assert not can_plot()


def test_qt_without_a_display_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "PyQt5")
    monkeypatch.delenv("DISPLAY")
    assert not can_plot()
