"""Which recommenders there are, by name, and what parameters each takes."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from bluesky_plugins.adaptive.configuration import Described

__all__ = ["GROUP", "Registry"]

GROUP = "bluesky_plugins.recommenders"


@dataclass(frozen=True)
class _Registered:
    make: Callable[..., Any]
    schema: type[BaseModel]
    version: str


class Registry:
    """Recommenders by their registered names.

    :param extra: names of this process beside those of the entry point group, e.g. for tests.
    """

    def __init__(self, extra: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self._extra = dict(extra or {})

    def names(self) -> list[str]:
        """All registered names."""
        return sorted({*self._extra, *_installed()})

    def describe(self, name: str, parameters: Mapping[str, Any]) -> Described:
        """Version and checked parameters of a recommender, or why it cannot be made."""
        try:
            found = self._find(name)
        except LookupError as error:
            return Described(error=str(error))
        try:
            checked = found.schema.model_validate(dict(parameters))
        except ValidationError as error:
            return Described(found.version, error=f"recommender {name}: {_told(error)}")
        return Described(found.version, checked.model_dump(mode="json", exclude_unset=True))

    def immediate(self, name: str) -> bool:
        """Whether a recommender says that its calls need not be waited for."""
        try:
            return getattr(self._find(name).make, "immediate", False) is True
        except LookupError:
            return False

    def make(self, name: str, parameters: Mapping[str, Any], seed: int) -> Any:
        """A new recommender object.

        :param seed: given to recommenders that take a `seed` and were not given one.
        :raises LookupError: if the name is unknown or its code cannot be imported.
        :raises pydantic.ValidationError: if the parameters do not fit.
        """
        found = self._find(name)
        checked = found.schema.model_validate(dict(parameters))
        arguments = {key: getattr(checked, key) for key in checked.model_fields_set}
        if "seed" not in arguments and "seed" in inspect.signature(found.make).parameters:
            arguments["seed"] = seed
        return found.make(**arguments)

    def _find(self, name: str) -> _Registered:
        if name in self._extra:
            make = self._extra[name]
            return _Registered(make, _schema(name, make), "0")
        installed = _installed()
        if name not in installed:
            near = difflib.get_close_matches(name, self.names(), n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {self.names()}"
            raise LookupError(f"unknown recommender {name!r:.80}{hint}")
        return _load(installed[name])


@cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


@cache
def _load(point: EntryPoint) -> _Registered:
    try:
        make = point.load()
    # Code of other people: whatever it raises at import, the name cannot be used.
    except Exception as error:
        raise LookupError(f"recommender {point.name} cannot be imported: {error}") from error
    version = point.dist.version if point.dist else "0"
    return _Registered(make, _schema(point.name, make), version)


def _schema(name: str, make: Callable[..., Any]) -> type[BaseModel]:
    declared = getattr(make, "Parameters", None)
    if isinstance(declared, type) and issubclass(declared, BaseModel):
        return declared
    return _schema_of_signature(name, make)


def _schema_of_signature(name: str, make: Callable[..., Any]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(make, eval_str=True).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind = Any if parameter.annotation is parameter.empty else parameter.annotation
        required = parameter.default is parameter.empty and parameter.name != "seed"
        fields[parameter.name] = (kind, ... if required else _default(parameter))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return create_model(f"{name} parameters", __config__=config, **fields)


def _default(parameter: inspect.Parameter) -> Any:
    return None if parameter.default is parameter.empty else parameter.default


def _told(error: ValidationError) -> str:
    items = error.errors(include_url=False, include_context=False)
    return "; ".join(
        f"parameter {'.'.join(map(str, item['loc'])) or '-'}: {item['msg']}" for item in items
    )
