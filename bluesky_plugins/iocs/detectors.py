"""Simulated point detectors: a peak seen at the position of some motors."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from caproto import SkipWrite
from caproto.server import PVGroup, pvproperty

from .motor import MotorRecord

__all__ = ["Constant", "PointDetector", "peak"]


def peak(
    positions: Sequence[float], centers: Sequence[float], width: float, height: float
) -> float:
    """A Gaussian of as many dimensions as there are positions.

    :param positions: where the motors are, EGU.
    :param centers: where the peak is, EGU.
    :param width: its standard deviation, EGU.
    """
    distance = sum((x - c) ** 2 for x, c in zip(positions, centers, strict=True))
    return height * math.exp(-distance / (2 * width**2))


class Constant(PVGroup):  # type: ignore[misc]
    """A value that never changes.

    :param units: of the value.
    """

    value = pvproperty(name="", value=0.0, read_only=True, record="ai", precision=4)

    def __init__(self, prefix: str, value: float, *, units: str, doc: str) -> None:
        super().__init__(prefix)
        self._value, self._units, self._doc = value, units, doc

    async def start(self) -> None:
        """Fill the value, before it is served."""
        fields = self.value.field_inst
        await fields.description.write(self._doc)
        await self.value.write_metadata(units=self._units)
        await self.value.write(self._value)


class PointDetector(PVGroup):  # type: ignore[misc]
    """A detector whose value follows the readbacks of `motors`.

    :param noise: standard deviation of what is added at each reading; 0 makes every
        reading a function of the positions alone.
    :param seed: start of the noise, so that two runs of the same IOC read the same.
    """

    value = pvproperty(name="", value=0.0, read_only=True, record="ai", precision=6)
    noise = pvproperty(name="_noise", value=0.0, doc="standard deviation of the noise")

    def __init__(
        self,
        prefix: str,
        motors: Sequence[MotorRecord],
        *,
        centers: Sequence[float],
        width: float,
        height: float,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(prefix)
        self._motors = tuple(motors)
        self._centers, self._width, self._height = tuple(centers), width, height
        self._start_noise = noise
        self._random = random.Random(seed)
        self.value.getter = self._read
        self.noise.putter = self._put_noise
        for motor in self._motors:
            motor.subscribe(self._update)

    async def start(self) -> None:
        """Fill the values, before they are served."""
        await self.noise.write(self._start_noise)
        await self._update()

    async def _read(self, channel: Any) -> float:
        return self._measure()  # each reading is a new measurement

    async def _put_noise(self, channel: Any, value: float) -> float:
        if not (math.isfinite(value) and value >= 0):
            raise SkipWrite
        return value

    def _measure(self) -> float:
        positions = [motor.position for motor in self._motors]
        seen = peak(positions, self._centers, self._width, self._height)
        return seen + (self._random.gauss(0.0, self.noise.value) if self.noise.value else 0.0)

    async def _update(self) -> None:
        await self.value.write(self._measure(), verify_value=False)
