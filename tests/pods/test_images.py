"""Images: what is in them, who runs in them, and that they are not built twice."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.pods.beamline import DEADLINE, ROOT, Podman, until

pytestmark = [pytest.mark.pods, pytest.mark.timeout(900, func_only=True)]

IMAGES = (
    "bluesky-base", "bluesky", "caproto", "compute", "databroker-server", "jupyter", "kafka",
    "mongo", "nginx", "redis", "typhos",
)  # fmt: skip
# Image -> the lock files that its /opt/venv is made from.
LOCKS = {
    "bluesky": ("bluesky", "qt"),
    "caproto": ("caproto",),
    "databroker-server": ("bluesky", "qt"),
    "jupyter": ("bluesky", "qt", "jupyter"),
    "kafka": ("kafka",),
    "typhos": ("bluesky", "qt", "typhos"),
}
TITLES = ("title", "description", "version", "revision", "licenses")
PASSWORD = "a-password-of-the-tests"


@pytest.fixture(scope="module", autouse=True)
def _built(images: None) -> None:
    """All images are there."""


@dataclass
class Box:
    """A running container of an image."""

    podman: Podman
    name: str

    def __call__(self, *command: str) -> str:
        return self.podman("exec", self.name, *command).strip()

    def healthy(self) -> bool:
        return self.podman.try_("healthcheck", "run", self.name).returncode == 0

    def told(self) -> str:
        done = self.podman.try_("logs", self.name)
        return done.stdout + done.stderr


@pytest.fixture
def run(podman: Podman, tmp_path: Path) -> Iterator[Any]:
    """run(IMAGE, podman's options..., command=...): a container with secrets, for one test."""
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    for name in ("redis_password", "mongo_password"):
        (secrets / name).write_text(PASSWORD)
        (secrets / name).chmod(0o400)
        os.chown(secrets / name, 1000, 1000)
    os.chown(secrets, 1000, 1000)
    boxes: list[Box] = []

    def start(image: str, *options: str, command: tuple[str, ...] = ()) -> Box:
        name = f"test-images-{image}-{uuid4().hex[:8]}"
        boxes.append(Box(podman, name))
        where = f"{secrets}:/run/bluesky-plugins/secrets:ro"
        podman(
            "run", "--detach", "--name", name, "--network", "none", "--volume", where,
            *options, f"localhost/{image}", *command,
        )  # fmt: skip
        return boxes[-1]

    yield start
    for box in boxes:
        podman("rm", "--force", "--volumes", "--time", "5", box.name)


@pytest.fixture(scope="module")
def inspected(podman: Podman) -> dict[str, Any]:
    """What podman tells of each image."""
    told = json.loads(podman("image", "inspect", *(f"localhost/{name}" for name in IMAGES)))
    return dict(zip(IMAGES, told, strict=True))


def pins(*locks: str) -> set[tuple[str, str]]:
    """(package, version) of lock files; one that depends on the Python is there more than once."""
    found = set()
    for lock in locks:
        text = (ROOT / "image_builders" / f"{lock}.lock").read_text()
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.M):
            found.add((re.sub(r"[._-]+", "-", name).lower(), version))
    return found


# -- all images ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
def test_image_says_what_it_is_and_from_what_it_was_built(
    inspected: dict[str, Any], name: str
) -> None:
    labels = inspected[name]["Labels"]
    assert all(labels[f"org.opencontainers.image.{title}"] for title in TITLES)
    assert re.fullmatch("[0-9a-f]{64}", labels["io.bluesky-plugins.inputs"])


@pytest.mark.parametrize("name", IMAGES)
def test_image_runs_as_an_ordinary_user_below_catatonit(
    inspected: dict[str, Any], name: str
) -> None:
    config = inspected[name]["Config"]
    user = "beamline" if name == "compute" else "bluesky"
    assert (config["User"], config["Entrypoint"]) == (user, ["catatonit", "--"])


