"""What is reached from outside of the pods, who runs in them, and where secrets are seen."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.pods.beamline import Beamline, containers

pytestmark = [pytest.mark.pods, pytest.mark.timeout(600, func_only=True)]

PUBLISHED = {9092, 60610, 60620, 60622, 60640}
# MongoDB, Redis, 0MQ, the queue's sockets, what is behind nginx, Kafka's other listeners, EPICS,
# Slurm.
INSIDE = (
    27017, 6379, 5577, 5578, 60615, 60625, 60611, 60621, 60641, 19092, 19093, 29092, 5064, 5066,
    6817, 6818,
)  # fmt: skip


def test_only_these_ports_are_published_and_on_loopback(beamline: Beamline) -> None:
    published = set()
    for name in containers():
        for line in beamline.podman("port", name).splitlines():
            published.add(line.split(" -> ")[1])
    assert published == {f"127.0.0.1:{port}" for port in PUBLISHED}


def of_our_own(beamline: Beamline, port: int) -> bool:
    """Whether somebody on this machine, outside of the pods, listens there as well."""
    listed = subprocess.run(["ss", "-ltnH", f"sport = :{port}"], capture_output=True, text=True)
    return bool(listed.stdout.strip())


@pytest.mark.parametrize("port", INSIDE)
def test_port_inside_is_not_reached_from_the_host(beamline: Beamline, port: int) -> None:
    # A stack of somebody else may listen there: what is asked is whether a pod does.
    assert port not in PUBLISHED
    with socket.socket() as client:
        client.settimeout(2)
        reached = client.connect_ex(("127.0.0.1", port)) == 0
    assert not reached or of_our_own(beamline, port)


def test_redis_answers_nobody_without_the_password(beamline: Beamline) -> None:
    said = beamline.podman.try_("exec", "acquisition-redis", "redis-cli", "ping")
    assert "NOAUTH" in said.stdout + said.stderr


def test_redis_and_the_queues_sockets_listen_inside_of_their_pod_alone(
    beamline: Beamline,
) -> None:
    script = (
        "import socket\n"
        "for port in (6379, 5577, 5578, 60615, 60625, 60611, 19092):\n"
        "    with socket.socket() as client:\n"
        "        client.settimeout(2)\n"
        "        print(port, client.connect_ex(('acquisition', port)) == 0)\n"
    )
    said = beamline.podman("exec", "-i", "databroker-recorder", "python", "-", stdin=script)
    assert [line for line in said.splitlines() if not line.endswith("False")] == []


@pytest.mark.parametrize("container", containers())
def test_nothing_in_the_container_runs_as_root(beamline: Beamline, container: str) -> None:
    users = beamline.podman("top", container, "user").split()[1:]
    name = "beamline" if container.startswith("compute-") else "bluesky"
    assert set(users) == {name} or set(users) == {"1000"}


@pytest.fixture(scope="module")
def secrets(beamline: Beamline) -> list[str]:
    names = ("api_key", "redis_password", "mongo_password")
    keys = (beamline.folder / "compute" / name for name in ("id_ed25519", "ssh_host_ed25519_key"))
    return [
        *((beamline.folder / name).read_text().strip() for name in names),
        # The line of a private key that holds it.
        *(key.read_text().splitlines()[2] for key in keys),
    ]


def holders(texts: Iterator[tuple[str, str]], secrets: list[str]) -> list[str]:
    return [name for name, text in texts if any(secret in text for secret in secrets)]


def test_no_secret_is_in_what_podman_tells_of_a_container(
    beamline: Beamline, secrets: list[str]
) -> None:
    told = ((name, beamline.podman("inspect", name)) for name in containers())
    assert holders(told, secrets) == []


def test_no_secret_is_in_a_log(beamline: Beamline, secrets: list[str]) -> None:
    def logs() -> Iterator[tuple[str, str]]:
        for name in containers():
            done = beamline.podman.try_("logs", name)
            yield name, done.stdout + done.stderr

    assert holders(logs(), secrets) == []


def test_no_secret_is_on_a_command_line(beamline: Beamline, secrets: list[str]) -> None:
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    lines = ((line[:60], line) for line in listed.stdout.splitlines())
    assert holders(lines, secrets) == []


def test_keys_are_files_of_the_person_alone(beamline: Beamline) -> None:
    paths = [beamline.folder, *(beamline.folder / n for n in ("api_key", "redis_password"))]
    compute = beamline.folder / "compute"
    paths += [compute, compute / "id_ed25519", compute / "ssh_host_ed25519_key"]
    found = [(stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) for path in paths]
    files = [(0o600, os.getuid()), (0o600, os.getuid())]
    assert found == [(0o700, os.getuid()), *files, (0o700, os.getuid()), *files]


@pytest.mark.parametrize(
    "container",
    ["acquisition-queueserver", "databroker-server", "recommender-recommender", "compute-sshd"],
)
def test_secrets_in_a_container_are_files_of_its_user_alone(
    beamline: Beamline, container: str
) -> None:
    listed = beamline.podman(
        *("exec", container, "find", "/run/bluesky-plugins/secrets", "-type", "f"),
        *("-printf", "%m %U\n"),
    )
    modes = set(listed.split("\n")) - {""}
    assert modes <= {"600 1000", "400 1000"}
    assert modes


@pytest.mark.parametrize("container", containers())
def test_container_has_no_more_rights_than_it_needs(beamline: Beamline, container: str) -> None:
    told: list[dict[str, Any]] = json.loads(beamline.podman("inspect", container))
    (one,) = told
    status = beamline.podman("exec", container, "cat", "/proc/self/status")
    found = dict(re.findall(r"^(CapEff|NoNewPrivs):\s*(\S+)$", status, re.MULTILINE))
    assert (int(found["CapEff"], 16), found["NoNewPrivs"]) == (0, "1")
    assert one["HostConfig"]["ReadonlyRootfs"]
    assert one["HostConfig"]["Memory"] > 0
