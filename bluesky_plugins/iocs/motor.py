"""A simulated EPICS motor record, served by caproto.

It has what `ophyd.EpicsMotor` and people at a terminal use: soft limits (LVIO), limit
switches at the ends of its travel, moves that take time (VELO), stop on the way, dial, user
and offset, SET mode, homing and tweaking. A put with completion (`put(wait=True)`) returns at the
end of the move.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from caproto import SkipWrite
from caproto.server import PVGroup, pvproperty

from .motion import Calibration, Limits, Trajectory

__all__ = ["MotorRecord"]

FROZEN = ("Stop", "Pause")  # SPMG
TICK = 0.01  # s between two readbacks on the way
# Bits of MSTA
DIRECTION, DONE, PLUS_SWITCH, MOVING, MINUS_SWITCH, HOMED = 0x1, 0x2, 0x4, 0x400, 0x2000, 0x4000

Listener = Callable[[], Awaitable[None]]


class MotorRecord(PVGroup):  # type: ignore[misc]
    """One motor.

    :param prefix: the record's name.
    :param velocity: EGU/s.
    :param limits: soft limits at the start, dial = user, EGU.
    :param travel: where the limit switches are, dial, EGU.
    """

    val = pvproperty(name="", value=0.0, record="motor", precision=4, units="mm")

    def __init__(
        self,
        prefix: str,
        *,
        velocity: float = 50.0,
        limits: tuple[float, float] = (-100.0, 100.0),
        travel: tuple[float, float] = (-110.0, 110.0),
    ) -> None:
        super().__init__(prefix)
        self._calibration = Calibration()
        self._limits = Limits(*limits)
        self._travel = Limits(*travel)
        self._trajectory = Trajectory(0.0, 0.0, velocity, 0.0)
        self._velocity = velocity
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._listeners: list[Listener] = []
        self._homed = False
        self._take_puts()

    @property
    def position(self) -> float:
        """User position as last read back (RBV), EGU."""
        return float(self._fields.user_readback_value.value)

    def subscribe(self, listener: Listener) -> None:
        """Have `listener` awaited after each new readback, before DMOV says done."""
        self._listeners.append(listener)

    @property
    def _fields(self) -> Any:
        return self.val.field_inst

    @property
    def _moving(self) -> bool:
        return self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Fill the fields that do not start at 0, before the record is served."""
        fields = self._fields
        await fields.velocity.write(self._velocity, verify_value=False)
        await fields.max_velocity.write(10 * self._velocity)
        await fields.engineering_units.write("mm")
        await fields.display_precision.write(4)
        for readback in (fields.user_readback_value, fields.dial_readback_value):
            await readback.write_metadata(precision=4, units="mm")
        await fields.limit_violation.write(0)
        await fields.motor_step_size.write(1e-4)
        await fields.tweak_step_size.write(1.0)
        await fields.done_moving_to_value.write(1)
        await fields.stop_pause_move_go.write("Go", verify_value=False)
        await self._publish_limits()
        await self._publish_position()
        await self._publish_status()

    def _take_puts(self) -> None:
        """Say what a put does, field by field; caproto calls `putter(channel, value)`."""
        fields = self._fields
        # In place of caproto's own check: an exception would leave an alarm that stays.
        self.val.verify_value = self._put_user
        fields.dial_desired_value.putter = self._put_dial
        fields.relative_value.putter = self._put_relative
        fields.tweak_motor_forward.putter = self._button(lambda: self._tweak(1))
        fields.tweak_motor_reverse.putter = self._button(lambda: self._tweak(-1))
        fields.home_forward.putter = self._button(self._home)
        fields.home_reverse.putter = self._button(self._home)
        fields.stop.putter = self._button(self._stop)
        fields.stop_pause_move_go.putter = self._put_spmg
        fields.velocity.putter = self._put_velocity
        fields.user_offset.putter = self._put_offset
        fields.user_direction.putter = self._put_direction
        fields.user_high_limit.putter = self._put_high_limit
        fields.user_low_limit.putter = self._put_low_limit
        fields.dial_high_limit.putter = self._put_dial_high_limit
        fields.dial_low_limit.putter = self._put_dial_low_limit

    def _button(self, action: Callable[[], Awaitable[None]]) -> Callable[[Any, int], Any]:
        async def press(channel: Any, value: int) -> int:
            if value:
                await action()
            return 0

        return press

    # A putter that raises SkipWrite has written what was to be written (it may have changed
    # again since), or refuses the value: as in EPICS the field then keeps the old one.

    async def _put_user(self, value: float) -> None:
        if self._fields.set_use_switch.value == "Set":
            await self._calibrate(self._calibration.set_here(float(value), self._dial()))
        else:
            await self._move(self._calibration.dial(float(value)))
        raise SkipWrite

    async def _put_dial(self, channel: Any, value: float) -> None:
        await self._move(float(value))
        raise SkipWrite

    async def _put_relative(self, channel: Any, value: float) -> float:
        await self._move(self._calibration.dial(self.val.value + float(value)))
        return 0.0

    async def _tweak(self, direction: int) -> None:
        step = direction * self._fields.tweak_step_size.value
        await self._move(self._calibration.dial(self.val.value + step))

    async def _home(self) -> None:
        self._homed = True
        await self._move(0.0)

    async def _put_spmg(self, channel: Any, value: Any) -> None:
        if value in FROZEN:
            await self._stop()

    async def _put_velocity(self, channel: Any, value: float) -> float:
        if not (math.isfinite(value) and value > 0):
            raise SkipWrite
        self._velocity = float(value)
        return value

    async def _put_offset(self, channel: Any, value: float) -> None:
        await self._calibrate(replace(self._calibration, offset=float(value)))
        raise SkipWrite

    async def _put_direction(self, channel: Any, value: str) -> str:
        await self._calibrate(replace(self._calibration, direction=-1 if value == "Neg" else 1))
        return value

    async def _put_high_limit(self, channel: Any, value: float) -> None:
        await self._set_user_limits(high=value)
        raise SkipWrite

    async def _put_low_limit(self, channel: Any, value: float) -> None:
        await self._set_user_limits(low=value)
        raise SkipWrite

    async def _put_dial_high_limit(self, channel: Any, value: float) -> None:
        await self._set_limits(replace(self._limits, high=float(value)))
        raise SkipWrite

    async def _put_dial_low_limit(self, channel: Any, value: float) -> None:
        await self._set_limits(replace(self._limits, low=float(value)))
        raise SkipWrite

    def _dial(self) -> float:
        return self._trajectory.position(time.monotonic())

    async def _move(self, dial: float) -> None:
        """Go to a dial position and return when there, stopped, or refused."""
        frozen = self._fields.stop_pause_move_go.value in FROZEN
        refused = self._limits.violation(dial)
        await self._fields.limit_violation.write(int(refused))
        if refused or frozen:
            return
        await self._write_setpoint(dial)
        self._begin(dial)
        if self._task is not None:
            # Who asked may go away; the motor still moves.
            await asyncio.shield(self._task)

    def _begin(self, dial: float) -> None:
        now = time.monotonic()
        inside = min(max(dial, self._travel.low), self._travel.high)
        self._trajectory = Trajectory(self._dial(), inside, self._velocity, now)
        self._changed.set()
        if not self._moving:
            self._task = asyncio.create_task(self._run(), name=f"move {self.prefix}")

    async def _stop(self) -> None:
        if self._moving:
            self._trajectory = self._trajectory.retargeted(self._dial(), time.monotonic())
            self._changed.set()

    async def _run(self) -> None:
        while await self._travel_once() is not self._trajectory:
            pass  # it was sent elsewhere while it arrived

    async def _travel_once(self) -> Trajectory:
        await self._publish_direction()
        await self._fields.done_moving_to_value.write(0)
        await self._fields.motor_is_moving.write(1)
        await self._publish_status()
        while (left := self._trajectory.ends - time.monotonic()) > 0:
            await self._publish_position()
            self._changed.clear()
            if await _is_set_within(self._changed, min(left, TICK)):
                await self._publish_direction()
        reached = self._trajectory
        await self._arrive()
        return reached

    async def _publish_direction(self) -> None:
        ahead = self._trajectory.target >= self._trajectory.start
        forward = ahead == (self._calibration.direction > 0)
        await self._fields.direction_of_travel.write(int(forward))

    async def _arrive(self) -> None:
        await self._publish_position()
        if not math.isclose(self.val.value, self.position, abs_tol=1e-12):
            # Stopped on the way: the setpoint is where it stands.
            await self._write_setpoint(self._dial())
        await self._fields.motor_is_moving.write(0)
        await self._publish_status(done=True)
        await self._fields.done_moving_to_value.write(1)

    async def _write_setpoint(self, dial: float) -> None:
        user = self._calibration.user(dial)
        await self.val.write(user, verify_value=False, update_fields=False)
        await self._fields.dial_desired_value.write(dial, verify_value=False)

    async def _publish_position(self) -> None:
        fields, dial = self._fields, self._dial()
        user = self._calibration.user(dial)
        await fields.dial_readback_value.write(dial)
        await fields.raw_readback_value.write(round(dial / fields.motor_step_size.value))
        await fields.user_readback_value.write(user)
        plus, minus = dial >= self._travel.high, dial <= self._travel.low
        if self._calibration.direction < 0:
            plus, minus = minus, plus
        await fields.user_high_limit_switch.write(int(plus))
        await fields.user_low_limit_switch.write(int(minus))
        for listener in self._listeners:
            await listener()

    async def _publish_status(self, *, done: bool | None = None) -> None:
        fields = self._fields
        done = not self._moving if done is None else done
        bits = DIRECTION * bool(fields.direction_of_travel.value) | (DONE if done else MOVING)
        bits |= PLUS_SWITCH * bool(fields.user_high_limit_switch.value)
        bits |= MINUS_SWITCH * bool(fields.user_low_limit_switch.value)
        bits |= HOMED * self._homed
        await fields.motor_status.write(bits)
        await fields.at_home.write(int(self._homed and self._dial() == 0.0))

    async def _calibrate(self, calibration: Calibration) -> None:
        if self._moving or not math.isfinite(calibration.offset):
            raise SkipWrite
        self._calibration = calibration
        await self._fields.user_offset.write(calibration.offset, verify_value=False)
        await self._publish_limits()
        await self._write_setpoint(self._dial())
        await self._publish_position()

    async def _set_user_limits(self, low: float | None = None, high: float | None = None) -> None:
        user = self._limits.user(self._calibration)
        ends = (user.low if low is None else low, user.high if high is None else high)
        dial = sorted(self._calibration.dial(float(end)) for end in ends)
        if ends[0] > ends[1]:
            raise SkipWrite
        await self._set_limits(Limits(*dial))

    async def _set_limits(self, limits: Limits) -> None:
        if not (math.isfinite(limits.low) and math.isfinite(limits.high)):
            raise SkipWrite
        if limits.low > limits.high:
            raise SkipWrite
        self._limits = limits
        await self._publish_limits()

    async def _publish_limits(self) -> None:
        fields, user = self._fields, self._limits.user(self._calibration)
        await fields.dial_low_limit.write(self._limits.low, verify_value=False)
        await fields.dial_high_limit.write(self._limits.high, verify_value=False)
        # Clients check against these, and read them again when HLM or LLM changes.
        await self.val.write_metadata(
            lower_ctrl_limit=user.low,
            upper_ctrl_limit=user.high,
            lower_disp_limit=user.low,
            upper_disp_limit=user.high,
        )
        await fields.user_low_limit.write(user.low, verify_value=False)
        await fields.user_high_limit.write(user.high, verify_value=False)


async def _is_set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
