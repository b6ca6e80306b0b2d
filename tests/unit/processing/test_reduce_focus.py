"""The program of recipe `focus`, on frames of which the spot is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bluesky_plugins.processing.examples.reduce_focus import (
    NO_SPOT,
    SATURATED,
    UNREADABLE,
    ReductionError,
    fit_spot,
    main,
    mean_frame,
    model,
)

SHAPE = (48, 64)
SPOT = (31.3, 24.6, 3.2, 1000.0, 100.0)


def noisy(spot: tuple[float, ...] = SPOT, seed: int = 0) -> Any:
    return np.random.default_rng(seed).poisson(model(spot, SHAPE)).astype(np.uint16)


def written(folder: Path, frames: Any, name: str = "/entry/data") -> str:
    path = folder / "frames.h5"
    with h5py.File(path, "w") as file:
        file[name] = frames
    return str(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a job."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@settings(max_examples=40, deadline=None)
@given(
    x=st.floats(12.0, 52.0),
    y=st.floats(12.0, 36.0),
    width=st.floats(1.0, 9.0),
    height=st.floats(50.0, 50_000.0),
    background=st.floats(0.0, 1000.0),
)
def test_a_spot_is_found_where_it_is(
    x: float, y: float, width: float, height: float, background: float
) -> None:
    found = fit_spot(model((x, y, width, height, background), SHAPE))
    assert found == pytest.approx((x, y, width, height, background), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("width", [2.0, 3.0, 5.0, 8.0])
def test_photon_noise_moves_the_width_by_a_hundredth(width: float) -> None:
    height = 1000.0 * (5.0 / width) ** 2
    found = fit_spot(noisy((31.3, 24.6, width, height, 100.0)).astype(float))
    assert found.width == pytest.approx(width, rel=0.01)


def test_results_are_written(folder: Path) -> None:
    assert main([written(folder, noisy()[np.newaxis])]) == 0
    numbers = json.loads((folder / "numbers.json").read_text())
    assert numbers == pytest.approx({"x": 31.3, "y": 24.6, "width": 3.2}, abs=0.05)
    with h5py.File(folder / "reduced.h5") as file:
        assert file["frame"].shape == file["fit"].shape == SHAPE
        assert file.attrs["width"] == numbers["width"]


def test_frames_are_averaged(folder: Path) -> None:
    frames = np.stack([noisy(seed=seed) for seed in range(8)])
    assert main([written(folder, frames)]) == 0
    with h5py.File(folder / "reduced.h5") as file:
        assert file["frame"][...] == pytest.approx(frames.mean(axis=0))


def hot(pixels: int) -> Any:
    frame = noisy()
    frame[3, :pixels] = 65535
    return frame[np.newaxis]


def test_a_hot_pixel_is_no_saturation() -> None:
    assert mean_frame(hot(1), 65535.0).shape == SHAPE


@pytest.mark.parametrize(
    ("frames", "status", "reason"),
    [
        (np.full((1, *SHAPE), 100, np.uint16), NO_SPOT, "the frame is flat"),
        (noisy((0, 0, 1, 0, 100.0))[np.newaxis], NO_SPOT, "no spot"),
        (noisy((-20.0, 24.0, 9.0, 5000.0, 100.0))[np.newaxis], NO_SPOT, "is outside"),
        (hot(3), SATURATED, "frame 0 is saturated: 3 pixels at 65535 counts or more"),
        (np.full((1, *SHAPE), np.nan), UNREADABLE, "pixels that are no numbers"),
        (np.zeros((0, *SHAPE)), UNREADABLE, "no frames"),
        (np.zeros(5), UNREADABLE, "no frames"),
        ("text", UNREADABLE, "no frames"),
    ],
    ids=["flat", "noise", "outside", "saturated", "nan", "empty", "1d", "text"],
)
def test_what_cannot_be_reduced_is_said_and_leaves_no_numbers(
    folder: Path, capsys: pytest.CaptureFixture[str], frames: Any, status: int, reason: str
) -> None:
    assert main([written(folder, frames)]) == status
    assert reason in capsys.readouterr().err
    assert not (folder / "numbers.json").exists()


def test_another_dataset_may_be_named(folder: Path) -> None:
    assert main([written(folder, noisy(), "images"), "--dataset", "images"]) == 0


def test_a_lower_saturation_may_be_named(folder: Path) -> None:
    assert main([written(folder, noisy()), "--saturation", "900"]) == SATURATED


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "there is no file"), (b"no HDF5", "cannot be read")]
)
def test_a_file_that_cannot_be_read_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, reason: str
) -> None:
    path = folder / "a b.h5"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path)]) == UNREADABLE
    said = capsys.readouterr().err
    assert reason in said
    assert "a b.h5" in said


def test_a_dataset_that_is_not_there_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([written(folder, noisy()), "--dataset", "/entry/other"]) == UNREADABLE
    assert "has no dataset /entry/other" in capsys.readouterr().err


def test_no_file_is_bad_usage() -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])


def test_a_spot_between_two_pixels_has_no_width() -> None:
    frame = np.full(SHAPE, 100.0)
    frame[20, 30] = 5000.0
    with pytest.raises(ReductionError, match="its width would be"):
        fit_spot(frame + np.random.default_rng(0).normal(0, 1, SHAPE))
