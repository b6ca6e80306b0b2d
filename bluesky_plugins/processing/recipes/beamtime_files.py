"""Finds and reads the metadata file of a beamtime, and looks at the key that it names."""

from __future__ import annotations

import os
from pathlib import Path

from bluesky_plugins.processing.recipes.beamtime import (
    Beamtime,
    BeamtimeError,
    chosen_file,
    key_fault,
    read_beamtime,
    session_folders,
)

__all__ = ["checked_key", "find_beamtime"]

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


def checked_key(beamtime: Beamtime) -> Path:
    """The ssh key of the beamtime's account.

    :raises BeamtimeError: if nothing is reserved, or the key is not there, is not ours, or may
        be read by others.
    """
    key = Path(beamtime.reserved().key)
    try:
        about = key.stat()
    except OSError as error:
        raise BeamtimeError(f"the ssh key {key} of the beamtime: {error.strerror}") from None
    fault = key_fault(about.st_mode, about.st_uid, os.getuid())
    if fault:
        raise BeamtimeError(f"the ssh key {key} of the beamtime is not used: {fault}")
    return key
