"""Real servers on loopback for every test that asks, and no test that meets a person's stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypothesis
import pytest

from bluesky_plugins.embedded import PortReservations, PortWish
from bluesky_plugins.settings import Settings, load_settings
from tests.facility import NO_MONGO, REDIS_PASSWORD, FacilityKafka, facility_mongo_uri
from tests.servers import (
    PrivateServer,
    make_kafka,
    make_mongo,
    make_valkey,
    require,
    served,
    shared,
)

# No example fails for its time: a busy machine is not a fault of what is tested.
hypothesis.settings.register_profile("any-machine", deadline=None)
hypothesis.settings.load_profile("any-machine")

ROOT = Path(__file__).parents[1]
RESERVED = pytest.StashKey[PortReservations]()

# -- in parallel ----------------------------------------------------------------------------

# What published ports of the pods are on this host (pods/*.yaml, hostPort).
POD_PORTS = (9092, 60610, 60620, 60622, 60640)
FACILITY = "facility"


def pytest_configure(config: pytest.Config) -> None:
    """Stacks and connections that tests make leave the pods their ports, as another stack would."""
    if not hasattr(config, "workerinput"):
        config.stash[RESERVED] = reservations = PortReservations()
        for port in POD_PORTS:
            reservations.take(port, PortWish("pods", port))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of the ports."""
    if RESERVED in config.stash:
        config.stash[RESERVED].close()


def scope_of(test: str) -> str:
    """What stays in one process, since its servers are expensive; a unit test is alone."""
    path, folder = test.partition("::")[0], test.split("/")[1]
    if folder in ("unit", "pods"):
        return test if folder == "unit" else folder
    return FACILITY if FACILITY in path else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of a scope go to the same process, in their order."""
    from xdist.scheduler import LoadScopeScheduling

    # Not `--dist loadgroup`: xdist 3.8 forgets the groups with pytest 9.2 (pytest-xdist#1386).
    class ByServers(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

    return ByServers(config, log)


# -- isolation ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests, and a state folder of the test's own."""
    for name in list(os.environ):
        if name.startswith("BLUESKY_PLUGINS_") and not name.startswith("BLUESKY_PLUGINS_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BLUESKY_PLUGINS_STATE_DIR", str(tmp_path / "state"))


# -- servers --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of the session's Kafka."""
    yield from shared("kafka", make_kafka, tmp_path_factory)


@pytest.fixture(scope="session")
def embedded_mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URI of the session's embedded server of MongoDB's protocol."""
    for server in served("mongo", make_mongo, tmp_path_factory.mktemp("mongo")):
        yield server.address


@pytest.fixture(scope="session")
def mongo(request: pytest.FixtureRequest) -> str:
    """URI of the session's MongoDB: the one that is named, or the embedded one."""
    return facility_mongo_uri() or request.getfixturevalue("embedded_mongo")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the session's Redis."""
    yield from shared("valkey", make_valkey, tmp_path_factory)


@pytest.fixture(scope="session")
def facility_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FacilityKafka]:
    """Three nodes, with TLS and logins."""
    require("kafka")
    cluster = FacilityKafka(tmp_path_factory.mktemp("facility-kafka"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
def mortal_kafka(facility_kafka: FacilityKafka) -> Iterator[FacilityKafka]:
    """The same three nodes for a test that kills some: afterwards all are there again."""
    yield facility_kafka
    facility_kafka.start()


@pytest.fixture(scope="session")
def facility_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis with a password that must be percent-encoded."""
    folder = tmp_path_factory.mktemp("facility-redis")
    for server in served("valkey", partial(make_valkey, password=REDIS_PASSWORD), folder):
        yield server.address


@pytest.fixture(scope="session")
def facility_mongo() -> str:
    """URI of a real MongoDB; without one the test is skipped, in CI too."""
    return facility_mongo_uri() or pytest.skip(NO_MONGO)


@pytest.fixture
def facility(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """Sections for `make_settings`: a facility's servers; MongoDB as there is one."""
    return {
        "kafka": request.getfixturevalue("facility_kafka").section(),
        "redis": {"url": request.getfixturevalue("facility_redis")},
        "mongo": {"uri": request.getfixturevalue("mongo")},
    }


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
        self, *arguments: str, timeout: float = 600.0, **environment: str
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
    # Eight parts beside the servers of other tests: whether it starts is asked, not how soon.
    up = running.command("up", BLUESKY_PLUGINS_EMBEDDED__READY_SECONDS="300")
    try:
        assert up.returncode == 0, f"{up.stdout}\n{up.stderr}"
        yield running
    finally:
        down = running.command("down")
        assert down.returncode == 0, down.stderr