@pytest.mark.parametrize("name", IMAGES)
def test_image_holds_nothing_of_the_machine_that_built_it(podman: Podman, name: str) -> None:
    look = (
        "id -u; id -g; ls -A /run/bluesky-plugins/secrets; ls -d /run/bp* /tmp/* /root/.cache"
        " /var/lib/apt/lists/*Packages* /var/cache/apt/archives/*.deb 2>/dev/null;"
        " env | grep -E '^(SSL_CERT|PIP_|UV_|http_proxy|https_proxy)' || true"
    )
    said = podman("run", "--rm", "--http-proxy=false", "--network", "none", f"localhost/{name}",
                  "sh", "-c", look)  # fmt: skip
    assert said.split() == ["1000", "1000"]


def test_mongo_image_says_which_server_it_is(inspected: dict[str, Any]) -> None:
    label = inspected["mongo"]["Labels"]["io.bluesky-plugins.mongo"]
    assert label in ("mongodb", "mongo-java-server")


@pytest.mark.parametrize("name", LOCKS)
def test_environment_of_an_image_is_what_its_locks_name(podman: Podman, name: str) -> None:
    listing = (
        "import importlib.metadata as m, json, re;"
        "print(json.dumps({re.sub('[._-]+', '-', d.name).lower(): d.version"
        " for d in m.distributions(path=['/opt/venv/lib/python3.11/site-packages'])}))"
    )
    there = json.loads(
        podman("run", "--rm", "--network", "none", f"localhost/{name}", "python", "-c", listing)
    )
    there.pop("bluesky-plugins", None)
    assert there
    assert set(there.items()) - pins(*LOCKS[name]) == set()


@pytest.mark.parametrize("name", ["bluesky", "compute"])
def test_program_of_a_job_has_an_environment_of_its_own(podman: Podman, name: str) -> None:
    listing = (
        "import importlib.metadata as m, subprocess;"
        "print(*(f'{d.name.lower()}=={d.version}' for d in m.distributions()));"
        "subprocess.run(['/opt/focus/bin/reduce-focus', '--help'], check=True,"
        " stdout=subprocess.DEVNULL)"
    )
    said = podman(
        "run", "--rm", "--network", "none", f"localhost/{name}",
        "/opt/focus/bin/python", "-I", "-c", listing,
    )  # fmt: skip
    there = {tuple(one.split("==")) for one in said.split()}
    assert {name for name, _ in there} == {name for name, _ in pins("focus")}
    assert there - pins("focus") == set()


# -- building -----------------------------------------------------------------------------------


def test_second_build_finds_everything_unchanged(podman: Podman) -> None:
    done = podman.script("image_builders/build_all.sh")
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert done.returncode == 0, done.stderr
    assert len(lines) == len(IMAGES)
    assert all(": cached, " in line for line in lines), done.stdout


