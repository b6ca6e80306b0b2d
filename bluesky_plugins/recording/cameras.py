"""Read the files that a camera's `resource` and `datum` documents name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

__all__ = ["CAMERA_SPEC", "CameraHandler"]

CAMERA_SPEC = "BP_CAMERA_HDF5"


class CameraHandler:
    """Frames of one HDF5 file, for databroker's handler registry.

    :param resource_path: relative to `root`; a path that leaves `root` is refused.
    :param root: folder of the camera's files.
    :param dataset: path inside the file of an array (frame, row, column).
    :raises ValueError: if the path leads out of `root`.
    """

    specs = frozenset({CAMERA_SPEC})

    def __init__(self, resource_path: str, root: str, dataset: str = "/entry/data") -> None:
        top = Path(root).resolve()
        self._path = (top / resource_path).resolve()
        if not self._path.is_relative_to(top):
            raise ValueError(f"{resource_path} leads out of {root}")
        self._dataset = dataset

    def __call__(self, index: int) -> np.ndarray[Any, Any]:
        """Frame number `index`, an array (row, column).

        :raises OSError: if the file is not there, or is not HDF5.
        :raises IndexError: if it has no such frame.
        """
        # Opened for each frame: the camera may still be writing, and a file kept open by a
        # reader cannot be opened by the writer again.
        with h5py.File(self._path, "r", locking=False) as file:
            frames = file[self._dataset]
            if not 0 <= index < len(frames):
                raise IndexError(f"{self._path.name} has {len(frames)} frames, no {index}")
            return np.asarray(frames[index])

    def get_file_list(self, datum_kwargs: Any) -> list[str]:
        """The files that hold the data, as databroker asks for them."""
        return [str(self._path)]
