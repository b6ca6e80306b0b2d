"""A stack as seen from outside its supervisor: launch it, start parts, wait, stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import psutil

from bluesky_plugins.embedded.folder import StateFolder
from bluesky_plugins.embedded.logs import tail
from bluesky_plugins.embedded.parts import PartRecord, PartState, StackError, StackSpec
from bluesky_plugins.embedded.processes import (
    MARK,
    end_processes,
    marked_processes,
    stray_repeaters,
)

__all__ = ["Stack", "stack_environment"]

POLL = 0.05  # s between two looks at a file or a lock
COMMAND_SECONDS = 10.0


def stack_environment(folder: StateFolder) -> dict[str, str]:
    """This process's environment, with the mark and the folder of the stack."""
    root = str(folder.root)
    return {**os.environ, MARK: root, "BLUESKY_PLUGINS_STATE_DIR": root}


class Stack:
    """The stack of a folder.

    :param stop_seconds: a part that is asked to stop is killed after this.
    """

    def __init__(self, folder: StateFolder, stop_seconds: float) -> None:
        self.folder = folder
        self._stop_seconds = stop_seconds
        self._pause = threading.Event()

    @property
    def alive(self) -> bool:
        """Whether a supervisor runs."""
        return self.folder.supervised()

    def records(self) -> dict[str, PartRecord]:
        """What the supervisor last told of its parts; nothing when there is none.

        A process that has died since is not shown as running.
        """
        if not self.alive:
            return {}
        told = self.folder.read(self.folder.parts_file) or {}
        return {n: _living(PartRecord.model_validate(r)) for n, r in told.items()}

    def launch(self, spec: StackSpec, keep: Collection[int] = ()) -> None:
        """Start the supervisor, which starts no part yet.

        :param keep: open files that it is to hold as long as it lives.
        :raises StackError: when it does not answer in time; its log's last lines are told.
        """
        if self.alive:
            raise StackError(f"{self.folder.root} has a supervisor already")
        log_path = self.folder.log / "supervisor.log"
        self.folder.supervisor_file.unlink(missing_ok=True)
        with open(log_path, "ab", opener=_for_the_user_alone) as log:
            started = subprocess.run(
                [sys.executable, "-m", "bluesky_plugins.embedded.supervisor"],
                input=spec.model_dump_json().encode(),
                stdout=log,
                stderr=log,
                cwd=self.folder.root,
                env=stack_environment(self.folder),
                start_new_session=True,
                pass_fds=tuple(keep),
                check=False,
            )
        told = started.returncode == 0 and self._until(self.folder.supervisor_file.exists)
        if not told:
            last = "\n".join(tail(log_path))
            raise StackError(f"the supervisor did not start; {log_path} ends with:\n{last}")
        self._command("list")

    def start(self, names: Iterable[str]) -> None:
        """Have parts started, all at once.

        :raises StackError: when the supervisor does not answer.
        """
        pattern = "|".join(re.escape(name) for name in names)
        self._command("start", name=f"^({pattern})$", match="regex")

    def wait_ready(
        self, names: Collection[str], timeout: float, on_ready: Callable[[str], None]
    ) -> dict[str, str]:
        """Wait until each part is ready or has failed.

        :param on_ready: called with each part's name when it is.
        :returns: name -> why it is not ready; empty when all are.
        """
        waiting, failed = set(names), dict[str, str]()
        deadline = time.monotonic() + timeout
        while waiting:
            records = self.records()
            if not records and not self.alive:
                return dict.fromkeys(waiting, "the supervisor has ended")
            for name in sorted(waiting):
                # DOWN is a process that has just died: the supervisor has yet to see it.
                record = records.get(name, PartRecord(state=PartState.DOWN))
                if record.state is PartState.RUNNING:
                    on_ready(name)
                    waiting.discard(name)
                elif record.state in (PartState.FAILED, PartState.STOPPED):
                    failed[name] = record.reason or f"is {record.state}"
            # One that has failed for good fails the whole: waiting longer tells nothing new.
            if failed or time.monotonic() > deadline:
                late = {n: f"not ready after {timeout:g} s" for n in waiting if not failed}
                return {**late, **failed}
            self._pause.wait(POLL)
        return {}

    def stop(self, repeater_port: int | None = None) -> list[int]:
        """Stop everything and leave no process behind.

        :param repeater_port: EPICS repeater port of the stack.
        :returns: pids of processes that the supervisor had left behind.
        """
        if self.alive:
            self._quit()
        left = marked_processes(self.folder.root)
        if repeater_port is not None:
            left += stray_repeaters(repeater_port)
        ended = end_processes(left, self._stop_seconds)
        # What tells of a supervisor goes; its lock stays, for the next one.
        for path in self.folder.run.glob("*"):
            if path != self.folder.supervisor_lock:
                path.unlink(missing_ok=True)
        return ended

    def _quit(self) -> None:
        ranks = 4
        try:
            self._command("quit")
        except StackError:
            # It does not listen: everything below it ends with it.
            self._kill_supervisor()
        if not self._until(lambda: not self.alive, ranks * self._stop_seconds + COMMAND_SECONDS):
            self._kill_supervisor()

    def _kill_supervisor(self) -> None:
        about = self.folder.read(self.folder.supervisor_file) or {}
        pids = {p.pid for p in marked_processes(self.folder.root)}
        if about.get("pid") in pids:
            os.kill(about["pid"], signal.SIGKILL)
        self._until(lambda: not self.alive)

    def _until(self, condition: Callable[[], bool], timeout: float = COMMAND_SECONDS) -> bool:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._pause.wait(POLL)
        return True

    def _command(self, command: str, **properties: Any) -> Mapping[str, Any]:
        """Send one of circus' commands; tried again while circus is busy with another."""
        from circus.client import CircusClient
        from circus.exc import CallError

        about = self.folder.read(self.folder.supervisor_file)
        if about is None:
            raise StackError(f"the supervisor of {self.folder.root} cannot be found")
        client = CircusClient(endpoint=about["endpoint"], timeout=COMMAND_SECONDS)
        try:
            deadline = time.monotonic() + COMMAND_SECONDS
            while True:
                answer: Mapping[str, Any] = client.send_message(command, **properties)
                if answer.get("status") == "ok":
                    return answer
                if time.monotonic() > deadline:
                    raise StackError(f"the supervisor refuses {command}: {answer.get('reason')}")
                self._pause.wait(POLL)
        except CallError as error:
            raise StackError(f"the supervisor does not answer: {error}") from None
        finally:
            client.stop()


def _for_the_user_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _living(record: PartRecord) -> PartRecord:
    if record.pid is None:
        return record
    try:
        alive = psutil.Process(record.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        alive = False
    return record if alive else record.model_copy(update={"state": PartState.DOWN, "pid": None})
