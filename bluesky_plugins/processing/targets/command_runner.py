"""Commands on this host."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence

from bluesky_plugins.processing.targets.ports import Completed, Fault, TransportError

__all__ = ["MAX_COMMANDS", "LocalRunner", "clean_environment", "remote_command", "run_program"]

# sshd takes 10 sessions on a connection by default, and refuses the eleventh at once.
MAX_COMMANDS = 8
# What a program may need of our environment. The rest can hold addresses and secrets.
KEPT = {
    *("HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ"),
    *("USER", "VIRTUAL_ENV", "CONDA_PREFIX", "MODULEPATH", "SSH_AUTH_SOCK", "KRB5CCNAME"),
}
KEPT_PREFIXES = ("LC_", "SLURM_CONF", "EPICS_")
DISPLAY = {"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR"}

CONTROL = {chr(number) for number in (*range(32), 127)}


def clean_environment(source: Mapping[str, str], *, display: bool = False) -> dict[str, str]:
    """What is passed on of an environment: nothing that is a setting of ours, or a secret.

    :param display: also what a program needs to open a window.
    """
    kept = KEPT | DISPLAY if display else KEPT
    return {k: v for k, v in source.items() if k in kept or k.startswith(KEPT_PREFIXES)}


def remote_command(argv: Sequence[str]) -> str:
    """The text by which a login shell starts exactly this program with these arguments.

    SSH knows no argument list. What is sent is our own and plain; a run's words are never in it.

    :raises ValueError: for a word with a control character, which some shells would not keep.
    """
    for word in argv:
        if CONTROL.intersection(word):
            raise ValueError(f"a command's word holds a control character: {word!r}")
    return shlex.join(argv)


async def run_program(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    within: float,
    environment: Mapping[str, str],
) -> Completed:
    """Run a program of this host to its end; its whole process group is killed when it is late.

    :raises TransportError: if it cannot be started, or is not done in time.
    """
    program = _Program(argv, environment)
    try:
        return await asyncio.to_thread(program.run, stdin, within)
    finally:
        program.kill()


class _Program:
    """A program under the eyes of a thread.

    asyncio's own subprocesses wait for ever when they are cancelled while they are made.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self._argv, self._environment = list(argv), dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = False
        self._change = threading.Lock()

    def run(self, stdin: bytes, within: float) -> Completed:
        """Start it and wait for its end; the thread's part."""
        process = self._start()
        try:
            out, err = process.communicate(stdin, within)
            return Completed(process.returncode, out, err)
        except subprocess.TimeoutExpired:
            reason = f"{self._argv[0]} was not done after {within:g} s"
            raise TransportError(reason, doubtful=True, fault=Fault.TIMED_OUT) from None
        finally:
            self.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._change:
            if self._given_up:
                reason = f"{self._argv[0]} was given up before it started"
                raise TransportError(reason, doubtful=False, fault=Fault.TIMED_OUT)
            try:
                self._process = subprocess.Popen(
                    self._argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=self._environment,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
                missing = isinstance(error, FileNotFoundError)
                fault = Fault.NO_PROGRAM if missing else Fault.UNREACHABLE
                reason = f"{self._argv[0]}: {why}"
                raise TransportError(reason, doubtful=False, fault=fault) from None
            return self._process

    def kill(self) -> None:
        """End it and its process group, unless it has ended; it will not start after this."""
        with self._change:
            self._given_up = True
            if self._process is not None and self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)


class LocalRunner:
    """Commands on this host, without a shell.

    :param environment: of the commands; None: what `clean_environment` keeps of our own.
    """

    def __init__(
        self, *, environment: Mapping[str, str] | None = None, max_commands: int = MAX_COMMANDS
    ) -> None:
        self._environment = environment
        self._slots = asyncio.Semaphore(max_commands)

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", within: float) -> Completed:
        """See `CommandRunner`."""
        environment = self._environment
        if environment is None:
            environment = clean_environment(os.environ)
        async with self._slots:
            return await run_program(argv, stdin=stdin, within=within, environment=environment)

    async def close(self) -> None:
        """See `CommandRunner`."""
