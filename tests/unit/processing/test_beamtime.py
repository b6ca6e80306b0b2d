"""What a beamtime's metadata file says, and what is said when it does not."""

from __future__ import annotations

import json
import stat
from typing import Any

import pytest

from bluesky_plugins.processing.model import Resources
from bluesky_plugins.processing.recipes.beamtime import (
    BeamtimeError,
    BeamtimeKind,
    at_beamtime,
    chosen_file,
    key_fault,
    read_beamtime,
    session_folders,
)
from bluesky_plugins.processing.recipes.paths import PathMapper, PathRule
from bluesky_plugins.processing.recipes.placing import Target, merged

ONLINE = {
    "userAccount": "bttest03",
    "sshPrivateKeyPath": "shared/bttest03.key",
    "sshPublicKeyPath": "shared/bttest03.pub",
    "reservedNodes": ["max-p99-01.example.org", "max-p99-02"],
    "slurmPartition": "ponline",
    "slurmReservation": "ponline_1",
}
USER: dict[str, Any] = {
    "beamline": "p99",
    "beamtimeId": "11012345",
    "corePath": "/asap3/petra3/gpfs/p99/2024/data/11012345",
    "title": "something of the facility",
    "onlineAnalysis": ONLINE,
}
COMMISSIONING = {
    "beamline": "p99",
    "id": "c20240101_000_test",
    "corePath": "/asap3/petra3/gpfs/p99/2024/commissioning/c20240101_000_test",
}


def read(document: Any, folder: str = "/gpfs/current") -> Any:
    return read_beamtime(json.dumps(document), folder)


def fault(document: Any) -> str:
    with pytest.raises(BeamtimeError) as caught:
        read(document)
    return str(caught.value)


def test_a_user_s_beamtime() -> None:
    beamtime = read(USER)
    online = beamtime.reserved()
    assert (beamtime.kind, beamtime.beamtime) == (BeamtimeKind.USER, "11012345")
    assert online.account == "bttest03"
    assert online.key == "/gpfs/current/shared/bttest03.key"
    assert online.nodes == ("max-p99-01.example.org", "max-p99-02")
    assert (online.partition, online.reservation) == ("ponline", "ponline_1")


def test_a_commissioning_run() -> None:
    beamtime = read({**COMMISSIONING, "onlineAnalysis": ONLINE}, "/gpfs/commissioning")
    assert beamtime.kind is BeamtimeKind.COMMISSIONING
    assert beamtime.reserved().account == "bttest03"


def test_an_id_that_is_a_number_is_an_id() -> None:
    assert read({**USER, "beamtimeId": 11012345}).beamtime == "11012345"


@pytest.mark.parametrize(
    "online",
    [None, {**ONLINE, "reservedNodes": []}, {**ONLINE, "slurmReservation": ""}],
)
def test_without_a_reservation_a_user_is_told_how_to_get_one(online: Any) -> None:
    beamtime = read({**USER, "onlineAnalysis": online})
    with pytest.raises(BeamtimeError, match=r"beamtime 11012345 .* startBeamtime \.\.\. --online"):
        beamtime.reserved()


def test_without_a_reservation_commissioning_is_told_how_to_get_one() -> None:
    with pytest.raises(BeamtimeError, match=r"startComissioning \.\.\. --online"):
        read(COMMISSIONING).reserved()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"beamline": None}, "beamline: None: input should be a valid string"),
        ({"beamline": "../p99"}, "beamline: '../p99': string should match"),
        ({"corePath": "relative"}, "corePath: 'relative': string should match"),
        ({"beamtimeId": None}, "neither a beamtimeId nor an id"),
        (
            {"onlineAnalysis": {**ONLINE, "userAccount": "-oProxyCommand=id"}},
            "onlineAnalysis.userAccount: '-oProxyCommand=id'",
        ),
        (
            {"onlineAnalysis": {**ONLINE, "reservedNodes": ["-oProxyCommand=id"]}},
            "is no host name",
        ),
        (
            {"onlineAnalysis": {**ONLINE, "slurmPartition": "--uid=0"}},
            "onlineAnalysis.slurmPartition: '--uid=0'",
        ),
        ({"onlineAnalysis": {"userAccount": "x"}}, "onlineAnalysis.sshPrivateKeyPath: is missing"),
        ({"onlineAnalysis": 3}, "onlineAnalysis: 3: a mapping is expected"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(changes: dict[str, Any], expected: str) -> None:
    assert expected in fault({**USER, **changes})


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "[" * 100_000, '{"a": 1}'])
def test_what_is_no_metadata_is_said(text: str) -> None:
    with pytest.raises(BeamtimeError, match="the beamtime's metadata"):
        read_beamtime(text, "/gpfs/current")


TARGET = Target(name="maxwell", resources=Resources(partition="all", memory_mb=1000))
GPU = {**USER, "onlineAnalysis": {**ONLINE, "slurmGpus": 1, "slurmFeatures": "V100"}}


