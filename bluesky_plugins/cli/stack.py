"""`up`, `down` and `status`: the stack of this machine."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bluesky_plugins.cli.options import section_options
from bluesky_plugins.cli.stack_parts import NAMES, external_servers, part_addresses
from bluesky_plugins.cli.stack_start import Starter
from bluesky_plugins.embedded import PartState, Stack, StackError, StateFolder, answers
from bluesky_plugins.settings import Settings, load_settings, state_dir

__all__ = ["command_errors", "down", "stack_status", "start_stack", "status", "stop_stack", "up"]

GOOD = (PartState.RUNNING, PartState.EXTERNAL)
COLOURS = {"running": "green", "external": "green", "starting": "yellow", "stopped": "dim"}


@contextlib.contextmanager
def command_errors(command: str) -> Iterator[None]:
    """What goes wrong with a stack ends the command with a line that names it, and status 1."""
    try:
        yield
    except StackError as error:
        click.echo(f"bluesky-plugins {command}: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        click.echo(f"bluesky-plugins {command}: {named}{error.strerror}", err=True)
        sys.exit(1)


@contextlib.contextmanager
def _progress(doing: str) -> Iterator[Callable[[str], None]]:
    """Lines, and below them on a terminal what is being done."""
    console = Console(highlight=False, soft_wrap=True)

    def say(line: str) -> None:
        console.print(line, markup=False)

    if console.is_terminal:
        with console.status(doing):
            yield say
    else:
        yield say


def _patience(settings: Settings) -> float:
    return settings.embedded.ready_seconds + 4 * settings.embedded.stop_seconds


def start_stack(settings: Settings, say: Callable[[str], None]) -> bool:
    """Start what does not run in the state folder; False when all of it ran already.

    :param settings: what a person has set, without what a stack has written.
    :param say: takes a line of progress.
    :raises StackError: when something does not start; what was started is stopped again.
    """
    folder = StateFolder(state_dir())
    waiting = lambda: say("another `up` or `down` is at work here: waiting for it")  # noqa: E731
    with folder.command_lock(_patience(settings), waiting):
        return Starter(folder, settings, say).start()


def stop_stack(settings: Settings, say: Callable[[str], None], *, wipe: bool = False) -> None:
    """Stop the stack of the state folder.

    :param wipe: remove its data too.
    :raises StackError: when something cannot be stopped, or the folder is not ours.
    """
    folder = StateFolder(state_dir())
    waiting = lambda: say("another `up` or `down` is at work here: waiting for it")  # noqa: E731
    with folder.command_lock(_patience(settings), waiting):
        _stop(folder, settings, say)
        if wipe:
            folder.wipe()
            say(f"removed the data in {folder.root}")


@click.command()
@section_options("embedded")
def up() -> None:
    """Start the servers and all services, and leave them running in the background.

    Servers whose address is set (kafka.bootstrap_servers, mongo.uri, redis.url) are used
    and not started.
    """
    settings = load_settings(with_stack=False)
    folder = StateFolder(state_dir())
    with command_errors("up"), _progress("starting the stack") as say:
        started = start_stack(settings, say)
        say("the stack is ready" if started else "the stack is running already")
        say(f"state folder {folder.root}, HTTP key in {_key_file(folder, settings)}")


def _key_file(folder: StateFolder, settings: Settings) -> str:
    """Where the key is; never the key."""
    if settings.http.api_key is not None:
        return "the setting http.api_key"
    return str(settings.http.api_key_file or folder.key_file)


@click.command()
@click.option(
    "--wipe", is_flag=True, help="Remove the data too: runs, batches, the queue, the key."
)
@section_options("embedded", "stop_seconds")
def down(wipe: bool) -> None:
    """Stop the services, then the servers. The data stay."""
    settings = load_settings(with_stack=False)
    folder = StateFolder(state_dir())
    with command_errors("down"), _progress("stopping the stack") as say:
        if not folder.root.exists():
            say(f"nothing runs: there is no {folder.root}")
            return
        if wipe:
            folder.check_mark()
        stop_stack(settings, say, wipe=wipe)


def _stop(folder: StateFolder, settings: Settings, say: Callable[[str], None]) -> None:
    stack = Stack(folder, settings.embedded.stop_seconds)
    ran = stack.alive or folder.stack_file.exists()
    stack.stop(_repeater_port(folder))
    folder.stack_file.unlink(missing_ok=True)
    say(f"stopped; the data stay in {folder.root}" if ran else "nothing runs")


def _repeater_port(folder: StateFolder) -> int | None:
    try:
        return int((folder.read(folder.stack_file) or {})["settings"]["iocs"]["ca_repeater_port"])
    except (StackError, KeyError, TypeError, ValueError):
        return None


def stack_status(folder: StateFolder) -> dict[str, dict[str, Any]]:
    """Of each part its address (or None), the pid of its working process (or None), its state.

    :raises StackError: when the files of the stack cannot be read.
    """
    settings = load_settings(with_stack=False)
    records = Stack(folder, settings.embedded.stop_seconds).records()
    meant_to_run = folder.read(folder.stack_file) is not None
    externals = external_servers(settings)
    addresses = part_addresses(load_settings()) if meant_to_run else {}
    out: dict[str, dict[str, Any]] = {}
    for name in NAMES:
        address, pid = addresses.get(name), None
        if name in externals and name not in records:
            address, probe = externals[name]
            state = PartState.EXTERNAL if answers(probe, timeout=2.0) else PartState.DOWN
        elif name in records:
            state, pid = records[name].state, records[name].pid
        else:
            state = PartState.DOWN if meant_to_run else PartState.STOPPED
        out[name] = {"address": address, "pid": pid, "state": str(state)}
    return out


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(as_json: bool) -> None:
    """Say of each part where it is, its process and its state; exit status 1 if one is down."""
    folder = StateFolder(state_dir())
    with command_errors("status"):
        found = stack_status(folder)
    if as_json:
        click.echo(json.dumps(found))
    else:
        _show(found, folder)
    sys.exit(0 if all(part["state"] in GOOD for part in found.values()) else 1)


def _show(found: dict[str, dict[str, Any]], folder: StateFolder) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table("part", "state", "address", "pid", box=None)
    for name, part in found.items():
        colour = COLOURS.get(part["state"], "red")
        state = f"[{colour}]{part['state']}[/{colour}]"
        table.add_row(name, state, part["address"] or "-", str(part["pid"] or "-"))
    console.print(table)
    records = Stack(folder, 1.0).records()
    for name, record in records.items():
        if record.reason:
            console.print(f"{name} {record.reason}; see {folder.log / name}.log", markup=False)
    console.print(f"state folder {folder.root}", markup=False)
    key_file = _key_file(folder, load_settings(with_stack=False))
    console.print(f"HTTP key in {key_file}", markup=False)
