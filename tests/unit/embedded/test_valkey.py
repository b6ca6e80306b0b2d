"""Valkey's configuration."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bluesky_plugins.embedded.valkey import _quoted, prepare_valkey, valkey_configuration


def test_only_loopback_is_bound():
    lines = valkey_configuration(1, Path("/d")).splitlines()
    assert [line for line in lines if line.startswith("bind")] == ["bind 127.0.0.1"]


def test_every_write_is_kept():
    assert "appendonly yes" in valkey_configuration(1, Path("/d")).splitlines()


def test_password_is_nowhere_but_in_a_private_file(tmp_path):
    argv = prepare_valkey(tmp_path, port=1, password="s3cret")
    assert "s3cret" not in " ".join(argv)
    assert stat.S_IMODE((tmp_path / "valkey.conf").stat().st_mode) == 0o600


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nrequirepass x", "ü"])
def test_quoted_value_cannot_leave_its_quotes(value):
    inner = _quoted(value)[1:-1]
    assert inner.isascii()
    assert '"' not in inner
    assert "\n" not in inner
