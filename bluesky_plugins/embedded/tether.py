"""Start a program that ends when the process that started it ends.

Run as a script, with the standard library alone, so that it costs some 20 ms:
`python -I -S tether.py [--signal 9] [--parent PID] -- PROGRAM ARGUMENT...`.
The program takes the place of the script: it has the script's process id.

The kernel watches the *thread* that started the program: start tethered programs
from a thread that lives as long as they should.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence

__all__ = ["tethered"]

PR_SET_PDEATHSIG = 1
# The one signal that no program can be too busy to obey. All parts survive it, and it leaves
# no process that is still shutting down on a port when the next stack starts.
SIGKILL = 9
USAGE = "usage: tether.py [--signal NUMBER] [--parent PID] -- PROGRAM [ARGUMENT...]"


def tethered(argv: Sequence[str], *, signal: int = SIGKILL, parent: int | None = None) -> list[str]:
    """The command line that runs `argv` tethered to whoever starts it.

    :param argv: program (an absolute path, or found on PATH) and arguments.
    :param signal: number of the signal that the program gets when its parent ends.
    :param parent: process id that must be the parent, else the program is not started; None
        takes whichever process is the parent when the script starts.
    """
    expected = [] if parent is None else ["--parent", str(parent)]
    # -I: neither the environment nor the working directory decides what is imported.
    script = [sys.executable, "-I", "-S", __file__]
    return [*script, "--signal", str(signal), *expected, "--", *argv]


def _tie(signal: int, parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0) != 0:
        sys.exit(f"tether: prctl: {os.strerror(ctypes.get_errno())}")
    # A parent that ended before the call above sends nothing.
    if os.getppid() != parent:
        sys.exit(f"tether: process {parent}, which should be the parent, has ended")


def _main(arguments: list[str]) -> None:
    parent, signal = os.getppid(), SIGKILL
    while arguments and arguments[0] in ("--signal", "--parent"):
        flag, value, *arguments = arguments
        if flag == "--signal":
            signal = int(value)
        else:
            parent = int(value)
    if len(arguments) < 2 or arguments[0] != "--":
        sys.exit(USAGE)
    program = arguments[1:]
    _tie(signal, parent)
    try:
        os.execvp(program[0], program)  # noqa: S606 - taking its place is the purpose
    except OSError as error:
        sys.exit(f"tether: {program[0]}: {error.strerror}")


if __name__ == "__main__":
    _main(sys.argv[1:])
