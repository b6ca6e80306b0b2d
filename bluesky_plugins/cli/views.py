"""Views of what is kept: batches and runs. `--json` on every view."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bluesky_plugins.settings import Settings, load_settings

__all__ = [
    "as_text",
    "as_time",
    "batches",
    "fail",
    "json_option",
    "limit_option",
    "runs",
    "show_json",
    "show_table",
]

json_option = click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many."
)


def show_table(rows: list[dict[str, Any]], columns: dict[str, Callable[[Any], str]]) -> None:
    """Print a table; column -> how its values are written."""
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(form(row.get(column)) for column, form in columns.items()))
    # Wide enough for whole uids where nobody looks at a terminal of some width.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def as_text(value: Any) -> str:
    """A value, or nothing."""
    return "" if value is None else str(value)


def as_time(value: Any) -> str:
    """Seconds since the epoch in the time of this place."""
    return datetime.fromtimestamp(value).strftime("%Y-%m-%d %H:%M:%S") if value else ""


def show_json(data: Any) -> None:
    """Print data as one line of JSON."""
    click.echo(json.dumps(data, default=str))


def fail(message: str, status: int = 1) -> None:
    """End the command, and say why."""
    click.echo(f"bluesky-plugins: {message}", err=True)
    sys.exit(status)


@contextmanager
def _mongo_answers(settings: Settings) -> Iterator[None]:
    from pymongo.errors import PyMongoError

    try:
        yield
    except PyMongoError as error:
        reason = str(error).split(", Timeout", 1)[0]
        fail(f"MongoDB does not answer ({reason}); is the stack up? `bluesky-plugins doctor`")


# ---- batches


@click.group()
def batches() -> None:
    """Adaptive batches: which there are, why each point was measured, the same once more."""


@batches.command("list")
@json_option
@limit_option
@click.option("--state", type=click.Choice(["open", "silent", "ended"]), help="Only these.")
def list_command(as_json: bool, limit: int, state: str | None) -> None:
    """Batches, the newest first."""
    from bluesky_plugins.adaptive import BatchStore, list_batches

    settings = load_settings()
    with _mongo_answers(settings):
        found = list_batches(
            BatchStore.from_settings(settings),
            state=state,
            limit=limit,
            silent_after=settings.adaptive.silent_after_seconds,
        )
    if as_json:
        show_json(found["batches"])
        return
    columns = {"batch_id": as_text, "state": as_text, "measured": as_text, "reason": as_text}
    show_table(found["batches"], {**columns, "first_time": as_time})
    click.echo(f"{len(found['batches'])} of {found['total']}")


@batches.command("show")
@click.argument("batch_id")
@json_option
def show_command(batch_id: str, as_json: bool) -> None:
    """A batch: its answers, and what happened to it."""
    from bluesky_plugins.adaptive import BatchStore, show_batch

    settings = load_settings()
    with _mongo_answers(settings):
        found = show_batch(
            BatchStore.from_settings(settings),
            batch_id,
            silent_after=settings.adaptive.silent_after_seconds,
        )
    if found is None:
        fail(f"there is no batch {batch_id}; `bluesky-plugins batches list` shows those there are")
    elif as_json:
        show_json(found)
    else:
        _print_batch(found)


def _as_keys(jobs: Any) -> str:
    """The beginnings of the keys of jobs, long enough to show one by."""
    return " ".join(key[:16] for key in jobs or ())


def _print_batch(found: dict[str, Any]) -> None:
    who = (found.get("recommender") or {}).get("name", "nobody")
    click.echo(f"{found['batch_id']}: {found['state']}, {found['measured']} measured, by {who}")
    click.echo(found["reason"])
    if awaiting := found.get("awaiting"):
        recipes = ", ".join(awaiting["recipes"])
        about = f"count {awaiting['batch_count']}, run {awaiting['run']}"
        click.echo(f"awaits {recipes} for {about}, since {as_time(awaiting['since'])}")
    click.echo("")
    columns = {"batch_count": as_text, "revision": as_text, "action": as_text, "point": as_text}
    processed = any(one.get("jobs") for one in found["suggestions"])
    jobs = {"jobs": _as_keys} if processed else {}
    show_table(found["suggestions"], {**columns, "reason": as_text, "time": as_time, **jobs})
    click.echo("\nStory:")
    for line in found["story"]:
        count = "" if line["batch_count"] is None else line["batch_count"]
        click.echo(f"  {as_time(line['time']):19}  {count!s:>5}  {line['text']}")


@batches.command("replay")
@click.argument("batch_id")
@json_option
def replay_command(batch_id: str, as_json: bool) -> None:
    """Compute the answers of a batch again; exit status 1 if they differ."""
    from bluesky_plugins.adaptive import BatchStore, replay_batch

    settings = load_settings()
    with _mongo_answers(settings):
        report = replay_batch(BatchStore.from_settings(settings), batch_id, settings)
    if report is None:
        fail(f"there is no batch {batch_id}; `bluesky-plugins batches list` shows those there are")
        return
    if as_json:
        show_json(report.as_dict())
    else:
        click.echo(report.as_text())
    sys.exit(0 if report.same else 1)


# ---- runs


@click.group()
def runs() -> None:
    """Recorded runs."""


@runs.command("list")
@json_option
@limit_option
def list_runs(as_json: bool, limit: int) -> None:
    """Runs, the newest first."""
    from bluesky_plugins.recording import StoredRuns

    settings = load_settings()
    with _mongo_answers(settings), StoredRuns(settings) as stored:
        found = stored.latest(limit)
    if as_json:
        show_json(found)
        return
    columns = {"uid": as_text, "scan_id": as_text, "plan_name": as_text, "exit_status": as_text}
    show_table(found, {**columns, "num_events": as_text, "time": as_time})


@runs.command("show")
@click.argument("which")
@json_option
def show_run(which: str, as_json: bool) -> None:
    """One run: a uid or its beginning, a scan id, or -1 for the last (`runs show -- -1`)."""
    from bluesky_plugins.recording import StoredRuns

    settings = load_settings()
    try:
        with _mongo_answers(settings), StoredRuns(settings) as stored:
            found = stored.find(which)
    except ValueError as error:
        fail(str(error), status=2)
        return
    if found is None:
        fail(f"there is no run {which}; `bluesky-plugins runs list` shows those there are")
    elif as_json:
        show_json(found)
    else:
        click.echo(json.dumps(found, indent=2, default=str))
