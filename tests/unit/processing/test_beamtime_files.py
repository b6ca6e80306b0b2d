"""The beamtime's metadata on a small tree of folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bluesky_plugins.processing.recipes.beamtime import BeamtimeError, BeamtimeKind
from bluesky_plugins.processing.recipes.placing import Target
from bluesky_plugins.processing.targets.beamtime_files import (
    checked_key,
    find_beamtime,
    target_at_beamtime,
)


def metadata(**changes: Any) -> str:
    online = {
        "userAccount": "bttest03",
        "sshPrivateKeyPath": "shared/key",
        "reservedNodes": ["node1"],
        "slurmPartition": "ponline",
        "slurmReservation": "res",
    }
    return json.dumps({"beamline": "p99", "corePath": "/core", "onlineAnalysis": online, **changes})


@pytest.fixture
def gpfs(tmp_path: Path) -> Path:
    current = tmp_path / "current"
    (current / "raw").mkdir(parents=True)
    (current / "shared").mkdir()
    (current / "beamtime-metadata-1.json").write_text(metadata(beamtimeId="1"))
    key = current / "shared" / "key"
    key.write_text("a secret")
    key.chmod(0o600)
    return tmp_path


def test_the_active_beamtime_is_found(gpfs: Path) -> None:
    assert find_beamtime(root=str(gpfs)).beamtime == "1"


def test_the_beamtime_of_a_data_path_is_found(gpfs: Path) -> None:
    (gpfs / "commissioning").mkdir()
    (gpfs / "commissioning" / "commissioning-metadata-c1.json").write_text(metadata(id="c1"))
    found = find_beamtime(str(gpfs / "commissioning" / "raw" / "f.h5"), str(gpfs))
    assert (found.kind, found.beamtime) == (BeamtimeKind.COMMISSIONING, "c1")
    assert find_beamtime(str(gpfs / "current" / "raw" / "f.h5"), str(gpfs)).beamtime == "1"


def test_without_a_user_s_beamtime_commissioning_is_active(tmp_path: Path) -> None:
    (tmp_path / "commissioning").mkdir()
    (tmp_path / "commissioning" / "metadata.json").write_text(metadata(id="c1"))
    assert find_beamtime(root=str(tmp_path)).kind is BeamtimeKind.COMMISSIONING


def test_without_any_beamtime_the_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(BeamtimeError, match="no beamtime is active: there is no folder"):
        find_beamtime(root=str(tmp_path))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"x" * 1_000_001])
def test_a_file_that_cannot_be_used_is_said(gpfs: Path, content: bytes) -> None:
    (gpfs / "current" / "beamtime-metadata-1.json").write_bytes(content)
    with pytest.raises(BeamtimeError):
        find_beamtime(root=str(gpfs))


def test_the_key_is_taken_when_it_is_ours_alone(gpfs: Path) -> None:
    assert checked_key(find_beamtime(root=str(gpfs))) == gpfs / "current" / "shared" / "key"


def test_a_key_that_others_may_read_is_refused_and_not_shown(gpfs: Path) -> None:
    (gpfs / "current" / "shared" / "key").chmod(0o644)
    with pytest.raises(BeamtimeError, match="others may read") as caught:
        checked_key(find_beamtime(root=str(gpfs)))
    assert "a secret" not in str(caught.value)


def test_a_key_that_is_not_there_is_said(gpfs: Path) -> None:
    (gpfs / "current" / "shared" / "key").unlink()
    with pytest.raises(BeamtimeError, match="No such file"):
        checked_key(find_beamtime(root=str(gpfs)))


@pytest.mark.parametrize("files", [[], ["current/raw/f.h5"], ["elsewhere/x", "current/raw/f.h5"]])
def test_a_target_takes_the_account_of_the_beamtime_of_its_files(
    gpfs: Path, files: list[str]
) -> None:
    paths = [str(gpfs / file) for file in files]
    placed = target_at_beamtime(Target(name="t"), str(gpfs), "jobs", paths)
    assert placed.fault == ""
    assert placed.login is not None
    assert (placed.login.user, placed.login.key) == ("bttest03", str(gpfs / "current/shared/key"))


def test_a_key_that_others_may_read_is_a_fault_of_the_place_and_gives_no_account(
    gpfs: Path,
) -> None:
    (gpfs / "current" / "shared" / "key").chmod(0o640)
    placed = target_at_beamtime(Target(name="t"), str(gpfs), "jobs", [])
    assert placed.login is None
    assert placed.fault.endswith("others may read or write it (0640); chmod it to 0600")


def test_without_reserved_nodes_the_fault_says_how_to_get_some(gpfs: Path) -> None:
    bare = metadata(beamtimeId="1", onlineAnalysis=None)
    (gpfs / "current" / "beamtime-metadata-1.json").write_text(bare)
    fault = target_at_beamtime(Target(name="t"), str(gpfs), "jobs", []).fault
    assert "startBeamtime ... --online" in fault
