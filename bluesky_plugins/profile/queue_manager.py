"""`python -m bluesky_plugins.profile.queue_manager`: queueserver's manager, as a good service.

The manager and the worker are forks of this process and end with it, even when it is killed.
SIGTERM aborts a plan that runs, so that its run is closed, and stops all three. A manager that
hangs after an outage of Redis is restarted.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import redis
import redis.asyncio
import structlog
from redis.maint_notifications import MaintNotificationsConfig

from bluesky_plugins.profile.queue_control import NoAnswerError, QueueControl
from bluesky_plugins.profile.queue_files import (
    control_address,
    manager_arguments,
    write_queue_files,
)
from bluesky_plugins.profile.stuck import StuckWatch
from bluesky_plugins.settings import ConfigurationError, Settings, load_settings

__all__ = ["connect_with", "main"]

log = structlog.get_logger(__name__)

PR_SET_PDEATHSIG = 1
STOP_SECONDS = 4.0
POLL_SECONDS = 1.0
MANAGER = "RE Manager Process"


def main() -> int:
    """Serve until SIGTERM; the exit status."""
    try:
        settings = load_settings()
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    folder = write_queue_files(settings)
    _end_forks_with_this_process()
    # Blocked here and so in all threads: only `_stop_at_signal` takes it. queueserver's own
    # handler would kill the worker in the middle of a run.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    stopped = threading.Event()
    _thread(lambda: _stop_at_signal(settings, stopped), "stop")
    _thread(lambda: _watch(settings, stopped), "watch")
    sys.argv = ["start-re-manager", *manager_arguments(folder), "--keep-re"]
    # ophyd of this process stays without a control layer: caproto's threads do not survive a
    # fork, so the worker makes its own.
    os.environ["OPHYD_CONTROL_LAYER"] = "dummy"
    from bluesky_queueserver.manager.start_manager import start_manager

    connect_with(settings.redis.address)
    if not _wait_for_redis(settings, stopped):
        return 0
    status = start_manager()
    return 0 if stopped.is_set() else (status or 1)


def _wait_for_redis(settings: Settings, stopped: threading.Event) -> bool:
    """Until Redis answers; False if `stopped` before.

    A manager that finds none at its start ends, and nobody starts it again.
    """
    told = ""
    while (problem := _redis_problem(settings)) is not None:
        if problem != told:
            told = problem
            log.warning("waiting for a server", server="redis", reason=problem)
        if stopped.wait(POLL_SECONDS):
            return False
    return True


def connect_with(url: str) -> None:
    """Have queueserver connect to Redis with this URL.

    It knows addresses without TLS only, and writes into its log the one that it is given.
    """
    from bluesky_queueserver.manager import plan_queue_ops

    def from_url(_shown: str, **options: Any) -> Any:
        # Where it waits for notices of maintenance, the client does not look whether the server
        # has closed an idle connection: after a restart of Redis the first request would fail.
        quiet = MaintNotificationsConfig(enabled=False)
        return redis.asyncio.from_url(url, maint_notifications_config=quiet, **options)

    plan_queue_ops.redis = SimpleNamespace(asyncio=SimpleNamespace(from_url=from_url))


def _thread(target: Callable[[], None], name: str) -> None:
    threading.Thread(target=target, name=name, daemon=True).start()


def _end_forks_with_this_process() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    parents: list[int] = [os.getpid()]

    def in_child() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parents[-1]:
            os._exit(1)  # the parent died before the call above
        parents.append(os.getpid())

    os.register_at_fork(after_in_child=in_child)


def _stop_at_signal(settings: Settings, stopped: threading.Event) -> None:
    signal.sigwait({signal.SIGTERM})
    stopped.set()
    deadline = time.monotonic() + STOP_SECONDS
    try:
        with QueueControl(control_address(settings), timeout=1.0) as control:
            _abort_plan(control, time.monotonic() + STOP_SECONDS / 2)
            control.ask("manager_stop", {"option": "safe_off"})
    except NoAnswerError as error:
        log.warning("the queue is stopped by force", reason=str(error))
        deadline = time.monotonic()
    main_thread = threading.main_thread()
    main_thread.join(max(0.0, deadline - time.monotonic()))
    for child in multiprocessing.active_children():
        child.kill()
    main_thread.join(0.5)
    os._exit(0)


def _abort_plan(control: QueueControl, deadline: float) -> None:
    if control.ask("status")["re_state"] not in ("running", "paused"):
        return
    control.ask("queue_stop")
    control.ask("re_pause", {"option": "immediate"})
    _wait_for(control, lambda status: status["manager_state"] in ("paused", "idle"), deadline)
    control.ask("re_abort")
    _wait_for(control, lambda status: status["manager_state"] == "idle", deadline)


def _wait_for(
    control: QueueControl, done: Callable[[dict[str, Any]], bool], deadline: float
) -> None:
    pause = threading.Event()
    while time.monotonic() < deadline and not done(control.ask("status")):
        pause.wait(0.05)


def _watch(settings: Settings, stopped: threading.Event) -> None:
    """Say when the manager answers; restart it when it hangs."""
    watch, announced = StuckWatch(), False
    with QueueControl(control_address(settings), timeout=1.0) as control:
        while not stopped.wait(POLL_SECONDS):
            status = _status(control)
            if status is not None and not announced:
                announced = True
                _say(f"queue ready on {control_address(settings)}")
            watch = watch.after(status)
            # While Redis is away a new manager would hang, too.
            if watch.stuck and _redis_problem(settings) is None:
                log.warning("the queue's manager hangs and is restarted", status=watch.reported)
                _kill_manager()
                watch = StuckWatch()


def _status(control: QueueControl) -> dict[str, Any] | None:
    try:
        return control.ask("status")
    except NoAnswerError:
        return None


def _redis_problem(settings: Settings) -> str | None:
    """Why Redis does not answer; None when it does."""
    client = redis.Redis.from_url(
        settings.redis.address, socket_timeout=1.0, socket_connect_timeout=1.0
    )
    try:
        client.ping()
    except redis.RedisError as error:
        return str(error)
    finally:
        client.close()
    return None


def _kill_manager() -> None:
    # queueserver's watchdog starts it again; the worker goes on.
    for child in multiprocessing.active_children():
        if child.name == MANAGER:
            child.kill()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
