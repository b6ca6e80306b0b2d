from pathlib import Path

import h5py
import numpy as np
import pytest

from bluesky_plugins.recording import CameraHandler
from bluesky_plugins.recording.cameras import kept_inside_root


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["/entry/data"] = np.arange(12).reshape(2, 2, 3)
    return tmp_path / "a.h5"


def test_a_frame_is_read_by_its_index(file: Path) -> None:
    handler = CameraHandler(str(file), dataset="/entry/data")
    np.testing.assert_array_equal(handler(index=1), [[6, 7, 8], [9, 10, 11]])
    assert handler.get_file_list([{"index": 0}]) == [str(file)]


@pytest.mark.parametrize("index", [-1, 2])
def test_a_frame_that_is_not_there_is_an_error(file: Path, index: int) -> None:
    with pytest.raises(IndexError, match="has 2 frames"):
        CameraHandler(str(file))(index=index)


@pytest.mark.parametrize("path", ["../a.h5", "/etc/hosts", "x/../../a.h5", "link/a.h5"])
def test_a_path_that_leaves_the_root_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    resource = {"spec": "BP_CAMERA_HDF5", "root": str(root), "resource_path": path}
    with pytest.raises(ValueError, match="leads out of"):
        kept_inside_root(resource)


def test_a_path_inside_the_root_and_other_cameras_are_left_alone(tmp_path: Path) -> None:
    ours = {"spec": "BP_CAMERA_HDF5", "root": str(tmp_path), "resource_path": "2026/a.h5"}
    other = {"spec": "AD_HDF5", "root": "/", "resource_path": "../x"}
    assert kept_inside_root(ours) is ours
    assert kept_inside_root(other) is other
