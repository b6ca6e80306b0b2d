"""What the gate needs to know from devices: names, limits, their own word on a value."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import bluesky.plan_stubs as bps

from bluesky_plugins.plans.gate import Range, Refusal, checked_point, usable_limits
from bluesky_plugins.plans.waiting import Plan

__all__ = ["Motors"]

CHECK_SECONDS = 10.0  # for a device's own check of a value


class Motors:
    """The devices that a batch moves.

    :param devices: each with a `name`, which is its data key, and `set`.
    :raises TypeError: for something that is no device, such as a name.
    :raises ValueError: if there are none, or two of one name.
    """

    def __init__(self, devices: Sequence[Any]) -> None:
        for device in devices:
            if not hasattr(device, "set") or not isinstance(getattr(device, "name", None), str):
                raise TypeError(f"first_point: {device!r} is no motor, but {_kind(device)}")
        if not devices:
            raise ValueError("first_point is empty: it has no motor to move")
        self.devices = list(devices)
        self.names = [device.name for device in devices]
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"first_point: two motors of one name in {self.names}")

    def limits(self) -> dict[str, Range]:
        """Limits as the devices have them now, in their units; only of those that have some."""
        found = {
            device.name: usable_limits(getattr(device, "limits", None)) for device in self.devices
        }
        return {name: pair for name, pair in found.items() if pair is not None}

    def gate(self, point: Any, bounds: Mapping[str, Range]) -> Plan[dict[str, float]]:
        """Plan stub: the point as it may be moved to.

        :param point: whatever came; name -> position.
        :param bounds: the batch's own.
        :raises Refusal: with the reason; no motor has moved.
        """
        ranges = (("bounds of the batch", bounds), ("limits of the motor", self.limits()))
        numbers = checked_point(point, self.names, ranges)
        for device in self.devices:
            value = numbers[device.name]
            error = yield from _objection(device, value)
            if error is not None:
                why = str(error) or type(error).__name__
                raise Refusal(f"{device.name}={value:g} is refused by the motor: {why}")
        return numbers

    def move(self, point: Mapping[str, float]) -> Plan[None]:
        """Plan stub: all motors to the point at once."""
        pairs = ((device, point[device.name]) for device in self.devices)
        yield from bps.mov(*(part for pair in pairs for part in pair))


def _kind(thing: Any) -> str:
    return "a name" if isinstance(thing, str) else f"a {type(thing).__name__}"


def _objection(device: Any, value: float) -> Plan[Exception | None]:
    """What the device's `check_value` has against the value."""
    check = getattr(device, "check_value", None)
    if check is None:
        return None
    if inspect.iscoroutinefunction(check):
        return (yield from _awaited_objection(check, value))
    try:
        check(value)
    except Exception as error:  # noqa: BLE001 - devices raise anything; all of it means no
        return error
    return None


def _awaited_objection(check: Any, value: float) -> Plan[Exception | None]:
    verdicts: list[Exception | None] = []

    async def ask() -> None:
        try:
            await asyncio.wait_for(check(value), CHECK_SECONDS)
        except Exception as error:  # noqa: BLE001 - as above
            verdicts.append(error)
        else:
            verdicts.append(None)

    while not verdicts:  # a pause can swallow the first
        yield from bps.wait_for([ask])
    return verdicts[-1]
