"""`doctor`'s remedy for a queue that hangs after an outage of Redis."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psutil

from bluesky_plugins.profile.queue_control import NoAnswerError, QueueControl
from bluesky_plugins.profile.queue_files import control_address
from bluesky_plugins.profile.stuck import POLLS, StuckWatch, looks_stuck
from bluesky_plugins.settings import Settings

__all__ = ["MendReport", "MendState", "mend_queue"]

POLL_SECONDS = 1.0
# queueserver's watchdog takes 5 s to notice, then the manager starts anew.
RESTART_SECONDS = 30.0


class MendState(StrEnum):
    """What was found, or done."""

    FINE = "fine"
    MENDED = "mended"
    STUCK = "stuck"
    DOWN = "down"


@dataclass(frozen=True)
class MendReport:
    """What `doctor` says about the queue."""

    state: MendState
    detail: str


def mend_queue(settings: Settings, *, timeout: float = RESTART_SECONDS) -> MendReport:
    """Look whether the queue's manager hangs, and restart it if so; the worker goes on.

    :param timeout: for the restarted manager to be idle, s.
    """
    try:
        with QueueControl(control_address(settings)) as control:
            status = control.ask("status")
            if not looks_stuck(status):
                return MendReport(MendState.FINE, f"manager {status['manager_state']}")
            if not _stays_stuck(control):
                return MendReport(MendState.FINE, "it executes its queue")
    except NoAnswerError as error:
        return MendReport(MendState.DOWN, str(error))
    return _restart(settings, timeout)


def _stays_stuck(control: QueueControl) -> bool:
    watch, pause = StuckWatch(), threading.Event()
    for _ in range(POLLS + 1):
        watch = watch.after(control.ask("status"))
        if watch.seen == 0:
            return False
        pause.wait(POLL_SECONDS)
    return watch.stuck


def _restart(settings: Settings, timeout: float) -> MendReport:
    port = settings.http.queueserver_control_port
    manager = _listener(port)
    if manager is None:
        return MendReport(MendState.STUCK, f"no process of yours listens on port {port}")
    manager.kill()
    if _idle_again(settings, time.monotonic() + timeout):
        return MendReport(
            MendState.MENDED, "the manager hung after an outage of Redis; it was restarted"
        )
    return MendReport(
        MendState.STUCK, f"the manager was restarted and is not idle in {timeout:g} s"
    )


def _listener(port: int) -> psutil.Process | None:
    for process in psutil.process_iter():
        try:
            # Only one that is surely the manager: a child of the queueserver.
            if _is_queueserver(process.parent()) and _listens(process, port):
                return process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return None


def _is_queueserver(process: psutil.Process | None) -> bool:
    words = " ".join(process.cmdline()) if process is not None else ""
    return "bluesky_plugins.profile.queue_manager" in words or "start-re-manager" in words


def _listens(process: psutil.Process, port: int) -> bool:
    connections: list[Any] = process.net_connections(kind="tcp")
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def _idle_again(settings: Settings, deadline: float) -> bool:
    pause = threading.Event()
    while time.monotonic() < deadline:
        pause.wait(POLL_SECONDS / 2)
        try:
            with QueueControl(control_address(settings), timeout=1.0) as control:
                if control.ask("status")["manager_state"] == "idle":
                    return True
        except NoAnswerError:
            continue  # it starts anew
    return False
