"""The services and doors: recorder, recommender, echo, bsui."""

from __future__ import annotations

import logging
import sys

import click
import structlog

from bluesky_plugins.cli.options import section_options
from bluesky_plugins.settings import load_settings

__all__ = ["bsui", "echo", "recommender", "recorder"]


def _log_as_json() -> None:
    """One JSON object a line on stderr; stdout has the ready line alone."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    # It tells of every channel of a connection, several lines for each command.
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@click.command()
@section_options("recording")
def recorder() -> None:
    """Write the documents that travel over Kafka into MongoDB."""
    from bluesky_plugins.recording import serve_recorder

    _log_as_json()
    sys.exit(serve_recorder(load_settings()))


@click.command()
@section_options("adaptive")
@section_options("processing", "recipes")
@section_options("http", "host", "recommender_port", "api_key_file")
def recommender() -> None:
    """Answer adaptive plans: decide where each batch measures next. Process what is over."""
    from bluesky_plugins.adaptive import serve_recommender
    from bluesky_plugins.cli.recorded_runs import RecordedRuns
    from bluesky_plugins.processing import Processor

    _log_as_json()
    settings = load_settings()
    processor = Processor(settings, RecordedRuns(settings))
    sys.exit(serve_recommender(settings, processor=processor))


@click.command()
@click.argument("topics", nargs=-1)
@click.option("--from-beginning", is_flag=True, help="Also what was sent before.")
@click.option("--full", is_flag=True, help="The whole document, not one line.")
@section_options("kafka", "bootstrap_servers")
def echo(topics: tuple[str, ...], from_beginning: bool, full: bool) -> None:
    """Print documents as they travel over Kafka (topics: `documents` unless named)."""
    from bluesky_plugins.callbacks import echo_lines
    from bluesky_plugins.messaging import MessagingError

    settings = load_settings()
    try:
        for line in echo_lines(
            settings, topics=topics or ("documents",), from_beginning=from_beginning, full=full
        ):
            click.echo(line)
    except MessagingError as error:
        click.echo(f"bluesky-plugins echo: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


@click.command()
@click.option("--headless", is_flag=True, help="No graphics; commands may come from a pipe.")
def bsui(headless: bool) -> None:
    """IPython with a RunEngine, the devices, the plans and `db`."""
    from bluesky_plugins.profile import run_bsui

    sys.exit(run_bsui(load_settings(), headless=headless))
