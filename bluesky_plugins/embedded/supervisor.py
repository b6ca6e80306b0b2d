"""The process that starts the parts of a stack and starts them again: circus, with our state.

`python -m bluesky_plugins.embedded.supervisor` reads a `StackSpec` from its stdin, goes into
the background and obeys circus' commands on a socket in a folder of 0700. It starts nothing
by itself. `parts.json` says at every change what is known of each part.
"""

from __future__ import annotations

import functools
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from circus import logger as circus_logger
from circus.arbiter import Arbiter
from circus.watcher import Watcher
from tornado import gen
from tornado.ioloop import IOLoop, PeriodicCallback

from bluesky_plugins.embedded.attempts import Attempts
from bluesky_plugins.embedded.folder import StateFolder
from bluesky_plugins.embedded.logs import PartLog
from bluesky_plugins.embedded.parts import LineProbe, Part, StackError, StackSpec
from bluesky_plugins.embedded.readiness import answers, listens
from bluesky_plugins.embedded.tether import tethered

__all__ = ["supervise"]

_log = logging.getLogger(__name__)

# A Unix socket's path has at most 107 bytes; the longest name of ours is "events".
LONGEST_FOLDER = 90
PROBE_EVERY = 100  # ms


class SupervisedPart:
    """A part between circus, which starts it, and the probe that says when it is ready.

    Everything here runs in the thread of the event loop.
    """

    def __init__(self, part: Part, spec: StackSpec, on_change: Callable[[], None]) -> None:
        self.part = part
        self.attempts = Attempts(spec.max_failures)
        self.probing = False
        self._changed = on_change
        log = StateFolder(spec.root).log / f"{part.name}.log"
        self._log = PartLog(log, spec.log_bytes, self._line)
        self.watcher = self._watcher(spec)

    def _watcher(self, spec: StackSpec) -> Watcher:
        # Started from the thread that lives as long as the supervisor does.
        argv = tethered(self.part.argv, parent=os.getpid())
        hooks: dict[str, Callable[..., bool]] = {
            "before_start": self._before_start,
            "before_spawn": self._before_spawn,
            "after_spawn": self._after_spawn,
            "before_reap": self._before_reap,
            "after_reap": self._after_reap,
            "after_stop": self._after_stop,
        }
        return Watcher(
            self.part.name,
            shlex.quote(argv[0]),
            args=argv[1:],
            copy_env=True,
            env=dict(self.part.env),
            working_dir=str(spec.root),
            stop_signal=self.part.stop_signal,
            graceful_timeout=spec.stop_seconds,
            stdout_stream={"stream": self._log},
            stderr_stream={"stream": self._log},
            hooks={name: (hook, False) for name, hook in hooks.items()},
            singleton=True,
        )

    def ready(self, pid: int) -> None:
        """Process `pid` answers."""
        if self.attempts.probed == pid and self.attempts.ready(pid):
            self._changed()

    def _line(self, pid: int, line: str) -> None:
        probe = self.part.probe
        if isinstance(probe, LineProbe) and probe.text in line:
            self.ready(pid)

    def _before_start(self, **_: Any) -> bool:
        self.attempts.wanted()
        self._changed()
        return True

    def _before_spawn(self, **_: Any) -> bool:
        if self.attempts.may_start():
            return True
        self._log.write(f"--- given up: {self.attempts.record.reason}\n".encode())
        return False

    def _after_spawn(self, *, pid: int, **_: Any) -> bool:
        self.attempts.started(pid)
        self._changed()
        return True

    def _before_reap(self, *, process_pid: int, **_: Any) -> bool:
        # circus closes the pipe of an ended process: its last words would be lost.
        process = self.watcher.processes[process_pid]
        for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr)):
            for data in _remaining(pipe):
                self._log({"pid": process_pid, "name": name, "data": data})
        return True

    def _after_reap(self, *, process_pid: int, exit_code: int | None = None, **_: Any) -> bool:
        self.attempts.ended(process_pid, _how_ended(exit_code))
        self._changed()
        return True

    def _after_stop(self, **_: Any) -> bool:
        self.attempts.stopped()
        self._changed()
        return True


def _remaining(pipe: Any) -> Iterator[bytes]:
    if pipe is None or pipe.closed:
        return
    os.set_blocking(pipe.fileno(), False)
    while True:
        try:
            data = os.read(pipe.fileno(), 65536)
        except OSError:
            return
        if not data:
            return
        yield data


