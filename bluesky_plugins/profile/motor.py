"""The simulated beamline's motors as ophyd devices."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from ophyd import Component, EpicsMotor, EpicsSignal, EpicsSignalRO, Kind
from ophyd.utils import DisconnectedError

__all__ = ["Motor"]

log = logging.getLogger(__name__)

# How long a move waits, after its IOC has come back, until the IOC tells where the motor is, s.
TOLD_AGAIN_SECONDS = 10.0
JUDGED_SECONDS = 2.0


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
        self._telling = threading.Lock()
        super().__init__(prefix, name=name, **kwargs)
        # What a move's end is judged by, each: has it been told since the IOC was connected?
        signals = (self.motor_done_move, self.user_readback, self.limit_violation)
        self._told = {signal: threading.Event() for signal in signals}
        self._judged_at: float | None = None
        for signal in signals:
            signal.subscribe(self._forget, event_type="meta", run=False)
        for signal in (self.motor_done_move, self.user_readback):
            signal.subscribe(self._hear, run=False)
        self.limit_violation.subscribe(self._refused, run=False)
        self.motor_done_move.subscribe(self._disconnected, event_type="meta", run=False)

    def move(self, position: float, wait: bool = True, **kwargs: Any) -> Any:
        """Move as ophyd does; right after its IOC came back, only once that has told its state.

        Before, the end of the move would not be seen, or be judged by an alarm of the time before.

        :param position: where to, EGU.
        :raises DisconnectedError: if the IOC has not told all of it within 10 s.
        """
        deadline = time.monotonic() + TOLD_AGAIN_SECONDS
        for signal, told in self._told.items():
            if not told.wait(max(0.0, deadline - time.monotonic())):
                raise DisconnectedError(f"{signal.name} tells nothing since its IOC was connected")
        self._judged_at = self._last_judged()
        return super().move(position, wait=wait, **kwargs)

    def _last_judged(self) -> float:
        """When the record last judged a setpoint, by its clock: news of it may still be on its way.

        :raises DisconnectedError: if the IOC does not say.
        """
        record = self.limit_violation._read_pv  # noqa: SLF001 - ophyd's `get` drops the time
        said = record.get_with_metadata(form="time", use_monitor=False, timeout=JUDGED_SECONDS)
        if said is None:
            raise DisconnectedError(f"{self.limit_violation.name} does not answer")
        return float(said["timestamp"])

    def _done_moving(
        self, success: bool = True, timestamp: float | None = None, value: Any = None, **_: Any
    ) -> None:
        """Tell the move that is under way its end, once.

        ophyd tells it first and forgets it then; a move that begins in between, because the one
        before it has ended, would be forgotten too and wait for ever.
        """
        if success:
            self._run_subs(sub_type=self.SUB_DONE, timestamp=timestamp, value=value)
        with self._telling:
            waiting = list(self._callbacks[self._SUB_REQ_DONE].values())
            self._reset_sub(self._SUB_REQ_DONE)
        for tell in waiting:
            tell(sub_type=self._SUB_REQ_DONE, obj=self, success=success, timestamp=timestamp)

    def _hear(self, *, obj: Any, **_: Any) -> None:
        self._told[obj].set()

    def _forget(self, *, connected: bool, obj: Any, **_: Any) -> None:
        if not connected:
            self._told[obj].clear()

    def _refused(self, *, value: Any, timestamp: float, obj: Any, **_: Any) -> None:
        # What is told first after a connection, or late, is about a move of the time before.
        before = self._judged_at
        news = self._told[obj].is_set() and (before is None or timestamp > before)
        self._judged_at = timestamp
        self._told[obj].set()
        # The record does not start, so that no end of a move will be seen.
        if value and news and not self._moving:
            self._done_moving(success=False)

    def _disconnected(self, *, connected: bool, **_: Any) -> None:
        # An IOC that comes back knows nothing of the move, or stands somewhere else.
        if connected:
            return
        if self._moving:
            log.error("%s: the IOC has gone in the middle of a move", self.name)
        self._moving = False
        self._done_moving(success=False)
