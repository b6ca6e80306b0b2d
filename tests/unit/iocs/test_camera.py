from pathlib import Path

import h5py
import numpy as np
import pytest

from bluesky_plugins.iocs.camera import (
    FOCUS,
    file_below,
    frame,
    seen,
    spot_width,
    write_frames,
)


def test_spot_moves_with_its_two_motors():
    brightest = frame(0.0, x=5.0, y=-3.0).argmax()
    assert divmod(int(brightest), 64) == (24 - 3, 32 + 5)


def test_image_depends_on_nothing_but_positions_and_index():
    assert (frame(1.0, 2.0, 3.0, 4) == frame(1.0, 2.0, 3.0, 4)).all()


@pytest.mark.parametrize("folder", ["..", "a/../../b", "/etc", "a\0b"])
def test_folder_outside_of_the_cameras_own_is_refused(tmp_path: Path, folder: str):
    with pytest.raises(ValueError, match="camera's own"):
        file_below(tmp_path, folder, "image.h5")


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "../x"])
def test_name_that_is_not_of_a_file_is_refused(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="not the name"):
        file_below(tmp_path, "2026", name)


def test_link_that_leads_out_is_refused(tmp_path: Path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "way").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="leads out"):
        file_below(root, "way", "image.h5")


def test_file_has_all_frames_and_no_part_is_left(tmp_path: Path):
    path = file_below(tmp_path, "2026/11", "image.h5")
    write_frames(path, [frame(0.0, 0.0, 0.0, index) for index in range(3)])
    with h5py.File(path) as file:
        assert file["/entry/data"].shape == (3, 48, 64)
    assert [p.name for p in path.parent.iterdir()] == ["image.h5"]


def test_spot_is_narrowest_at_the_true_focus():
    assert spot_width(FOCUS) < min(spot_width(FOCUS - 0.1), spot_width(FOCUS + 0.1))


def test_a_sharper_spot_has_as_much_light():
    sharp, wide = (frame(0.0, 0.0, 0.0, width=width).astype(float) - 100 for width in (2.0, 5.0))
    assert sharp.sum() == pytest.approx(wide.sum(), rel=0.05)


def test_noise_is_that_of_the_photons_and_repeats_with_its_seed():
    image = frame(0.0, 0.0, 0.0)
    noisy = [seen(image, 1.0, np.random.default_rng(3)).astype(float) for _ in range(2)]
    assert (noisy[0] == noisy[1]).all()
    assert np.std((noisy[0] - image) / np.sqrt(image)) == pytest.approx(1.0, abs=0.1)
    assert (seen(image, 0.0, np.random.default_rng(3)) == image).all()
