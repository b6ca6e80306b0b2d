"""The simulated beamline in one process, or in two: on loopback only."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from caproto.asyncio.server import Context

from bluesky_plugins.settings import Settings

from .camera import FOCUS, Camera
from .detectors import Constant, PointDetector
from .following import FollowedMotors
from .motor import MotorRecord
from .repeater import start_repeater

__all__ = ["Beam", "Part", "PortTakenError", "make_beam", "serve_iocs"]

HOST = "127.0.0.1"
MOTORS = ("motor", "motor1", "motor2", "focus")
FOCUS_RANGE = (-10.0, 10.0)  # mm


Served = MotorRecord | PointDetector | Constant | Camera


class PortTakenError(OSError):
    """The Channel Access port of this stack is used by somebody else."""


class Part(StrEnum):
    """What a process serves when it does not serve all."""

    BEAM = "beam"
    CAMERA = "camera"


@dataclass(frozen=True)
class Beam:
    """Motors, the detectors that see where they are, and what only a simulation can know."""

    motors: tuple[MotorRecord, ...]
    detectors: tuple[PointDetector, ...]
    truths: tuple[Constant, ...]

    async def positions(self) -> list[float]:
        """Where the motors are, EGU."""
        return [motor.position for motor in self.motors]


def make_beam(prefix: str, *, velocity: float = 50.0, noise: float = 0.0, seed: int = 0) -> Beam:
    """The records of the motors and the point detectors, not yet served.

    :param prefix: prefix of every PV.
    :param velocity: of each motor at the start, mm/s.
    :param noise: standard deviation of each point detector's noise at the start.
    :param seed: start of that noise.
    """
    motor, motor1, motor2 = (MotorRecord(f"{prefix}{m}", velocity=velocity) for m in MOTORS[:3])
    low, high = FOCUS_RANGE
    focus = MotorRecord(
        f"{prefix}focus", velocity=velocity, limits=FOCUS_RANGE, travel=(low - 1.0, high + 1.0)
    )
    true = Constant(f"{prefix}focus:true", FOCUS, units="mm", doc="where the spot is narrowest")

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
    return Beam((motor, motor1, motor2, focus), detectors, (true,))


def serve_iocs(
    settings: Settings,
    *,
    ready: Callable[[str], None],
    only: str | None = None,
    port: int | None = None,
    noise: float = 0.0,
    camera_noise: float = 1.0,
    seed: int = 0,
) -> int:
    """Serve the beamline and its Channel Access repeater until SIGTERM or SIGINT.

    :param ready: called once with a line that says where it is, when it can be used.
    :param only: serve this part of it, `beam` or `camera`; the camera then follows the motors
        that it finds in `iocs.address_list`.
    :param port: Channel Access port of this process; by default `iocs.ca_server_port`.
    :param noise: standard deviation of the point detectors' noise at the start.
    :param camera_noise: of the images at the start; 1 for that of the photons.
    :param seed: start of the noise.
    :returns: the exit status 0.
    :raises PortTakenError: if the server's port is in use.
    """
    port = port or settings.iocs.ca_server_port
    # caproto's server takes the port of the clients for its own.
    own = {name: str(port) for name in ("EPICS_CA_SERVER_PORT", "EPICS_CAS_SERVER_PORT")}
    os.environ.update({**settings.epics_environment, **own})
    part = Part(only) if only else None
    noises = {Part.BEAM: noise, Part.CAMERA: camera_noise}
    asyncio.run(_serve_parts(settings, part, port, ready, noises, seed))
    return 0


async def _serve_parts(
    settings: Settings,
    only: Part | None,
    port: int,
    ready: Callable[[str], None],
    noises: Mapping[Part, float],
    seed: int,
) -> None:
    prefix = settings.iocs.prefix

    def make_camera(positions: Callable[[], Awaitable[Sequence[float]]]) -> Camera:
        folder, noise = settings.camera_dir, noises[Part.CAMERA]
        return Camera(f"{prefix}camera:", positions, folder, noise=noise, seed=seed)

    if only is Part.CAMERA:
        motors = FollowedMotors([f"{prefix}{name}.RBV" for name in MOTORS])
        await motors.start()
        try:
            await _serve(settings, [make_camera(motors.positions)], port, ready)
        finally:
            await motors.close()
        return
    beam = make_beam(prefix, noise=noises[Part.BEAM], seed=seed)
    groups: list[Served] = [*beam.motors, *beam.detectors, *beam.truths]
    if only is None:
        groups.append(make_camera(beam.positions))
    await _serve(settings, groups, port, ready)


async def _serve(
    settings: Settings,
    groups: Sequence[Served],
    port: int,
    ready: Callable[[str], None],
) -> None:
    for group in groups:
        await group.start()
    _check_free(port)
    repeater = await _repeater_unless_there(settings.iocs.ca_repeater_port)
    stop = _stop_signals()
    context = Context({name: pv for group in groups for name, pv in group.pvdb.items()}, [HOST])
    started = asyncio.Event()

    async def announce(_: object) -> None:
        started.set()

    server = asyncio.create_task(context.run(startup_hook=announce), name="channel access")
    try:
        await _first(server, started)
        if context.port != port:
            raise PortTakenError(f"Channel Access port {port} is in use")
        ready(f"IOCs ready: {settings.iocs.prefix}* on {HOST}:{context.port}")
        await _first(server, stop)
    finally:
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)
        if repeater is not None:
            repeater.close()


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
