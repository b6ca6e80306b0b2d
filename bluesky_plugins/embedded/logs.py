"""The log of a part: what its processes print, cut by size."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

__all__ = ["PartLog", "tail"]

# Enough for any sane line; a line that never ends must not fill the memory.
MAX_LINE = 4096


class PartLog:
    """A stream as circus wants it: called with what one process has printed.

    :param path: its file; the one before it is `path` + ".1".
    :param max_bytes: size at which a new file is begun.
    :param on_line: called with (pid, line) for each whole line of stdout.
    """

    def __init__(self, path: Path, max_bytes: int, on_line: Callable[[int, str], None]) -> None:
        self._path = path
        self._max = max_bytes
        self._on_line = on_line
        self._file: TextIO | None = None
        self._pending: tuple[int, bytes] = (0, b"")

    def __call__(self, data: dict[str, Any]) -> None:
        """Write `data["data"]` (bytes), and tell of the whole lines in it."""
        self.write(data["data"])
        if data["name"] == "stdout":
            self._lines(int(data["pid"]), data["data"])

    def open(self) -> None:
        """Open at the first write; circus calls this at every start."""

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, data: bytes) -> None:
        """Append. What does not fit on the disk is lost: a part must not stop for its log."""
        try:
            out = self._opened(len(data))
            out.write(data.decode(errors="replace"))
            out.flush()
        except OSError:
            self._file = None

    def _opened(self, more: int) -> TextIO:
        if self._file is not None and self._file.tell() + more > self._max:
            self.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        if self._file is None:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._file = os.fdopen(descriptor, "a", encoding="utf-8")
            self._file.seek(0, os.SEEK_END)
        return self._file

    def _lines(self, pid: int, data: bytes) -> None:
        before = self._pending[1] if self._pending[0] == pid else b""
        *lines, rest = (before + data).split(b"\n")
        self._pending = (pid, rest[-MAX_LINE:])
        for line in lines:
            self._on_line(pid, line.decode(errors="replace"))


def tail(path: Path, lines: int = 15) -> list[str]:
    """The last lines of a log; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 200 * lines * 4))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []
