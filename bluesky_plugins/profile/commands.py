"""How the queueserver and its HTTP server are started."""

from __future__ import annotations

import sys

from bluesky_plugins.settings import Settings, state_dir

__all__ = ["httpserver_command", "queueserver_command"]

Command = tuple[list[str], dict[str, str]]


def queueserver_command(settings: Settings) -> Command:
    """Command line and environment of the queue's manager, which starts the worker.

    Its process id is the one of the process that works. Whatever is secret it reads from the
    settings by itself.
    """
    return _module("queue_manager"), _environment(settings)


def httpserver_command(settings: Settings) -> Command:
    """Command line and environment of the queue's HTTP server."""
    return _module("queue_http"), _environment(settings)


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"bluesky_plugins.profile.{name}"]


def _environment(settings: Settings) -> dict[str, str]:
    return {
        "BLUESKY_PLUGINS_STATE_DIR": str(state_dir()),
        "PYTHONUNBUFFERED": "1",
        **settings.epics_environment,
    }
