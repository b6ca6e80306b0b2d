"""Ports for a stack: the usual one where it is free, else one that stays with the folder."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bluesky_plugins.embedded.parts import StackError

__all__ = ["PortReservations", "PortWish", "choose_ports"]

SEARCH = 400


@dataclass(frozen=True)
class PortWish:
    """A port that a part needs.

    `fixed`: a person chose it, so that no other will do. `setting`: how they named it.
    """

    name: str
    usual: int
    host: str = "127.0.0.1"
    tcp: bool = True
    udp: bool = False
    fixed: bool = False
    setting: str = ""


def choose_ports(
    wishes: Iterable[PortWish],
    remembered: Mapping[str, int],
    take: Callable[[int, PortWish], bool],
) -> dict[str, int]:
    """A port for each wish: the one of last time, else the usual one, else the next free one.

    :param remembered: name -> port, of the last time.
    :param take: whether the port can be had; what was taken is not offered again.
    :raises StackError: when a fixed port is not free, or none is.
    """
    chosen: dict[str, int] = {}
    for wish in wishes:
        chosen[wish.name] = _choose(wish, remembered.get(wish.name), set(chosen.values()), take)
    return chosen


def _choose(
    wish: PortWish,
    remembered: int | None,
    gone: set[int],
    take: Callable[[int, PortWish], bool],
) -> int:
    if wish.fixed:
        if wish.usual in gone or not take(wish.usual, wish):
            name = wish.setting or wish.name
            raise StackError(f"port {wish.usual} ({name}) is taken; free it or set another one")
        return wish.usual
    candidates = [] if remembered is None else [remembered]
    candidates += range(wish.usual, min(wish.usual + SEARCH, 65536))
    for port in candidates:
        if port not in gone and take(port, wish):
            return port
    raise StackError(f"no free port for {wish.name} from {wish.usual} to {candidates[-1]}")


class PortReservations:
    """Ports held among the stacks of one user, and against everybody's outgoing connections.

    Between choosing a port and binding it another stack could choose the same: hence a lock
    for each. And the kernel could give it to a connection, also while a part is started
    again: hence a socket that is bound and never listens, beside which a server that sets
    SO_REUSEADDR (all do) can still bind. Both are open files, so that they pass to the
    supervisor and end with it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"bluesky-plugins-{os.getuid()}"
        self._files: list[int] = []

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Open files to hand to the process that is to hold the ports."""
        return tuple(self._files)

    def take(self, port: int, wish: PortWish) -> bool:
        """Reserve the port if it is free and no other stack has reserved it."""
        self._prepare()
        descriptor = os.open(self._folder / f"port-{port}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = _hold(port, wish)
        except OSError:
            os.close(descriptor)
            return False
        self._files += [descriptor, *held]
        return True

    def close(self) -> None:
        """Let go here; who was handed the descriptors still holds them."""
        while self._files:
            os.close(self._files.pop())

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise StackError(
                f"{self._folder} belongs to somebody else; set TMPDIR to a folder of yours"
            )


def _hold(port: int, wish: PortWish) -> list[int]:
    """Open sockets that hold the port.

    :raises OSError: when somebody uses it, in a protocol that is wished.
    """
    family = socket.AF_INET6 if ":" in wish.host else socket.AF_INET
    if wish.udp:
        # Not held: a second socket would take the datagrams.
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((wish.host, port))
    if not wish.tcp:
        return []
    with socket.socket(family, socket.SOCK_STREAM) as holder:
        # Old connections in TIME_WAIT are no reason to move; a listener still is.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((wish.host, port))
        return [holder.detach()]