def _how_ended(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit status {exit_code}"


class StackArbiter(Arbiter):  # type: ignore[misc]
    """circus' arbiter, which starts what it is told and stops in the order of the ranks."""

    ranks: dict[str, int]

    def manage_watchers(self) -> Any:
        """Look after the parts, unless a command is being carried out."""
        if self._exclusive_running_command is None:
            return super().manage_watchers()
        return None

    @gen.coroutine
    def _start_watchers(self, watcher_iter_func: Callable[[], list[Watcher]] | None = None) -> Any:
        if watcher_iter_func is not None:
            yield gen.multi([w._start() for w in watcher_iter_func()])  # noqa: SLF001

    @gen.coroutine
    def _stop_watchers(
        self,
        close_output_streams: bool = False,
        watcher_iter_func: Callable[..., list[Watcher]] | None = None,
    ) -> Any:
        watchers = (watcher_iter_func or self.iter_watchers)()
        for rank in sorted(set(self.ranks.values())):
            chosen = [w for w in watchers if self.ranks[w.name] == rank]
            yield gen.multi([w._stop(close_output_streams) for w in chosen])  # noqa: SLF001


class Supervisor:
    """All parts, their probes, and the file that tells of them."""

    def __init__(self, spec: StackSpec) -> None:
        self._folder = StateFolder(spec.root)
        self._told: dict[str, Any] = {}
        self._parts = [SupervisedPart(part, spec, self._tell) for part in spec.parts]
        self._spec = spec
        self._pool = ThreadPoolExecutor(max(1, len(self._parts)), "probe")

    def run(self) -> None:
        """Until `quit` or a signal."""
        sockets = _socket_folder(self._folder.run)
        try:
            self._run(sockets)
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._folder.supervisor_file.unlink(missing_ok=True)
            if sockets != self._folder.run:
                for path in sockets.iterdir():
                    path.unlink(missing_ok=True)
                sockets.rmdir()

    def _run(self, sockets: Path) -> None:
        # A dead supervisor's sockets would be in the way; we hold the lock.
        endpoint, events = sockets / "control", sockets / "events"
        for path in (endpoint, events):
            path.unlink(missing_ok=True)
        arbiter = StackArbiter(
            [p.watcher for p in self._parts],
            f"ipc://{endpoint}",
            f"ipc://{events}",
            check_delay=self._spec.check_seconds,
            proc_name="bluesky-plugins-supervisor",
        )
        arbiter.ranks = {p.part.name: p.part.stop_rank for p in self._parts}
        self._tell()
        about = {"pid": os.getpid(), "endpoint": f"ipc://{endpoint}"}
        self._folder.write(self._folder.supervisor_file, about)
        PeriodicCallback(self._probe, PROBE_EVERY).start()
        arbiter.start()

    def _probe(self) -> None:
        for one in self._parts:
            pid = one.attempts.probed
            if pid is None or one.probing or isinstance(one.part.probe, LineProbe):
                continue
            one.probing = True
            future = IOLoop.current().run_in_executor(self._pool, _is_ready, one.part, pid)
            IOLoop.current().add_future(future, functools.partial(self._probed, one, pid))

    def _probed(self, one: SupervisedPart, pid: int, future: Any) -> None:
        one.probing = False
        if future.exception() is not None:
            _log.error("the probe of %s failed", one.part.name, exc_info=future.exception())
        elif future.result():
            one.ready(pid)

    def _tell(self) -> None:
        records = {p.part.name: p.attempts.record.model_dump(mode="json") for p in self._parts}
        if records == self._told:
            return
        try:
            self._folder.write(self._folder.parts_file, records)
        except OSError as error:
            _log.error("%s cannot be written: %s", self._folder.parts_file, error)
            return
        self._told = records


def _is_ready(part: Part, pid: int) -> bool:
    if part.port is not None and not listens(pid, part.port):
        return False
    return answers(part.probe)


def _socket_folder(run: Path) -> Path:
    if len(os.fsencode(run)) <= LONGEST_FOLDER:
        return run
    return Path(tempfile.mkdtemp(prefix="bluesky-"))


def supervise(spec: StackSpec) -> int:
    """Supervise in this process, which must hold the folder's lock, until told to quit.

    :returns: exit status.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    circus_logger.setLevel(logging.INFO)
    Supervisor(spec).run()
    return 0


def main() -> None:
    """Read the spec, leave the caller, supervise."""
    spec = StackSpec.model_validate_json(sys.stdin.buffer.read())
    # Passes to the child, and is let go by its end alone: whoever gets it then is alone.
    try:
        StateFolder(spec.root).hold_supervisor_lock()
    except StackError as error:
        sys.exit(str(error))
    if os.fork():
        os._exit(0)
    sys.exit(supervise(spec))


if __name__ == "__main__":
    main()
