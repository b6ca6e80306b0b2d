"""The simulated beamline: all records in one process, on loopback only."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from caproto.asyncio.server import Context
from caproto.server import PVGroup

from bluesky_plugins.settings import Settings

from .camera import Camera
from .detectors import PointDetector
from .motor import MotorRecord
from .repeater import start_repeater

__all__ = ["PortTakenError", "Simulation", "make_simulation", "serve_iocs"]

HOST = "127.0.0.1"


class PortTakenError(OSError):
    """The Channel Access port of this stack is used by somebody else."""


@dataclass(frozen=True)
class Simulation:
    """The records of the simulated beamline."""

    motors: tuple[MotorRecord, MotorRecord, MotorRecord]
    detectors: tuple[PointDetector, ...]
    camera: Camera

    @property
    def groups(self) -> Sequence[PVGroup]:
        """All groups of records."""
        return (*self.motors, *self.detectors, self.camera)


def make_simulation(
    prefix: str, camera_dir: Path, *, velocity: float = 50.0, noise: float = 0.0, seed: int = 0
) -> Simulation:
    """The records, not yet served.

    :param prefix: prefix of every PV.
    :param camera_dir: folder below which the camera writes.
    :param velocity: of each motor at the start, mm/s.
    :param noise: standard deviation of each point detector's noise at the start.
    :param seed: start of that noise.
    """
    motor, motor1, motor2 = (
        MotorRecord(f"{prefix}{name}", velocity=velocity) for name in ("motor", "motor1", "motor2")
    )

    def detector(name: str, *motors: MotorRecord, center: float, width: float) -> PointDetector:
        return PointDetector(
            f"{prefix}{name}",
            motors,
            centers=[center] * len(motors),
            width=width,
            height=1000.0,
            noise=noise,
            seed=seed,
        )

    detectors = (
        detector("det", motor, center=12.0, width=4.0),
        detector("det1", motor1, center=0.0, width=2.0),
        detector("det2", motor1, motor2, center=1.0, width=3.0),
    )
    camera = Camera(f"{prefix}camera:", (motor, motor1, motor2), camera_dir)
    return Simulation((motor, motor1, motor2), detectors, camera)


def serve_iocs(
    settings: Settings, *, ready: Callable[[str], None], noise: float = 0.0, seed: int = 0
) -> int:
    """Serve the beamline and its Channel Access repeater until SIGTERM or SIGINT.

    :param ready: called once with a line that says where it is, when it can be used.
    :returns: the exit status 0.
    :raises PortTakenError: if the server's port is in use.
    """
    os.environ.update(settings.epics_environment)
    asyncio.run(_serve(settings, ready, noise, seed))
    return 0


async def _serve(settings: Settings, ready: Callable[[str], None], noise: float, seed: int) -> None:
    iocs = settings.iocs
    simulation = make_simulation(iocs.prefix, settings.camera_dir, noise=noise, seed=seed)
    for group in simulation.groups:
        await group.start()
    _check_free(iocs.ca_server_port)
    repeater = await _repeater_unless_there(iocs.ca_repeater_port)
    stop = _stop_signals()
    context = Context(_records(simulation), [HOST])
    started = asyncio.Event()

    async def announce(_: object) -> None:
        started.set()

    server = asyncio.create_task(context.run(startup_hook=announce), name="channel access")
    try:
        await _first(server, started)
        if context.port != iocs.ca_server_port:
            raise PortTakenError(f"Channel Access port {iocs.ca_server_port} is in use")
        ready(f"IOCs ready: {iocs.prefix}* on {HOST}:{context.port}")
        await _first(server, stop)
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)
        if repeater is not None:
            repeater.close()


def _records(simulation: Simulation) -> dict[str, object]:
    return {name: pv for group in simulation.groups for name, pv in group.pvdb.items()}


def _check_free(port: int) -> None:
    # caproto goes on at a random port, and shares a UDP port with whoever has it.
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise PortTakenError(f"Channel Access port {port} is in use: {error}") from error


async def _repeater_unless_there(port: int) -> asyncio.DatagramTransport | None:
    try:
        return await start_repeater(HOST, port)
    except OSError:
        return None  # the machine has its own repeater at this port: clients use that one


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _first(server: asyncio.Task[None], event: asyncio.Event) -> None:
    """Return when `event` is set; raise what ended the server before."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({server, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if event.is_set():
        return
    waiting.cancel()
    server.result()
    raise RuntimeError("the Channel Access server ended by itself")
