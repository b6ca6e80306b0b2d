"""Reduce a camera's frames to the place and the width of its spot.

`reduce-focus FRAMES.h5` writes `numbers.json` (x, y, width, in pixels) and `reduced.h5` (the mean
frame and the spot that was fitted to it) into the working directory. One file, which needs h5py,
NumPy and SciPy and nothing else: it is copied to where it is to run.

Exit status: 0 done, 2 bad usage, 3 the frames cannot be read, 4 saturated, 5 no spot.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

UNREADABLE, SATURATED, NO_SPOT = 3, 4, 5
# A spot stands out of the noise of the background by at least this factor.
SIGNIFICANT = 5.0
# Fewer saturated pixels than this may be hot ones.
FEW = 3
# A narrower spot lies between two pixels, and its width is not to be seen.
NARROWEST = 0.3

Image = NDArray[np.float64]


class ReductionError(Exception):
    """The frames cannot be reduced; the text says why.

    :param status: exit status of the program.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Spot(NamedTuple):
    """A round Gaussian spot: its place and its standard deviation, in pixels; counts."""

    x: float
    y: float
    width: float
    height: float
    background: float


def read_frames(path: Path, dataset: str) -> NDArray[np.generic]:
    """All frames of a file, shape (frames, rows, columns).

    :raises ReductionError: if there are none.
    """
    try:
        with h5py.File(path) as file:
            data = file[dataset][()]
    except FileNotFoundError:
        raise ReductionError(UNREADABLE, f"there is no file {path}") from None
    except KeyError:
        raise ReductionError(UNREADABLE, f"{path} has no dataset {dataset}") from None
    except (OSError, TypeError) as error:
        raise ReductionError(UNREADABLE, f"{path} cannot be read: {error}") from None
    frames = np.asarray(data)
    frames = frames[np.newaxis] if frames.ndim == 2 else frames
    if frames.ndim != 3 or frames.size == 0 or frames.dtype.kind not in "uif":
        told = f"{frames.dtype} of shape {frames.shape}"
        raise ReductionError(UNREADABLE, f"{dataset} of {path} is {told}, no frames")
    return frames


def mean_frame(frames: NDArray[np.generic], saturation: float) -> Image:
    """The mean of all frames, shape (rows, columns).

    :param saturation: counts from which on a pixel is saturated.
    :raises ReductionError: if a frame is saturated, or holds what is no number.
    """
    for index, frame in enumerate(frames):
        full = int(np.count_nonzero(frame >= saturation))
        if full >= FEW:
            reason = f"frame {index} is saturated: {full} pixels at {saturation:g} counts or more"
            raise ReductionError(SATURATED, reason)
    mean: Image = frames.astype(float).mean(axis=0)
    if not np.isfinite(mean).all():
        raise ReductionError(UNREADABLE, "a frame holds pixels that are no numbers")
    return mean


def model(spot: Sequence[float], shape: tuple[int, int]) -> Image:
    """The image of a spot.

    :param spot: x, y, width, height, background.
    """
    x, y, width, height, background = spot
    rows, columns = np.indices(shape)
    distance = (columns - x) ** 2 + (rows - y) ** 2
    image: Image = background + height * np.exp(-distance / (2.0 * width**2))
    return image


def _noise(image: Image) -> float:
    """Its standard deviation by the differences of neighbours, of which a wide spot has none.

    Never 0.
    """
    steps = np.abs(np.diff(image, axis=1))
    return max(1.0484 * float(np.median(steps)), 1e-3)


def _first_guess(image: Image) -> list[float]:
    """Moments of what stands out of the background."""
    background = float(np.percentile(image, 20))
    above = image - background
    above[above < 0.3 * above.max()] = 0.0
    total = above.sum()
    if total <= 0:
        raise ReductionError(NO_SPOT, "no spot: the frame is flat")
    rows, columns = np.indices(image.shape)
    x, y = float((above * columns).sum() / total), float((above * rows).sum() / total)
    spread = (above * ((columns - x) ** 2 + (rows - y) ** 2)).sum() / total / 2.0
    width = max(float(np.sqrt(spread)), 2 * NARROWEST)
    return [x, y, width, float(image.max()) - background, background]


def fit_spot(image: Image) -> Spot:
    """The spot of an image.

    :param image: counts, shape (rows, columns).
    :raises ReductionError: if there is none that stands out of the noise and lies inside.
    """
    guess, (rows, columns) = _first_guess(image), image.shape
    fitted = least_squares(lambda spot: (model(spot, (rows, columns)) - image).ravel(), guess)
    x, y, width, height, background = map(float, fitted.x)
    spot, noise = Spot(x, y, abs(width), height, background), _noise(image)
    if height < SIGNIFICANT * noise:
        told = f"{height:.3g} counts over a noise of {noise:.3g}"
        raise ReductionError(NO_SPOT, f"no spot: the brightest place has {told}")
    if not (-0.5 <= x <= columns - 0.5 and -0.5 <= y <= rows - 0.5):
        raise ReductionError(NO_SPOT, f"no spot: its centre ({x:.1f}, {y:.1f}) is outside")
    if not NARROWEST <= spot.width <= max(rows, columns) / 2:
        raise ReductionError(NO_SPOT, f"no spot: its width would be {spot.width:.3g} pixels")
    return spot


def write_results(folder: Path, image: Image, spot: Spot) -> None:
    """Write `reduced.h5`, and then `numbers.json`, which says that all is there.

    :raises OSError: if that is not possible.
    """
    with h5py.File(folder / "reduced.h5", "w") as file:
        file["frame"], file["fit"] = image, model(spot, (image.shape[0], image.shape[1]))
        file.attrs.update(spot._asdict())
    numbers = {name: getattr(spot, name) for name in ("x", "y", "width")}
    (folder / "numbers.json").write_text(json.dumps(numbers) + "\n")


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(prog="reduce-focus", description=(__doc__ or "").split("\n")[0])
    made.add_argument("frames", type=Path, help="HDF5 file")
    made.add_argument("--dataset", default="/entry/data", help="its frames (default: %(default)s)")
    made.add_argument(
        "--saturation", type=float, default=65535.0, help="counts (default: %(default)g)"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Reduce; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        frames = read_frames(options.frames, options.dataset)
        image = mean_frame(frames, options.saturation)
        spot = fit_spot(image)
        write_results(Path(), image, spot)
    except ReductionError as error:
        sys.stderr.write(f"reduce-focus: {error}\n")
        return error.status
    except OSError as error:
        sys.stderr.write(f"reduce-focus: {error.filename or 'the results'}: {error.strerror}\n")
        return 1
    sys.stdout.write(f"x {spot.x:.3f}, y {spot.y:.3f}, width {spot.width:.3f} pixels\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
