"""Read the files that a camera's `resource` and `datum` documents name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

__all__ = ["CAMERA_SPEC", "CameraHandler", "kept_inside_root"]

CAMERA_SPEC = "BP_CAMERA_HDF5"


class CameraHandler:
    """Frames of one HDF5 file, for databroker's handler registry.

    :param path: of the file: `root` and `resource_path` of its resource document, joined.
    :param dataset: path inside the file of an array (frame, row, column).
    """

    specs = frozenset({CAMERA_SPEC})

    def __init__(self, path: str, dataset: str = "/entry/data") -> None:
        self._path = Path(path)
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


def kept_inside_root(resource: dict[str, Any]) -> dict[str, Any]:
    """The resource document, if its file lies below its `root`.

    What travels over Kafka names files, and must not name any file of the reader's.

    :raises ValueError: if one of our camera's leads out of its root.
    """
    if resource.get("spec") == CAMERA_SPEC:
        root = Path(resource["root"]).resolve()
        if not (root / resource["resource_path"]).resolve().is_relative_to(root):
            raise ValueError(f"{resource['resource_path']} leads out of {resource['root']}")
    return resource
