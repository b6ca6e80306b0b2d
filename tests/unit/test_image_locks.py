"""The images' lock files are parts of requirements.lock, and serve what setup.cfg asks for."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
BUILDERS = ROOT / "image_builders"
LOCKS = sorted(path.name for path in BUILDERS.glob("*.lock"))


def pins(path: Path) -> dict[str, set[str]]:
    """Package -> versions (a lock may have one for each Python)."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", path.read_text(), re.M):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


def profile() -> list[Requirement]:
    """What setup.cfg asks for the image `bluesky`."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    lines = [*config["options"]["install_requires"].split("\n")]
    lines += [*extras["services"].split("\n"), *extras["profile"].split("\n")]
    return [Requirement(line) for line in lines if line.strip() and "%(" not in line]


def test_every_image_with_an_environment_has_its_lock() -> None:
    assert {"bluesky.lock", "caproto.lock", "kafka.lock", "mongo.lock"} <= set(LOCKS)


@pytest.mark.parametrize("name", LOCKS)
def test_image_has_the_versions_of_requirements_lock(name: str) -> None:
    everything = pins(ROOT / "requirements.lock")
    other = {
        package: versions
        for package, versions in pins(BUILDERS / name).items()
        if not versions <= everything.get(package, versions)
    }
    assert other == {}, "bash launchers/lock.sh --images"


@pytest.mark.parametrize("name", ["bluesky.lock", "caproto.lock", "kafka.lock", "mongo.lock"])
def test_image_of_ours_has_nothing_beyond_requirements_lock(name: str) -> None:
    assert set(pins(BUILDERS / name)) <= set(pins(ROOT / "requirements.lock"))


def test_bluesky_image_has_what_setup_cfg_asks_for() -> None:
    locked = pins(BUILDERS / "bluesky.lock")
    unmet = [
        str(requirement)
        for requirement in profile()
        if not any(
            requirement.specifier.contains(version)
            for version in locked.get(canonicalize_name(requirement.name), ())
        )
    ]
    assert unmet == [], "bash launchers/lock.sh"


@pytest.mark.parametrize("name", LOCKS)
def test_lock_names_no_host(name: str) -> None:
    assert "://" not in (BUILDERS / name).read_text()
