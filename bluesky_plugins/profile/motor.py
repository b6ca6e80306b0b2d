"""The simulated beamline's motors as ophyd devices."""

from __future__ import annotations

import logging
from typing import Any

from ophyd import Component, EpicsMotor, EpicsSignal, EpicsSignalRO, Kind

__all__ = ["Motor"]

log = logging.getLogger(__name__)


class LimitedSetpoint(EpicsSignal):  # type: ignore[misc]
    """A setpoint whose limits are the motor's LLM and HLM as they are now.

    ophyd goes back to those of the first connection with each new value of the setpoint.
    """

    @property
    def limits(self) -> tuple[float, float]:
        """(low, high), both included."""
        motor = self.parent
        return (float(motor.low_limit_travel.get()), float(motor.high_limit_travel.get()))


class Motor(EpicsMotor):  # type: ignore[misc]
    """An `EpicsMotor` whose move fails, and does not wait for ever, when its end will not be seen.

    That is when the record refuses it, or the IOC goes away in the middle.
    """

    _moving: bool
    user_setpoint = Component(LimitedSetpoint, ".VAL", limits=True, auto_monitor=True)
    limit_violation = Component(EpicsSignalRO, ".LVIO", kind=Kind.omitted, auto_monitor=True)

    def __init__(self, prefix: str, *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.limit_violation.subscribe(self._refused, run=False)
        self.motor_done_move.subscribe(self._disconnected, event_type="meta", run=False)

    def _refused(self, *, value: Any, **_: Any) -> None:
        # The record does not start, so that no end of a move will be seen.
        if value and not self._moving:
            self._done_moving(success=False)

    def _disconnected(self, *, connected: bool, **_: Any) -> None:
        # An IOC that comes back knows nothing of the move, or stands somewhere else.
        if connected:
            return
        if self._moving:
            log.error("%s: the IOC has gone in the middle of a move", self.name)
        self._moving = False
        self._done_moving(success=False)
