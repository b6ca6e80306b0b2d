"""Options made from the settings, so that every option is a setting and the other way round.

An option is handed on through the environment: that is what wins, and what every process
that a command starts sees as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from bluesky_plugins.settings import Settings

__all__ = ["common_options", "environment_name", "section_options"]

Command = Callable[..., Any]


def environment_name(section: str, field: str) -> str:
    """The environment variable of a setting."""
    return f"BLUESKY_PLUGINS_{section}__{field}".upper()


def _to_environment(variable: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None and not ctx.resilient_parsing:
            os.environ[variable] = str(Path(value).absolute()) if _is_path(param) else str(value)

    return callback


def _is_path(param: click.Parameter) -> bool:
    return isinstance(param.type, click.Path)


def common_options() -> list[click.Option]:
    """`--config` and `--state-dir`, which every command takes."""
    return [
        click.Option(
            ["--config"],
            type=click.Path(exists=True, dir_okay=False),
            callback=_to_environment("BLUESKY_PLUGINS_CONFIG"),
            expose_value=False,
            is_eager=True,
            help="YAML file of settings.",
        ),
        click.Option(
            ["--state-dir"],
            type=click.Path(file_okay=False),
            callback=_to_environment("BLUESKY_PLUGINS_STATE_DIR"),
            expose_value=False,
            is_eager=True,
            help="Folder of the stack: data, logs, addresses, key.  [default: the user's]",
        ),
    ]


def _default_text(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True, validated_data={})
    if default is None:
        return ""
    return f"  [default: {default if isinstance(default, str) else json.dumps(default)}]"


def _is_secret(info: FieldInfo) -> bool:
    return "SecretStr" in str(info.annotation) or info.annotation is SecretStr


def section_options(section: str, *fields: str) -> Callable[[Command], Command]:
    """Options for the fields of a section of the settings.

    :param section: name of the section, e.g. `recording`.
    :param fields: which fields; none means all. Secrets never become options: what stands on
        a command line is seen by everyone on the machine.
    """
    # Made without reading any setting: one that is wrong is told of by the command.
    model: Any = Settings.model_fields[section].annotation

    def decorate(command: Command) -> Command:
        for name, info in reversed(list(model.model_fields.items())):
            if _is_secret(info) or (fields and name not in fields):
                continue
            command = click.option(
                f"--{name.replace('_', '-')}",
                callback=_to_environment(environment_name(section, name)),
                expose_value=False,
                metavar="VALUE",
                help=f"{info.description or name}{_default_text(info)}",
            )(command)
        return command

    return decorate
