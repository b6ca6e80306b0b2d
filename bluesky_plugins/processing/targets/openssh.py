"""Commands on another host by the system's `ssh`: its configuration, agent and known hosts."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bluesky_plugins.processing.targets.command_runner import (
    MAX_COMMANDS,
    clean_environment,
    remote_command,
    run_program,
)
from bluesky_plugins.processing.targets.ports import Completed, Fault, TransportError

__all__ = ["OpensshRunner"]

CONNECT_S = 15
CLOSE_S = 10.0
OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": str(CONNECT_S),
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "LogLevel": "ERROR",
    "RequestTTY": "no",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
}
# ssh ends with 255 for its own failures and for a command that does; so the status comes apart.
STATUS = '"$@"; printf "\\nbp-status %d\\n" "$?" >&2'
ENDED = re.compile(rb"\nbp-status ([0-9]+)\n\Z")
DESTINATION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*")
# What ssh says before it has sent the command.
BEFORE = (
    (Fault.UNKNOWN_HOST, re.compile(r"Could not resolve hostname")),
    (
        Fault.HOST_KEY,
        re.compile(r"[Hh]ost key verification failed|HOST IDENTIFICATION HAS CHANGED"),
    ),
    (
        Fault.AUTHENTICATION,
        re.compile(r"Permission denied|Too many authentication failures|UNPROTECTED PRIVATE KEY"),
    ),
    (Fault.REFUSED, re.compile(r"connect to host .*: Connection refused")),
    (Fault.UNREACHABLE, re.compile(r"connect to host |Connection timed out during banner")),
    (Fault.CUT, re.compile(r"kex_exchange_identification|banner exchange|Session open refused")),
)


class OpensshRunner:
    """Every command is an `ssh` of its own; they share a connection while it lasts.

    :param destination: a host, `user@host`, or a name of the user's `~/.ssh/config`.
    :param known_hosts: None: the user's own file.
    :param config: None: the user's own `~/.ssh/config`.
    :param multiplex: whether commands share one connection (a `ControlMaster` of our own).
    """

    def __init__(
        self,
        destination: str,
        *,
        port: int | None = None,
        keys: Sequence[Path] = (),
        known_hosts: Path | None = None,
        config: Path | None = None,
        multiplex: bool = True,
        max_commands: int = MAX_COMMANDS,
    ) -> None:
        if not DESTINATION.fullmatch(destination):
            raise ValueError(f"{destination!r} is no host and no user@host")
        self._destination = destination
        self._options = dict(OPTIONS)
        self._arguments: list[str] = [] if config is None else ["-F", str(config)]
        if port is not None:
            self._options["Port"] = str(port)
        if known_hosts is not None:
            self._options["UserKnownHostsFile"] = f'"{known_hosts}"'
        if keys:
            self._options["IdentitiesOnly"] = "yes"
            self._arguments += [word for key in keys for word in ("-i", str(key))]
        self._multiplex = multiplex
        self._sockets: tempfile.TemporaryDirectory[str] | None = None
        self._slots = asyncio.Semaphore(max_commands)

    def _ssh(self) -> list[str]:
        options = dict(self._options)
        if self._multiplex:
            if self._sockets is None:
                self._sockets = tempfile.TemporaryDirectory(prefix="bp-ssh-")
            options["ControlPath"] = f"{self._sockets.name}/%C"
        words = [word for name in options for word in ("-o", f"{name}={options[name]}")]
        return ["ssh", *self._arguments, *words]

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", within: float) -> Completed:
        """See `CommandRunner`."""
        command = remote_command(["/bin/sh", "-c", STATUS, "sh", *argv])
        shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60"]
        ssh = [*self._ssh(), *(shared if self._multiplex else [])]
        async with self._slots:
            done = await run_program(
                [*ssh, "--", self._destination, command],
                stdin=stdin,
                within=within,
                environment=clean_environment(os.environ),
            )
        ended = ENDED.search(done.stderr)
        if ended is None:
            raise self._failed(done)
        return Completed(int(ended[1]), done.stdout, done.stderr[: ended.start()])

    def _failed(self, done: Completed) -> TransportError:
        said = done.stderr.decode(errors="replace").strip()[-1000:]
        reason = f"ssh to {self._destination}: {said or 'the connection was cut'}"
        for fault, words in BEFORE:
            if words.search(said):
                return TransportError(reason, doubtful=False, fault=fault)
        return TransportError(reason, doubtful=True, fault=Fault.CUT)

    async def close(self) -> None:
        """See `CommandRunner`."""
        if self._sockets is None:
            return
        argv = [*self._ssh(), "-O", "exit", "--", self._destination]
        # Without a shared connection it says so and fails, and that is fine.
        await run_program(argv, within=CLOSE_S, environment=clean_environment(os.environ))
        self._sockets.cleanup()
        self._sockets = None
