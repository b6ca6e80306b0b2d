"""Finding the processes of a stack by the mark in their environment, and ending them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

__all__ = ["MARK", "end_processes", "marked_processes", "running_after", "stray_repeaters"]

# In the environment of the supervisor and so of everything below it. It is not the variable
# by which a person names the folder: their own session must outlive the stack.
MARK = "BLUESKY_STACK_OF"


def marked_processes(root: Path) -> list[psutil.Process]:
    """Processes of the stack in `root`, this process and its ancestors left out."""
    spared = {os.getpid(), *(p.pid for p in psutil.Process().parents())}
    wanted = str(root)
    return [p for p in _own_processes() if p.pid not in spared and _variable(p, MARK) == wanted]


def stray_repeaters(port: int) -> list[psutil.Process]:
    """EPICS repeaters that a client left behind (parent 1) on `port`.

    A client of the stack starts one where none answers, and then it is nobody's child.
    """
    return [
        p
        for p in _own_processes()
        if _is_repeater(p) and _variable(p, "EPICS_CA_REPEATER_PORT") == str(port)
    ]


def end_processes(processes: Iterable[psutil.Process], timeout: float) -> list[int]:
    """SIGTERM, and SIGKILL for what is still there after `timeout` seconds.

    :returns: the pids that had to be ended.
    """
    found = list(processes)
    for process in found:
        _signal(process, kill=False)
    alive = running_after(found, timeout)
    for process in alive:
        _signal(process, kill=True)
    running_after(alive, 5.0)
    return [p.pid for p in found]


def running_after(processes: Iterable[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Those that still run when all have ended or `timeout` seconds are over."""
    # Not psutil.wait_procs: of 7.2 it raises FileNotFoundError or EINVAL when it asks for a process
    # while that is ending (pidfd_open; sgl-project/sglang#26964).
    alive, deadline, pause = list(processes), time.monotonic() + timeout, threading.Event()
    while (alive := [p for p in alive if _runs(p)]) and time.monotonic() < deadline:
        pause.wait(0.02)
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _own_processes() -> list[psutil.Process]:
    out = []
    for process in psutil.process_iter():
        try:
            own = process.uids().real == os.getuid()
            if own and process.status() != psutil.STATUS_ZOMBIE:
                out.append(process)
        except psutil.Error:
            continue
    return out


def _variable(process: psutil.Process, name: str) -> str | None:
    try:
        return process.environ().get(name)
    except psutil.Error:
        return None


def _is_repeater(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
        return process.ppid() == 1 and any(
            "caproto.commandline.repeater" in w or w.endswith("caproto-repeater") for w in words
        )
    except psutil.Error:
        return False


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
