"""The state folder: whose it is, and what is refused before anything is touched."""

import json
import os
import threading

import pytest

from bluesky_plugins.embedded.folder import StateFolder
from bluesky_plugins.embedded.parts import StackError

VERSIONS = {"kafka": "4.1"}


@pytest.fixture
def folder(tmp_path):
    return StateFolder(tmp_path / "state")


def everything(path):
    return {p: p.read_bytes() if p.is_file() else None for p in path.rglob("*")}


def test_everything_is_for_the_user_alone(folder):
    folder.make(VERSIONS)
    paths = [folder.root, *folder.root.rglob("*")]
    assert {p.stat().st_mode & 0o077 for p in paths} == {0}
    assert folder.key_file.stat().st_mode & 0o777 == 0o600


def test_the_key_is_made_once(folder):
    folder.make(VERSIONS)
    key = folder.key_file.read_text()
    folder.make(VERSIONS)
    assert folder.key_file.read_text() == key
    assert len(key.strip()) >= 32


@pytest.mark.parametrize("found", [{"layout": 1, "kafka": "3.9"}, {"layout": 2, "kafka": "4.1"}])
def test_data_of_another_version_are_refused_and_not_touched(folder, found):
    folder.make(VERSIONS)
    folder.version_file.write_text(json.dumps(found))
    before = everything(folder.root)
    with pytest.raises(StackError, match="another version"):
        folder.check(VERSIONS, 0)
    assert everything(folder.root) == before


def test_data_without_a_version_are_refused(folder):
    folder.data.mkdir(parents=True)
    (folder.data / "kafka").mkdir()
    with pytest.raises(StackError, match="version is not known"):
        folder.check(VERSIONS, 0)


def test_a_full_disk_is_refused_before_anything_is_made(folder):
    with pytest.raises(StackError, match="MB free"):
        folder.check(VERSIONS, minimum_free_mb=10**9)
    assert not folder.root.exists()


def test_a_folder_with_other_things_is_not_taken_over(folder):
    folder.root.mkdir()
    (folder.root / "thesis.tex").touch()
    with pytest.raises(StackError, match=r"other things \(thesis.tex\)"):
        folder.check(VERSIONS, 0)


def test_a_folder_in_which_only_a_producer_has_spooled_is_ours(folder):
    (folder.root / "spool").mkdir(parents=True)
    folder.check(VERSIONS, 0)


def test_wipe_refuses_a_folder_without_our_mark(folder):
    folder.data.mkdir(parents=True)
    (folder.data / "precious").touch()
    with pytest.raises(StackError, match="not a folder of ours"):
        folder.wipe()
    assert (folder.data / "precious").exists()


def test_wipe_removes_what_is_ours_and_nothing_else(folder):
    folder.make(VERSIONS)
    (folder.root / "thesis.tex").touch()
    folder.wipe()
    assert [p.name for p in folder.root.iterdir()] == ["thesis.tex"]


def test_wipe_does_not_follow_a_link_out_of_the_folder(folder, tmp_path):
    folder.make(VERSIONS)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (folder.root / "spool").symlink_to(outside)
    folder.wipe()
    assert (outside / "precious").exists()


def test_a_write_that_fails_leaves_the_old_content(folder, monkeypatch):
    folder.make(VERSIONS)
    folder.write(folder.stack_file, {"version": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        folder.write(folder.stack_file, {"version": 2})
    assert folder.read(folder.stack_file) == {"version": 1}
    assert [p.name for p in folder.root.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_a_damaged_file_is_named(folder, content):
    folder.make(VERSIONS)
    folder.stack_file.write_text(content)
    with pytest.raises(StackError, match=r"stack\.json cannot be read"):
        folder.read(folder.stack_file)


def test_a_second_command_waits_and_says_so(folder):
    told, entered = threading.Event(), threading.Event()

    def second():
        with folder.command_lock(50, told.set):
            entered.set()

    thread = threading.Thread(target=second)
    with folder.command_lock(1, lambda: None):
        thread.start()
        assert told.wait(50)
        assert not entered.is_set()
    thread.join(50)
    assert entered.is_set()


def test_a_second_command_gives_up_when_the_first_does_not_end(folder):
    with (
        folder.command_lock(1, lambda: None),
        pytest.raises(StackError, match="has not ended"),
        folder.command_lock(0.2, lambda: None),
    ):
        pass


# `up`, the queue, the demo and a RunEngine without a stack put these there.
@pytest.mark.parametrize("name", ["queue", "demo", "camera", "spool", "mad-scan_id"])
def test_a_folder_that_held_what_our_processes_keep_serves_again_after_a_wipe(folder, name):
    folder.make(VERSIONS)
    (folder.root / name).mkdir()
    folder.wipe()
    assert not folder.root.exists()


@pytest.mark.parametrize("name", ["queue", "demo", "mad-scan_id"])
def test_what_processes_without_a_stack_keep_does_not_make_a_folder_anothers(folder, name):
    (folder.root / name).mkdir(parents=True)
    folder.check(VERSIONS, 0)
