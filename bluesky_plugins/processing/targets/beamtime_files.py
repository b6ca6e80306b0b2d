"""Finds and reads the metadata file of a beamtime, and looks at the key that it names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from bluesky_plugins.processing.recipes.beamtime import (
    Beamtime,
    BeamtimeError,
    at_beamtime,
    chosen_file,
    key_fault,
    read_beamtime,
    session_folders,
)
from bluesky_plugins.processing.recipes.placing import Target

__all__ = ["checked_key", "find_beamtime", "target_at_beamtime", "unusable_key"]

MAX_BYTES = 1_000_000


def find_beamtime(data_path: str | None = None, root: str = "/gpfs") -> Beamtime:
    """The beamtime that a file belongs to, or the active one.

    :param data_path: a file of the beamtime; None: the beamtime that is active.
    :param root: folder of the beamline's file system.
    :raises BeamtimeError: if there is none, or its file cannot be used.
    """
    folders = session_folders(data_path, root)
    for folder in folders:
        if Path(folder).is_dir():
            return _in_folder(folder)
    raise BeamtimeError(f"no beamtime is active: there is no folder {' or '.join(folders)}")


def _in_folder(folder: str) -> Beamtime:
    try:
        path = Path(chosen_file(folder, os.listdir(folder)))  # noqa: PTH208 - names are wanted
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise BeamtimeError(f"the beamtime's metadata in {folder}: {error}") from None
    if len(text) > MAX_BYTES:
        raise BeamtimeError(f"{path} is longer than {MAX_BYTES} bytes")
    return read_beamtime(text, folder)


def unusable_key(key: Path) -> str | None:
    """Why an ssh key is not used: it is not there, is not ours, or others may read it; or None."""
    try:
        about = key.stat()
    except OSError as error:
        return f"the ssh key {key} of the beamtime: {error.strerror}"
    fault = key_fault(about.st_mode, about.st_uid, os.getuid())
    return f"the ssh key {key} of the beamtime is not used: {fault}" if fault else None


def checked_key(beamtime: Beamtime) -> Path:
    """The ssh key of the beamtime's account.

    :raises BeamtimeError: if nothing is reserved, or the key must not be used.
    """
    key = Path(beamtime.reserved().key)
    fault = unusable_key(key)
    if fault is not None:
        raise BeamtimeError(fault)
    return key


def target_at_beamtime(target: Target, root: str, work_dir: str, paths: Sequence[str]) -> Target:
    """A target for jobs on these files; with a fault where their beamtime has nothing for it.

    :param root: folder of the beamline's file system.
    :param work_dir: folder of the jobs, below the beamtime's folder in the core file system.
    :param paths: of the files; none of a beamtime: the beamtime that is active.
    """
    try:
        beamtime = find_beamtime(_first_of_a_beamtime(paths, root), root)
        placed = at_beamtime(target, beamtime, work_dir)
        checked_key(beamtime)
    except BeamtimeError as error:
        return target.model_copy(update={"fault": str(error)})
    return placed


def _first_of_a_beamtime(paths: Sequence[str], root: str) -> str | None:
    """The file by which the beamtime is found."""
    for path in paths:
        with contextlib.suppress(BeamtimeError):
            session_folders(path, root)
            return path
    return None
