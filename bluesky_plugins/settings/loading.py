"""Settings from everywhere, and words for those that cannot be used."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError

from bluesky_plugins.settings.model import Settings
from bluesky_plugins.settings.places import (
    PREFIX,
    STACK_FILE,
    ConfigurationError,
    secrets_dir,
    state_dir,
)
from bluesky_plugins.settings.secrets_folder import secret_names

__all__ = ["load_settings"]

# Names in our environment prefix that are not settings.
NOT_SETTINGS = (
    "BLUESKY_PLUGINS_CONFIG",
    "BLUESKY_PLUGINS_SECRETS_DIR",
    "BLUESKY_PLUGINS_STATE_DIR",
)
NOT_SETTINGS_PREFIX = "BLUESKY_PLUGINS_TEST_"


def load_settings(config: str | Path | None = None, *, with_stack: bool = True) -> Settings:
    """Settings from the environment, the secrets, the file and the running stack.

    :param config: YAML file; None means BLUESKY_PLUGINS_CONFIG, if that is set.
    :param with_stack: False leaves out the addresses of the stack that runs in the state
        folder, so that only what a person set is seen.
    :raises ConfigurationError: for an unknown key (the nearest known one is named), a value
        that does not fit, or a file that cannot be read.
    """
    known = _known_environment()
    _refuse_unknown(os.environ, known | set(NOT_SETTINGS), "the environment")
    folder = secrets_dir()
    _refuse_unknown(secret_names(folder), known, f"the secrets folder {folder}")
    config = config or os.environ.get("BLUESKY_PLUGINS_CONFIG") or None
    values: dict[str, Any] = _stack_values(state_dir() / STACK_FILE) if with_stack else {}
    if config is not None:
        values = _merged(values, _file_values(Path(config)))
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from None
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            out[key] = _merged(old, value)
        else:
            out[key] = value
    return out


def _file_values(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"settings file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"settings file {path} is not text: {error.reason}") from None
    except yaml.YAMLError as error:
        # yaml's own words quote the file, and a password may stand there.
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigurationError(f"settings file {path}{where}: not YAML") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigurationError(f"settings file {path}: a mapping of sections is expected")
    return values


def _stack_values(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text())["settings"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read ({error}); run `bluesky-plugins down`, then `up`"
        ) from None


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    candidates = (kind, *get_args(kind))
    return next(
        (k for k in candidates if isinstance(k, type) and issubclass(k, BaseModel)),
        None,
    )


def _known_environment() -> set[str]:
    names: set[str] = set()
    for name, field in Settings.model_fields.items():
        names.add(f"{PREFIX}{name}".upper())
        section = _section(field)
        if section is not None:
            names |= {f"{PREFIX}{name}__{key}".upper() for key in section.model_fields}
    return names


def _refuse_unknown(names: Iterable[str], known: Collection[str], where: str) -> None:
    for name in names:
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known:
            continue
        if upper.startswith(NOT_SETTINGS_PREFIX):
            continue
        # A mapping's keys may be given one by one: ..._KAFKA__PRODUCER_CONFIG__<property>.
        parts = upper.split("__")
        if len(parts) > 2 and "__".join(parts[:2]) in known and parts[1].endswith("CONFIG"):
            continue
        raise ConfigurationError(f"unknown setting {name} in {where}{_nearest(upper, known)}")


def _nearest(key: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(key, list(known), n=1, cutoff=0.4)
    return f"; did you mean {found[0]}?" if found else ""


def _known_keys(path: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] | None = Settings
    for part in path:
        field = model.model_fields.get(str(part)) if model else None
        model = _section(field) if field else None
    return list(model.model_fields) if model else []


def _explain(error: ValidationError) -> str:
    lines: list[str] = []
    for item in error.errors(include_url=False, include_input=False):
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            near = _nearest(str(item["loc"][-1]), _known_keys(item["loc"][:-1]))
            lines.append(f"unknown setting {path}{near}")
        else:
            lines.append(f"setting {path}: {item['msg']}")
    return "; ".join(lines)
