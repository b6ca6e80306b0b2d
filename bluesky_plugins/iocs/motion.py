"""Where a simulated motor is: pure kinematics and the calibration of dial to user."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["Calibration", "Limits", "Trajectory"]


@dataclass(frozen=True)
class Trajectory:
    """A move at constant velocity, in dial units (EGU) and seconds."""

    start: float
    target: float
    velocity: float
    began: float

    @property
    def ends(self) -> float:
        """When the target is reached, s on the clock of `began`."""
        return self.began + abs(self.target - self.start) / self.velocity

    def position(self, now: float) -> float:
        """Dial position at `now`; the target itself from `ends` on."""
        if now >= self.ends:
            return self.target
        way = max(0.0, now - self.began) * self.velocity
        return self.start + math.copysign(way, self.target - self.start)

    def retargeted(self, target: float, now: float) -> Trajectory:
        """The same motor, on its way from where it is at `now` to another target."""
        return replace(self, start=self.position(now), target=target, began=now)


@dataclass(frozen=True)
class Calibration:
    """user = direction * dial + offset (EGU); direction is 1 or -1."""

    offset: float = 0.0
    direction: int = 1

    def user(self, dial: float) -> float:
        """User position of a dial position."""
        return self.direction * dial + self.offset

    def dial(self, user: float) -> float:
        """Dial position of a user position."""
        return self.direction * (user - self.offset)

    def set_here(self, user: float, dial: float) -> Calibration:
        """The calibration under which `dial` is called `user`."""
        return replace(self, offset=user - self.direction * dial)


@dataclass(frozen=True)
class Limits:
    """Soft limits (EGU), both included; low == high == 0 means no limits, as in EPICS."""

    low: float
    high: float

    def violation(self, position: float) -> bool:
        """Whether a move to `position` must be refused; it must be for NaN and infinity."""
        if not math.isfinite(position):
            return True
        if self.low == self.high == 0:
            return False
        return not self.low <= position <= self.high

    def user(self, calibration: Calibration) -> Limits:
        """These dial limits as user limits."""
        ends = sorted((calibration.user(self.low), calibration.user(self.high)))
        return Limits(*ends)
