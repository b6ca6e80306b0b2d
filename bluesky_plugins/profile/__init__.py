"""The start-up files of bsui and of the queue.

Each name is imported when it is first asked for: ophyd takes its control layer, and caproto its
addresses, at import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluesky_plugins.profile.bsui import run_bsui
    from bluesky_plugins.profile.commands import httpserver_command, queueserver_command
    from bluesky_plugins.profile.mending import MendReport, mend_queue
    from bluesky_plugins.profile.namespace import make_namespace

__all__ = [
    "MendReport",
    "httpserver_command",
    "make_namespace",
    "mend_queue",
    "queueserver_command",
    "run_bsui",
]

_MODULES = {
    "MendReport": "mending",
    "httpserver_command": "commands",
    "make_namespace": "namespace",
    "mend_queue": "mending",
    "queueserver_command": "commands",
    "run_bsui": "bsui",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
