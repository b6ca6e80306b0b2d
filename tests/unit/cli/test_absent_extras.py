"""The command where the extras are not installed."""

from __future__ import annotations

import sys

import click
import pytest
from click.testing import CliRunner

from bluesky_plugins.cli import cli


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `structlog` were not installed, nor the module that needs it imported."""
    monkeypatch.delitem(sys.modules, "bluesky_plugins.cli.services", raising=False)
    monkeypatch.setitem(sys.modules, "structlog", None)


@pytest.mark.usefixtures("bare")
def test_command_that_lacks_its_extra_says_which_to_install() -> None:
    done = CliRunner().invoke(cli, ["recorder", "--bulk-size", "3"])
    assert done.exit_code == 2
    assert "needs structlog; install bluesky-plugins[all]" in click.unstyle(done.output)


@pytest.mark.usefixtures("bare")
def test_help_lists_what_is_there_and_what_is_not() -> None:
    done = CliRunner().invoke(cli, ["--help"])
    assert done.exit_code == 0
    assert "needs structlog" in done.output
    assert "batches" in done.output
