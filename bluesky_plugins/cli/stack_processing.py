"""What an embedded stack processes with, as long as nobody sets anything else."""

from __future__ import annotations

import os
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bluesky_plugins.settings import Settings

__all__ = ["LOCAL", "PROGRAM", "SLURM", "compute_keys", "example", "processing_defaults"]

LOCAL, SLURM = "local", "slurm"
# What recipe `focus` calls its program, and the folder of its virtual environment.
PROGRAM, FOLDER = "reduce-focus", "focus"
COMPUTE_HOST, COMPUTE_PORT, COMPUTE_USER = "127.0.0.1", 60622, "beamline"


def example(name: str) -> Path:
    """A file of the examples that the package comes with."""
    return Path(str(files("bluesky_plugins.processing.examples") / name))


def program_folder(root: Path) -> Path:
    """Of the programs of recipe `focus` on this machine.

    :param root: the state folder.
    """
    return root / "programs" / FOLDER


def compute_keys() -> Path:
    """Where `launchers/start_compute_pod.sh` puts the key of its account and its host's key."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    named = os.environ.get("BLUESKY_PODS_DIR")
    return (Path(named) if named else Path(state) / "bluesky-plugins-pods") / "compute"


def processing_defaults(settings: Settings, root: Path) -> dict[str, Any]:
    """The example's recipe, and as targets this machine and the pod `compute`.

    Whether that pod runs does not matter: a target that is away only keeps its own jobs waiting.

    :param settings: what a person has set; that is left alone.
    :param root: the state folder.
    """
    values: dict[str, Any] = {}
    if settings.processing.recipes is None:
        values["recipes"] = str(example("recipes.yaml"))
    if not settings.processing.targets:
        program = program_folder(root) / "bin" / PROGRAM
        local = {"kind": "local", "programs": {PROGRAM: str(program)}}
        values["targets"] = {LOCAL: local, SLURM: _compute_pod(settings.camera_dir)}
    return values


def _compute_pod(camera: Path) -> dict[str, Any]:
    keys = compute_keys().absolute()
    return {
        "kind": "slurm",
        "via": "asyncssh" if find_spec("asyncssh") else "openssh",
        "host": COMPUTE_HOST,
        "port": COMPUTE_PORT,
        "user": COMPUTE_USER,
        "keys": [str(keys / "id_ed25519")],
        "known_hosts": str(keys / "known_hosts"),
        "work_dir": "/home/beamline/jobs",
        "paths": [{"local": str(camera.absolute()), "remote": "/beamline/data"}],
        "programs": {PROGRAM: "/opt/focus/bin/reduce-focus"},
    }
