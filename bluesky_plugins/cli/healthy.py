"""`healthy`: is this service alive? For the liveness probes of pods."""

from __future__ import annotations

import sys

import click

from bluesky_plugins.cli import liveness
from bluesky_plugins.cli.options import section_options
from bluesky_plugins.settings import load_settings

__all__ = ["healthy"]

timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="How long an answer may take, s.",
)


def _end(name: str, found: liveness.Liveness) -> None:
    click.echo(f"{name} {'is alive' if found.alive else 'is NOT alive'}: {found.detail}")
    sys.exit(0 if found.alive else 1)


@click.group()
def healthy() -> None:
    """Say whether a service here is alive; exit status 0 or 1.

    The service itself is asked; a server that it waits for does not make it dead.
    """


@healthy.command()
@click.option(
    "--limit",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="The oldest sign of life that is taken, s.",
)
@section_options("recording", "group_id", "instance")
def recorder(limit: float) -> None:
    """The recorder of this group and instance: the sign of life that its loop leaves."""
    _end("recorder", liveness.recorder_alive(load_settings(), limit))


@healthy.command()
@timeout_option
def recommender(timeout: float) -> None:
    """The recommender: what its HTTP server says of its loop."""
    _end("recommender", liveness.recommender_alive(load_settings(), timeout))


@healthy.command()
@timeout_option
def queueserver(timeout: float) -> None:
    """The queue's manager: its status over 0MQ."""
    _end("queueserver", liveness.queueserver_alive(load_settings(), timeout))


@healthy.command()
@timeout_option
def httpserver(timeout: float) -> None:
    """The queue's HTTP server: its status, for the key."""
    _end("httpserver", liveness.httpserver_alive(load_settings(), timeout))


@healthy.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Channel Access port of the IOCs.")
@timeout_option
@section_options("iocs", "prefix")
def iocs(port: int | None, timeout: float) -> None:
    """The IOCs at a port: a PV is read over Channel Access."""
    settings = load_settings()
    _end("iocs", liveness.iocs_alive(settings, port or settings.iocs.ca_server_port, timeout / 2))