def test_what_is_reserved_stands_before_the_target_s_resources_and_behind_the_recipe_s() -> None:
    found = at_beamtime(TARGET, read(GPU), "scratch_cc/jobs").resources
    assert found == Resources(
        partition="ponline",
        reservation="ponline_1",
        gpus=1,
        features=("V100",),
        memory_mb=1000,
    )
    asked = Resources(partition="gpu", gpus=2)
    assert merged(asked, found) == found.model_copy(update={"partition": "gpu", "gpus": 2})


def test_the_account_its_key_and_its_folder_come_from_the_file() -> None:
    placed = at_beamtime(TARGET, read(USER), "scratch_cc/jobs")
    assert placed.login is not None
    assert placed.login.model_dump() == {
        "host": "max-p99-01.example.org",
        "user": "bttest03",
        "key": "/gpfs/current/shared/bttest03.key",
        "work_dir": "/asap3/petra3/gpfs/p99/2024/data/11012345/scratch_cc/jobs",
    }


def test_the_story_says_what_came_from_the_file() -> None:
    assert at_beamtime(TARGET, read(GPU), "jobs").note == (
        "beamtime 11012345 at p99 (/gpfs/current) gives account bttest03, "
        "node max-p99-01.example.org, partition ponline, reservation ponline_1, gpus 1, "
        "features V100"
    )


def test_a_beamtime_that_reserved_nothing_has_no_place() -> None:
    with pytest.raises(BeamtimeError, match="startComissioning"):
        at_beamtime(TARGET, read(COMMISSIONING), "jobs")


def test_a_target_whose_own_paths_contradict_the_beamtime_s_is_refused() -> None:
    own = PathRule(local="/elsewhere", remote="/asap3/petra3/gpfs/p99/2024/data/11012345/raw")
    with pytest.raises(BeamtimeError, match=r"the paths of target maxwell: .* would both be"):
        at_beamtime(TARGET.model_copy(update={"paths": (own,)}), read(USER), "jobs")


def test_data_are_read_from_the_core_and_results_written_to_the_beamline() -> None:
    mapper = PathMapper(read(USER).path_rules())
    raw, result = "/gpfs/current/raw/s1/f.h5", "/gpfs/current/processed/s1/r.h5"
    core = "/asap3/petra3/gpfs/p99/2024/data/11012345"
    assert mapper.map(raw).path == f"{core}/raw/s1/f.h5"  # type: ignore[union-attr]
    mapped = mapper.map(result)
    assert mapped is not None
    assert mapped.path == "/beamline/p99/current/processed/s1/r.h5"
    assert mapper.map(result, "core").path == f"{core}/processed/s1/r.h5"  # type: ignore[union-attr]


# ---- where it is


@pytest.mark.parametrize(
    ("path", "folders"),
    [
        (None, ("/gpfs/current", "/gpfs/commissioning")),
        ("/gpfs/current/raw/f.h5", ("/gpfs/current",)),
        ("/gpfs/commissioning/raw/f.h5", ("/gpfs/commissioning",)),
        ("//gpfs//current/raw", ("/gpfs/current",)),
        (
            "/asap3/petra3/gpfs/p99/2024/data/11012345/raw/f.h5",
            ("/asap3/petra3/gpfs/p99/2024/data/11012345",),
        ),
        (
            "/asap3/petra3/gpfs/p99/2024/commissioning/c1",
            ("/asap3/petra3/gpfs/p99/2024/commissioning/c1",),
        ),
    ],
)
def test_the_folder_follows_from_the_path_of_the_data(
    path: str | None, folders: tuple[str, ...]
) -> None:
    assert session_folders(path) == folders


@pytest.mark.parametrize(
    "path", ["/gpfs/local/f", "/home/x", "relative", "/gpfs/current/../local", "/gpfs/currently/f"]
)
def test_a_path_of_no_beamtime_is_refused(path: str) -> None:
    with pytest.raises(BeamtimeError, match=path):
        session_folders(path)


def test_exactly_one_metadata_file_is_taken() -> None:
    names = ["raw", "beamtime-metadata-1.json", "metadata.txt"]
    assert chosen_file("/gpfs/current", names) == "/gpfs/current/beamtime-metadata-1.json"
    with pytest.raises(BeamtimeError, match=r"startBeamtime .*startComissioning"):
        chosen_file("/gpfs/current", ["raw"])
    with pytest.raises(BeamtimeError, match=r"a-metadata\.json, b-metadata\.json"):
        chosen_file("/gpfs/current", ["b-metadata.json", "a-metadata.json"])


@pytest.mark.parametrize(
    ("mode", "owner", "expected"),
    [
        (0o600, 1000, None),
        (0o400, 0, None),
        (0o640, 1000, "others may read or write it (0640); chmod it to 0600"),
        (0o602, 1000, "(0602)"),
        (0o600, 1001, "it belongs to another user (1001)"),
    ],
)
def test_a_key_that_others_can_read_is_refused(mode: int, owner: int, expected: str | None) -> None:
    fault_of_it = key_fault(stat.S_IFREG | mode, owner, 1000)
    assert fault_of_it is None if expected is None else expected in str(fault_of_it)


def test_a_key_that_is_no_file_is_refused() -> None:
    assert key_fault(stat.S_IFDIR | 0o600, 1000, 1000) == "it is no file"
