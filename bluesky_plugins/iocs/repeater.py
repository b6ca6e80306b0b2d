"""The Channel Access repeater of one stack, on loopback.

Where none answers, caproto's command-line tools and other clients start one each on all
interfaces, and nobody ends it. This one lives and ends with the IOC process.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import caproto

__all__ = ["Repeater", "start_repeater"]

# A client that did not register again for this long and cannot be reached is forgotten.
MAX_CLIENTS = 1000


class Repeater(asyncio.DatagramProtocol):
    """Confirms each client's registration and passes on beacons to all of them."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._clients: dict[tuple[str, int], float] = {}

    @property
    def clients(self) -> tuple[tuple[str, int], ...]:
        """Addresses of the registered clients."""
        return tuple(self._clients)

    def connection_made(self, transport: Any) -> None:
        """Remember where to send."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Register a client, or pass on what a server says."""
        if not data:
            self._register(addr)
            return
        try:
            commands = caproto.Broadcaster(our_role=caproto.SERVER).recv(data, addr)
        except (caproto.CaprotoError, ValueError, KeyError, IndexError, UnicodeDecodeError):
            return  # anybody may send anything to a UDP port
        for command in commands:
            if isinstance(command, caproto.RepeaterRegisterRequest):
                self._register(addr)
            elif isinstance(command, caproto.Beacon):
                self._pass_on(_with_address(command, addr[0]), addr)

    def error_received(self, exc: Exception) -> None:
        """A client has gone; it is forgotten when its place is needed."""

    def _register(self, addr: tuple[str, int]) -> None:
        self._clients.pop(addr, None)
        self._clients[addr] = time.monotonic()
        while len(self._clients) > MAX_CLIENTS:
            del self._clients[next(iter(self._clients))]
        self._send(bytes(caproto.RepeaterConfirmResponse(addr[0])), addr)

    def _pass_on(self, data: bytes, sender: tuple[str, int]) -> None:
        for client in self._clients:
            if client != sender:
                self._send(data, client)

    def _send(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None:
            self._transport.sendto(data, addr)


def _with_address(beacon: Any, host: str) -> bytes:
    # A server may leave its own address open; only here it is known where it came from.
    if beacon.header.parameter2 == 0:
        beacon.header.parameter2 = caproto.ipv4_to_int32(host)
    return bytes(beacon)


async def start_repeater(host: str, port: int) -> asyncio.DatagramTransport:
    """Bind the repeater; it works until its transport is closed.

    :raises OSError: if the port is taken.
    """
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Repeater, local_addr=(host, port))
    return transport
