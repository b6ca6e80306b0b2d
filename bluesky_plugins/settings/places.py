"""Where settings and state are looked for."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_state_dir

__all__ = [
    "PREFIX",
    "STACK_FILE",
    "ConfigurationError",
    "secrets_dir",
    "state_dir",
]

PREFIX = "BLUESKY_PLUGINS_"
STACK_FILE = "stack.json"


class ConfigurationError(ValueError):
    """A setting is unknown or has a value that cannot be used."""


def state_dir() -> Path:
    """Folder of the running stack: BLUESKY_PLUGINS_STATE_DIR or the user's state folder."""
    named = os.environ.get("BLUESKY_PLUGINS_STATE_DIR")
    return Path(named).expanduser().absolute() if named else Path(user_state_dir("bluesky-plugins"))


def secrets_dir() -> Path | None:
    """Folder of files named like the environment's settings, if one is named."""
    named = os.environ.get("BLUESKY_PLUGINS_SECRETS_DIR")
    return Path(named).expanduser().absolute() if named else None
