"""The `bluesky-plugins` command: one subcommand per service, thin.

Exit status: 0 done, 1 failed, 2 bad usage or bad input.
"""

from __future__ import annotations

import importlib
import sys

import click

from bluesky_plugins import __version__
from bluesky_plugins.cli.options import common_options
from bluesky_plugins.settings import ConfigurationError

__all__ = ["main"]

# Command -> the module that holds it; a module is imported when its command is asked for,
# so that `--help` is quick and a bare install can run what it has.
COMMANDS = {
    "up": "stack",
    "down": "stack",
    "status": "stack",
    "doctor": "doctor",
    "healthy": "healthy",
    "demo": "demo",
    "demo-focus": "demo_focus",
    "recorder": "services",
    "recommender": "services",
    "echo": "services",
    "bsui": "services",
    "batches": "views",
    "runs": "views",
    "jobs": "jobs",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of the table above."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; with an extra absent, one that says which."""
        module_name = COMMANDS.get(cmd_name)
        if module_name is None:
            return None
        try:
            module = importlib.import_module(f"{__name__}.{module_name}")
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("bluesky_plugins"):
                raise
            return _absent(cmd_name, error.name or "more")
        command = getattr(module, cmd_name.replace("-", "_"))
        if not isinstance(command, click.Command):
            raise TypeError(f"{module_name}.{cmd_name} is no command")
        _with_common_options(command)
        return command


def _absent(name: str, missing: str) -> click.Command:
    """In the place of a command that this installation cannot run."""
    text = f"`{name}` needs {missing}; install bluesky-plugins[all]"

    def refuse() -> None:
        raise click.UsageError(text)

    return click.Command(
        name,
        callback=refuse,
        short_help=f"(needs {missing}: install bluesky-plugins[all])",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


def _with_common_options(command: click.Command) -> None:
    known = {param.name for param in command.params}
    command.params.extend(o for o in common_options() if o.name not in known)
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _with_common_options(child)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Close the loop of a Bluesky experiment.

    Every option is also a setting: BLUESKY_PLUGINS_<SECTION>__<FIELD> in the environment, or
    SECTION: {FIELD: ...} in the file that --config names. An option wins over both.
    """


cli.params.extend(common_options())


def main() -> None:
    """Run the command and exit."""
    try:
        cli.main(prog_name="bluesky-plugins")
    except ConfigurationError as error:
        click.echo(f"bluesky-plugins: {error}", err=True)
        sys.exit(2)
