"""The positions of motors that another IOC process serves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog
from caproto import CaprotoError
from caproto.asyncio.client import PV, Context

__all__ = ["FollowedMotors"]

log = structlog.get_logger(__name__)
READ_SECONDS = 0.5


class FollowedMotors:
    """Readbacks over Channel Access; what was last seen while their IOC is away.

    Where it is looked for is in the environment, as for every client. The client reconnects by
    itself.

    :param names: PVs of the readbacks.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._context = Context()
        self._pvs: tuple[PV, ...] = ()
        self._last = [0.0 for _ in self._names]
        self._away = True

    async def start(self) -> None:
        """Begin to look for them; returns at once."""
        self._pvs = tuple(await self._context.get_pvs(*self._names))

    async def positions(self) -> list[float]:
        """Where the motors are; or where they were, if their IOC does not say."""
        seen = await asyncio.gather(*(self._read(pv) for pv in self._pvs))
        for index, position in enumerate(seen):
            if position is not None:
                self._last[index] = position
        self._tell(None in seen)
        return list(self._last)

    async def close(self) -> None:
        """End the connections."""
        await self._context.disconnect()

    async def _read(self, pv: PV) -> float | None:
        if not pv.connected:
            return None
        try:
            # A new reading: a monitor could come after the camera was told to look.
            return float((await pv.read(timeout=READ_SECONDS)).data[0])
        except (CaprotoError, TimeoutError):
            return None

    def _tell(self, away: bool) -> None:
        if away != self._away:
            log.warning("the motors are away" if away else "the motors are there", pvs=self._names)
        self._away = away
