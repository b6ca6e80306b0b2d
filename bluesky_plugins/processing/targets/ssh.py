"""Commands on another host over SSH, by the asyncssh library (extra `ssh`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncssh

from bluesky_plugins.processing.targets.command_runner import MAX_COMMANDS, remote_command
from bluesky_plugins.processing.targets.ports import Completed, Fault, TransportError

__all__ = ["AsyncsshRunner"]

# At its own level it tells of every command, which is several lines for each poll of a target.
logging.getLogger("asyncssh").setLevel(logging.WARNING)

CONNECT_S = 15.0
KEEPALIVE_S = 5.0


class AsyncsshRunner:
    """One connection to one host, made when it is needed and again when it was lost.

    The user's `~/.ssh/config` and agent count. The host's key must be known; there is no way to
    go on without.

    :param username: None: what the configuration says, else the user's own name.
    :param keys: files of private keys; none: those of the agent and the configuration.
    :param known_hosts: None: the user's own file.
    """

    def __init__(
        self,
        host: str,
        *,
        port: int | None = None,
        username: str | None = None,
        keys: Sequence[Path] = (),
        known_hosts: Path | None = None,
        config: Sequence[Path] | None = None,
        max_commands: int = MAX_COMMANDS,
    ) -> None:
        self._host = host
        options: dict[str, Any] = {"port": port, "username": username}
        options["client_keys"] = [str(key) for key in keys] or None
        options["known_hosts"] = None if known_hosts is None else str(known_hosts)
        options["config"] = None if config is None else [str(path) for path in config]
        # None would mean "do not check" to asyncssh; what is not given is left to its defaults.
        self._options = {name: value for name, value in options.items() if value is not None}
        self._slots = asyncio.Semaphore(max_commands)
        self._connecting = asyncio.Lock()
        self._connection: asyncssh.SSHClientConnection | None = None

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", within: float) -> Completed:
        """See `CommandRunner`."""
        command = remote_command(argv)
        async with self._slots:
            connection = await self._connected()
            try:
                async with asyncio.timeout(within):
                    return await self._carry_out(connection, command, stdin)
            except TimeoutError:
                reason = f"{argv[0]} on {self._host} was not done after {within:g} s"
                raise TransportError(reason, doubtful=True, fault=Fault.TIMED_OUT) from None

    async def _connected(self) -> asyncssh.SSHClientConnection:
        async with self._connecting:
            if self._connection is None or self._connection.is_closed():
                try:
                    async with asyncio.timeout(CONNECT_S):
                        self._connection = await asyncssh.connect(
                            self._host,
                            keepalive_interval=KEEPALIVE_S,
                            **self._options,
                        )
                except (OSError, asyncssh.Error, ValueError) as error:
                    raise _not_connected(self._host, error) from None
            return self._connection

    async def _carry_out(
        self, connection: asyncssh.SSHClientConnection, command: str, stdin: bytes
    ) -> Completed:
        try:
            process = await connection.create_process(command, encoding=None)
        except asyncssh.ChannelOpenError as error:
            # The session was refused, or the connection was gone before it was asked for.
            raise self._cut(str(error), doubtful=False) from None
        except (asyncssh.Error, OSError) as error:
            raise self._cut(str(error), doubtful=True) from None
        try:
            out, err = await process.communicate(stdin)
        except (asyncssh.Error, OSError) as error:
            raise self._cut(str(error), doubtful=True) from None
        finally:
            process.close()
        if process.returncode is None:
            raise self._cut("no exit status came", doubtful=True)
        return Completed(process.returncode, bytes(out or b""), bytes(err or b""))

    def _cut(self, why: str, *, doubtful: bool) -> TransportError:
        reason = f"the connection to {self._host} was cut: {why}"
        return TransportError(reason, doubtful=doubtful, fault=Fault.CUT)

    async def close(self) -> None:
        """See `CommandRunner`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_S):
                    await connection.wait_closed()


def _not_connected(host: str, error: Exception) -> TransportError:
    match error:
        case asyncssh.HostKeyNotVerifiable():
            fault, what = Fault.HOST_KEY, f"{host} does not show the host key that is known of it"
        case asyncssh.PermissionDenied():
            fault, what = Fault.AUTHENTICATION, f"{host} does not take this account or its key"
        case socket.gaierror():
            fault, what = Fault.UNKNOWN_HOST, f"{host} has no address"
        case ConnectionRefusedError():
            fault, what = Fault.REFUSED, f"{host} refuses the connection"
        case OSError():  # what runs out of time among them
            fault, what = Fault.UNREACHABLE, f"{host} is not reached"
        case asyncssh.Error():
            fault, what = Fault.CUT, f"{host} ended the connection before a command was sent"
        case _:  # a key, a configuration or a file of known hosts that cannot be read
            fault, what = Fault.AUTHENTICATION, f"{host} cannot be logged in to"
    said = str(error)
    return TransportError(f"{what}: {said}" if said else what, doubtful=False, fault=fault)