def build(podman: Podman, script: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(script)],
        env={**podman.environment, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def a_script(folder: Path, text: str) -> Path:
    """A build script of the test's own."""
    preamble = ROOT / "image_builders" / "preamble.sh"
    path = folder / "build_trial_image.sh"
    path.write_text(f"# trial\nset -euo pipefail\nsource {preamble}\n{text}")
    return path


def test_missing_parent_is_named_with_the_script_that_builds_it(
    podman: Podman, tmp_path: Path
) -> None:
    script = a_script(tmp_path, "bp_image trial-image Trial Trial\nbp_from not-there\nbp_commit\n")
    done = build(podman, script)
    assert done.returncode == 1
    assert "image localhost/not-there is missing, trial-image is made from it" in done.stderr
    assert "bash image_builders/build_not_there_image.sh" in done.stderr


def test_failed_build_leaves_no_image_and_no_working_container(
    podman: Podman, tmp_path: Path
) -> None:
    text = "bp_image trial-image Trial Trial\nbp_from bluesky-base\nbp_run -- false\nbp_commit\n"
    done = build(podman, a_script(tmp_path, text), TMPDIR=str(tmp_path))
    assert done.returncode != 0
    assert podman.try_("image", "exists", "localhost/trial-image").returncode == 1
    assert "trial-image" not in podman("ps", "--all", "--external", "--format", "{{.Names}}")
    assert not list(tmp_path.glob("bp-build.*"))


def test_base_that_nothing_can_make_says_what_would(podman: Podman, tmp_path: Path) -> None:
    # No registry, and a mirror of Debian that does not answer.
    script = ROOT / "image_builders" / "build_bluesky_base_image.sh"
    storage = tmp_path / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\n'
        f'graphroot = "{tmp_path}/store"\nrunroot = "{tmp_path}/run"\n'
    )
    done = build(
        podman,
        script,
        BP_REGISTRY="none",
        BP_DEBIAN_MIRROR="http://127.0.0.1:9/debian",
        CONTAINERS_STORAGE_CONF=str(storage),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert done.returncode == 1
    assert "debootstrap could not make Debian bookworm" in done.stderr
    assert "BP_DEBIAN_MIRROR" in done.stderr


def test_build_all_shows_which_image_failed_and_its_last_lines(
    podman: Podman, tmp_path: Path
) -> None:
    copy = tmp_path / "repository"
    for name in ("image_builders", "launchers"):
        (copy / name).mkdir(parents=True)
    for name in ("image_builders/build_all.sh", "launchers/podman.sh"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    broken = copy / "image_builders" / "build_bluesky_base_image.sh"
    broken.write_text("echo this is why >&2\nexit 3\n")
    done = build(
        podman, copy / "image_builders" / "build_all.sh", XDG_CACHE_HOME=str(tmp_path / "cache")
    )
    assert done.returncode == 1
    assert "bluesky-base FAILED" in done.stderr
    assert "this is why" in done.stderr


# -- the servers ----------------------------------------------------------------------------------


def test_kafka_answers_its_probe_and_keeps_its_cluster_over_a_kill(
    podman: Podman, run: Any
) -> None:
    box = run("kafka", "--volume", "/var/lib/kafka")
    until(box.healthy, "answer of Kafka")
    before = box("cat", "/var/lib/kafka/data/meta.properties")
    podman("kill", "--signal", "KILL", box.name)
    podman("wait", box.name)
    podman("start", box.name)
    until(box.healthy, "answer of Kafka after a kill")
    assert box("cat", "/var/lib/kafka/data/meta.properties") == before


def test_kafka_refuses_logs_that_have_lost_their_identity(run: Any) -> None:
    box = run("kafka", command=("sh", "-c", "mkdir -p /var/lib/kafka/data/t-0 && start-kafka"))
    until(lambda: "has files but no meta.properties" in box.told(), "refusal by Kafka")


def test_mongo_answers_its_probe(run: Any) -> None:
    until(run("mongo").healthy, "answer of MongoDB")


def test_redis_answers_only_to_its_password_and_shows_it_to_nobody(run: Any) -> None:
    box = run("redis")
    until(box.healthy, "answer of Redis")
    assert "NOAUTH" in box("redis-cli", "ping")
    arguments = box("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "redis-server" in arguments
    assert PASSWORD not in arguments + box.told()


def test_redis_without_a_password_says_where_to_put_it(run: Any, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "redis_password").unlink()
    box = run("redis")
    until(lambda: "/run/bluesky-plugins/secrets/redis_password" in box.told(), "reason of Redis")


def test_sshd_without_keys_says_where_to_put_them(run: Any) -> None:
    box = run("compute", command=("start-sshd",))
    until(lambda: "/run/bluesky-plugins/secrets/ssh_host" in box.told(), "reason of sshd")


def test_nginx_serves_as_an_ordinary_user(run: Any) -> None:
    box = run("nginx", "--read-only")

    def page() -> str:
        done = box.podman.try_("exec", box.name, "curl", "-fsS", "http://127.0.0.1:8080/")
        return done.stdout if done.returncode == 0 else ""

    assert "nginx answers" in until(page, "page of nginx")


def test_simulated_hardware_answers_its_probe(run: Any) -> None:
    box = run("caproto", "--env", "BLUESKY_PLUGINS_STATE_DIR=/tmp/state")
    until(box.healthy, "answer of the IOCs")
