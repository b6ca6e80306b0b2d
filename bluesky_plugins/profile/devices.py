"""The devices of the simulated beamline."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from bluesky_plugins.profile.epics import use_epics
from bluesky_plugins.settings import Settings

__all__ = ["connect", "make_devices"]

CONNECT_SECONDS = 10.0


def make_devices(settings: Settings) -> dict[str, Any]:
    """`motor, motor1, motor2, focus, det, det1, det2, camera` over EPICS; not yet connected."""
    use_epics(settings)
    from ophyd import EpicsSignalRO

    from bluesky_plugins.profile.camera import Camera
    from bluesky_plugins.profile.motor import Motor

    prefix = settings.iocs.prefix
    devices: dict[str, Any] = {
        name: Motor(f"{prefix}{name}", name=name, labels={"motors"})
        for name in ("motor", "motor1", "motor2", "focus")
    }
    for name in ("det", "det1", "det2"):
        devices[name] = EpicsSignalRO(
            f"{prefix}{name}", name=name, kind="hinted", labels={"detectors"}
        )
    devices["camera"] = Camera(
        f"{prefix}camera:", name="camera", root=settings.camera_dir, labels={"detectors"}
    )
    return devices


def connect(devices: Iterable[Any], timeout: float = CONNECT_SECONDS) -> list[str]:
    """Wait until all devices are connected.

    :param timeout: for all together, s.
    :returns: names of those that are not; empty when all are.
    """
    deadline = time.monotonic() + timeout
    missing = []
    for device in devices:
        left = max(0.05, deadline - time.monotonic())
        try:
            device.wait_for_connection(timeout=left)
        except TimeoutError:
            missing.append(device.name)
    return missing
