"""A simulated camera that writes HDF5 files, and the pure image it sees."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from caproto import ChannelType, SkipWrite
from caproto.server import PVGroup, pvproperty
from numpy.typing import NDArray

__all__ = [
    "DATASET",
    "FOCUS",
    "Camera",
    "file_below",
    "frame",
    "seen",
    "spot_width",
    "write_frames",
]

DATASET = "/entry/data"
SHAPE = (48, 64)
MAX_FRAMES = 10_000
# Where the focus stage has the spot at its narrowest, mm; what a scan of it is to find.
FOCUS = 3.2718
NARROWEST = 2.0  # pixels
WIDTH = 5.0  # pixels; of a spot that is 1000 counts high
SLOPE = 0.6  # pixels for each mm, far from focus
Frame = NDArray[np.uint16]


def spot_width(focus: float) -> float:
    """Standard deviation of the spot, pixels.

    :param focus: position of the focus stage, mm.
    """
    return math.hypot(NARROWEST, SLOPE * (focus - FOCUS))


def frame(brightness: float, x: float, y: float, index: int = 0, width: float = WIDTH) -> Frame:
    """One image: a round spot that follows two motors, as bright as the third.

    :param brightness: position that sets how much light there is, EGU.
    :param x: position that moves the spot sideways, EGU; one pixel for each.
    :param y: position that moves the spot up, EGU; one pixel for each.
    :param index: number of the frame in its file; the spot fades a little with each.
    :param width: standard deviation of the spot, pixels.
    :returns: counts, shape (48, 64).
    """
    rows, columns = np.indices(SHAPE)
    distance = (rows - SHAPE[0] / 2 - y) ** 2 + (columns - SHAPE[1] / 2 - x) ** 2
    # The light is the same however wide the spot: sharp is bright.
    height = (1000.0 + 100.0 * abs(brightness)) * (WIDTH / width) ** 2
    spot = height * np.exp(-distance / (2.0 * width**2)) / (1.0 + 0.01 * index)
    return _counts(100.0 + spot)


def seen(image: Frame, noise: float, random: np.random.Generator) -> Frame:
    """The image as it comes out of the camera.

    :param noise: 0 for none, 1 for that of the photons.
    """
    return _counts(image + noise * np.sqrt(image) * random.standard_normal(image.shape))


def _counts(image: NDArray[np.float64]) -> Frame:
    counts: Frame = np.clip(image, 0, 65535).astype(np.uint16)
    return counts


def file_below(root: Path, folder: str, name: str) -> Path:
    """The file `name` in a folder below `root`.

    :raises ValueError: if it would lie outside of `root`, or has no plain name.
    """
    parts = PurePosixPath(folder).parts
    if PurePosixPath(folder).is_absolute() or ".." in parts or "\0" in folder + name:
        raise ValueError(f"the folder {folder!r} is not below the camera's own")
    if not name or "/" in name or name.startswith("."):
        raise ValueError(f"{name!r} is not the name of a file")
    path = root.joinpath(*parts, name)
    if not path.parent.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"the folder {folder!r} leads out of the camera's own")
    return path


def write_frames(path: Path, frames: list[Frame]) -> None:
    """Write one file with all frames, complete or not at all.

    :raises OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with h5py.File(part, "w") as file:
        file.create_dataset(DATASET, data=np.stack(frames))
    part.replace(path)


def _text_of(length: int) -> dict[str, Any]:
    # An EPICS string ends after 39 characters; clients read an array of them as a string.
    return {
        "value": "",
        "dtype": ChannelType.CHAR,
        "max_length": length,
    }


class Camera(PVGroup):  # type: ignore[misc]
    """PVs of the camera; `Acquire` writes `NumImages` frames into the next file.

    A put to `Acquire` with completion returns when the file is there, or `ErrorMessage_RBV` says
    why it is not.

    :param positions: asked at each exposure for those of the three motors and of the focus stage,
        EGU.
    :param root: folder below which all files are.
    :param noise: of the images at the start; 0 for none, 1 for that of the photons.
    :param seed: start of that noise.
    """

    acquire = pvproperty(name="Acquire", value=0)
    num_images = pvproperty(name="NumImages", value=1)
    acquire_time = pvproperty(name="AcquireTime", value=0.01, units="s")
    file_path = pvproperty(name="FilePath", **_text_of(256))
    file_name = pvproperty(name="FileName", **{**_text_of(128), "value": "camera"})
    file_number = pvproperty(name="FileNumber", value=0)
    full_name = pvproperty(name="FullFileName_RBV", read_only=True, **_text_of(1024))
    noise = pvproperty(name="Noise", value=1.0, precision=2, doc="1: that of the photons")
    written = pvproperty(name="NumImages_RBV", value=0, read_only=True)
    message = pvproperty(name="ErrorMessage_RBV", read_only=True, **_text_of(256))

    def __init__(
        self,
        prefix: str,
        positions: Callable[[], Awaitable[Sequence[float]]],
        root: Path,
        *,
        noise: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(prefix)
        self._positions = positions
        self._root = root
        self._start_noise = noise
        self._random = np.random.default_rng(seed)
        self._busy = asyncio.Lock()
        self.acquire.putter = self._put_acquire
        self.num_images.putter = self._in_range(1, MAX_FRAMES)
        self.file_number.putter = self._in_range(0, 2**31 - 1)
        self.noise.putter = self._in_range(0.0, 100.0)

    async def start(self) -> None:
        """Number files after those that an earlier process wrote."""
        await self.noise.write(self._start_noise)
        numbers = [_number(path) for path in self._root.glob("**/*.h5")]
        await self.file_number.write(max(numbers, default=-1) + 1)

    def _in_range(self, low: float, high: float) -> Callable[[Any, float], Any]:
        async def check(channel: Any, value: float) -> float:
            if not low <= value <= high:
                raise SkipWrite  # it keeps what it had
            return value

        return check

    async def _put_acquire(self, channel: Any, value: int) -> int:
        if not value:
            return 0
        if self._busy.locked():
            raise SkipWrite  # it acquires already
        async with self._busy:
            await channel.write(1, verify_value=False)
            await self._acquire_reporting()
        return 0

    async def _acquire_reporting(self) -> None:
        try:
            await self._acquire()
        except (OSError, ValueError) as error:
            await self.message.write(str(error)[:255] or type(error).__name__)

    async def _acquire(self) -> None:
        await self.message.write("")
        number = self.file_number.value
        path = file_below(
            self._root,
            _text(self.file_path.value),
            f"{_text(self.file_name.value)}_{number:06d}.h5",
        )
        await self.written.write(0)
        frames: list[Frame] = []
        for index in range(self.num_images.value):
            await asyncio.sleep(max(0.0, float(self.acquire_time.value)))  # the exposure
            brightness, x, y, focus = await self._positions()
            image = frame(brightness, x, y, index, spot_width(focus))
            frames.append(seen(image, float(self.noise.value), self._random))
        await asyncio.to_thread(write_frames, path, frames)
        await self.full_name.write(str(path))
        await self.written.write(len(frames))
        await self.file_number.write(number + 1)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else bytes(value).rstrip(b"\0").decode()


def _number(path: Path) -> int:
    digits = path.stem.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else -1
