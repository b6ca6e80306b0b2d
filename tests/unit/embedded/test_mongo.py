"""Which commands are committed before they are answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from bluesky_plugins.embedded.mongo import _reads, mongo_command


@pytest.mark.parametrize("name", ["find", "getMore", "count", "isMaster", "hello", "ping"])
def test_reading_is_not_committed(name):
    assert _reads(name, {})


@pytest.mark.parametrize(
    "name",
    ["insert", "update", "delete", "findAndModify", "createIndexes", "drop", "dropDatabase", "new"],
)
def test_writing_and_unknown_commands_are_committed(name):
    assert not _reads(name, {})


@pytest.mark.parametrize(
    ("pipeline", "reads"),
    [([{"$match": {}}], True), ([{"$out": "x"}], False), ([{"$merge": {"into": "x"}}], False)],
)
def test_aggregation_is_committed_when_it_writes(pipeline, reads):
    assert _reads("aggregate", {"pipeline": pipeline}) is reads


def test_working_directory_decides_nothing_that_is_imported():
    assert "-P" in mongo_command(Path("/m"), port=1)
