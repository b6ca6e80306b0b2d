"""The reference pages say what the code does. Run this file to write them anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from pydantic_core import PydanticUndefined

from bluesky_plugins.adaptive import BatchEvent, Command, Result, Suggestion, Waiting
from bluesky_plugins.processing import JobRecord, RecipeFile
from bluesky_plugins.settings import (
    BeamtimeSettings,
    LocalTargetSettings,
    PathSettings,
    Settings,
    SlurmTargetSettings,
)

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
INTRODUCTION = """\
# Settings

In the YAML file as `section: {field: value}`, in the environment as
`BLUESKY_PLUGINS_<SECTION>__<FIELD>`, as a file of that name in the folder that
`BLUESKY_PLUGINS_SECRETS_DIR` names, and as options of the services that use them. Options win over
the environment, the environment over the folder, the folder over the YAML file. Lists and
mappings are JSON, but in the YAML file.
"""


# What the mappings of a section hold.
MEMBERS: dict[str, dict[str, type[BaseModel]]] = {
    "processing": {
        "targets, of kind local": LocalTargetSettings,
        "targets, of kind slurm": SlurmTargetSettings,
        "beamtime of a target": BeamtimeSettings,
        "paths of a target": PathSettings,
    }
}
HEAD = ["", "| field | default | what |", "| --- | --- | --- |"]


def shown(default: Any) -> str:
    unset = default is None or default is PydanticUndefined
    return "" if unset else f"`{json.dumps(default, default=str)}`"


def table(kind: type[BaseModel]) -> list[str]:
    lines = list(HEAD)
    for field, about in kind.model_fields.items():
        default = about.get_default(call_default_factory=True, validated_data={})
        lines.append(f"| `{field}` | {shown(default)} | {about.description or ''} |")
    return [*lines, ""]


def settings_page() -> str:
    lines = [INTRODUCTION]
    for section, info in Settings.model_fields.items():
        value = info.get_default(call_default_factory=True, validated_data={})
        if not isinstance(value, BaseModel):
            default = f" (default {shown(value)})" if value is not None else ""
            lines.append(f"`{section}`{default}: {info.description}.\n")
            continue
        lines += [f"## {section}", *table(type(value))]
        for member, kind in MEMBERS.get(section, {}).items():
            lines += [f"### {section}: {member}", *table(kind)]
    return "\n".join(lines)


def messages_schema() -> str:
    """What travels on `adaptive` and `suggestions` besides Bluesky's own documents."""
    kinds = {
        "batch_event": BatchEvent,
        "command": Command,
        "result": Result,
        "suggestion": Suggestion,
        "waiting": Waiting,
    }
    schemas = {name: TypeAdapter(kind).json_schema() for name, kind in kinds.items()}
    return json.dumps(schemas, indent=2, sort_keys=True) + "\n"


def recipes_schema() -> str:
    """The file in which recipes are written."""
    return json.dumps(RecipeFile.model_json_schema(), indent=2, sort_keys=True) + "\n"


def job_schema() -> str:
    """A job as it is stored."""
    return json.dumps(JobRecord.model_json_schema(), indent=2, sort_keys=True) + "\n"


PAGES = {
    "settings.md": settings_page,
    "adaptive-messages.schema.json": messages_schema,
    "job.schema.json": job_schema,
    "recipes.schema.json": recipes_schema,
}


@pytest.mark.parametrize("name", PAGES)
def test_reference_says_what_the_code_does(name: str) -> None:
    assert (REFERENCE / name).read_text() == PAGES[name](), (
        "write the reference anew: python tests/unit/test_reference.py"
    )


if __name__ == "__main__":
    for name, render in PAGES.items():
        (REFERENCE / name).write_text(render())
