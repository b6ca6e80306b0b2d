"""Kafka's files and what is refused as its data folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_plugins.embedded.kafka import (
    KAFKA_VERSION,
    DataFolderError,
    _escaped,
    _read_properties,
    check_data,
    kafka_command,
    server_properties,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    mark = {"server": "kafka", "version": KAFKA_VERSION}
    (folder / "bluesky-plugins.json").write_text(json.dumps(mark))
    (folder / "meta.properties").write_text("#\nversion=1\nnode.id=1\ncluster.id=abc\n")
    return folder


def test_nothing_listens_beyond_loopback():
    values = server_properties(1, 2, Path("/data"))
    places = values["listeners"].split(",") + values["advertised.listeners"].split(",")
    assert {place.split("//")[1].split(":")[0] for place in places} == {"127.0.0.1"}


def test_path_with_a_comma_is_refused():
    with pytest.raises(DataFolderError, match="comma"):
        server_properties(1, 2, Path("/a,b"))


@given(st.text(st.characters(codec="utf-8")))
def test_escaped_value_is_ascii_and_reads_back(text):
    # Java's escapes are a subset of Python's, but for surrogate pairs.
    escaped = _escaped(text).replace("\\ ", " ")
    raw = escaped.encode("ascii").decode("unicode_escape")
    assert raw.encode("utf-16", "surrogatepass").decode("utf-16") == text


def test_comments_of_properties_are_no_values():
    assert _read_properties("#Fri Nov=1\nversion=1\n\nnode.id = 2\n") == {
        "version": "1",
        "node.id": "2",
    }


def test_own_data_are_taken(data):
    check_data(data)


def test_data_of_another_version_are_refused(data):
    (data / "bluesky-plugins.json").write_text('{"server": "kafka", "version": "3.9.0"}')
    with pytest.raises(DataFolderError, match=r"3\.9\.0.*4\.1\.1.*another folder"):
        check_data(data)


def test_data_of_a_foreign_broker_are_refused(data):
    (data / "bluesky-plugins.json").unlink()
    with pytest.raises(DataFolderError, match="not made by bluesky-plugins"):
        check_data(data)


@pytest.mark.parametrize("meta", ["version=0\nnode.id=1\ncluster.id=a", "version=1\nnode.id=7\n"])
def test_meta_of_another_node_or_layout_is_refused(data, meta):
    (data / "meta.properties").write_text(meta)
    with pytest.raises(DataFolderError, match=r"meta\.properties is of version"):
        check_data(data)


def test_lost_meta_is_refused(data):
    (data / "meta.properties").unlink()
    with pytest.raises(DataFolderError, match=r"meta\.properties is gone"):
        check_data(data)


def test_damaged_mark_is_refused(data):
    (data / "bluesky-plugins.json").write_text("{")
    with pytest.raises(DataFolderError, match="cannot be read"):
        check_data(data)


def test_emptied_folder_is_not_silently_a_new_one(tmp_path):
    with pytest.raises(DataFolderError, match="is empty"):
        check_data(tmp_path)


def test_heap_is_the_one_that_was_asked_for():
    assert "-Xmx300m" in kafka_command(Path("/k"), [Path("/a.jar")], heap_mb=300)
