"""`healthy`, as a liveness probe runs it, on real services."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.servers import free_port

# The stack may have to start first.
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SERVICES = ("iocs", "recorder", "recommender", "queueserver", "httpserver")


def until(condition: Callable[[], Any], timeout: float = 120.0) -> Any:
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, "this never became true"
        pause.wait(0.05)
    return found


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process and what it started hang."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        # A watchdog that goes on first may end a child before that goes on.
        for process in reversed(processes):
            process.resume()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_the_stack_is_alive_and_frozen_it_is_not(stack: Any, name: str) -> None:
    limits = {"recorder": ("--limit", "30", "3")}
    option, long, short = limits.get(name, ("--timeout", "60", "1"))
    pid = stack.status()[name]["pid"]
    well = stack.command("healthy", name, option, long)
    assert (well.returncode, well.stdout.count("\n")) == (0, 1), well.stdout + well.stderr
    with frozen(pid):
        until(lambda: stack.command("healthy", name, option, short).returncode == 1)
    until(lambda: stack.command("healthy", name).returncode == 0)


def test_the_queue_http_server_is_alive_without_a_manager(stack: Any) -> None:
    with frozen(stack.status()["queueserver"]["pid"]):
        done = stack.command("healthy", "httpserver", "--timeout", "60")
    # Its watchdog takes a manager that hung for one that is to be started anew.
    until(lambda: stack.command("healthy", "queueserver").returncode == 0)
    assert done.returncode == 0, done.stdout


@pytest.mark.timed
def test_a_probe_takes_less_than_a_second_of_cpu(stack: Any) -> None:
    for name in SERVICES:
        before = os.times()
        assert stack.command("healthy", name).returncode == 0
        after = os.times()
        used = after.children_user + after.children_system
        used -= before.children_user + before.children_system
        assert used < 1.5, name  # 0.6 s on a machine that has nothing else to do


class Lonely:
    """Services whose servers are not there."""

    def __init__(self, folder: Path) -> None:
        nobody = free_port()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("BLUESKY_PLUGINS_")}
        prefix = "BLUESKY_PLUGINS_"
        self.environment = {
            **kept,
            f"{prefix}STATE_DIR": str(folder / "state"),
            f"{prefix}KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{nobody}",
            f"{prefix}MONGO__URI": f"mongodb://127.0.0.1:{nobody}",
            f"{prefix}REDIS__URL": f"redis://127.0.0.1:{nobody}/0",
            f"{prefix}HTTP__RECOMMENDER_PORT": str(free_port()),
        }
        self.log = folder / "log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *argv: str) -> None:
        command = [sys.executable, "-m", "bluesky_plugins.cli", *argv]
        with self.log.open("ab") as log:
            self._processes.append(
                subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
            )

    def healthy(self, name: str) -> bool:
        command = [sys.executable, "-m", "bluesky_plugins.cli", "healthy", name]
        return subprocess.run(command, env=self.environment, check=False).returncode == 0

    def close(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait(60)


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Lonely]:
    made = Lonely(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [("recorder", "waiting for a server"), ("recommender", "Kafka does not answer")],
)
def test_a_service_that_waits_for_its_servers_is_alive(
    lonely: Lonely, name: str, said: str
) -> None:
    lonely.start(name)
    until(lambda: said in lonely.log.read_text())
    assert lonely.healthy(name)
