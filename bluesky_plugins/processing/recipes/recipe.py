"""A recipe, and the YAML file that recipes are written in.

`docs/reference/recipes.schema.json` is its schema. What is wrong in a file is said in one line
for each fault, with the key, the value and the nearest key that is known.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from bluesky_plugins.processing.explaining import explain, nearest, shown
from bluesky_plugins.processing.model import (
    JobKind,
    Name,
    Noun,
    RelativePath,
    Resources,
    ResultSpec,
    SafeText,
    VariableName,
)
from bluesky_plugins.processing.recipes.paths import PathPolicy
from bluesky_plugins.processing.recipes.templates import ArgumentError, Placeholder, placeholders

__all__ = [
    "After",
    "Condition",
    "Recipe",
    "RecipeError",
    "RecipeFile",
    "When",
    "read_recipes",
]

MAX_FILE = 1_000_000

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
Parameter = Scalar | list[Scalar]


class RecipeError(ValueError):
    """A file of recipes cannot be used; the text has a line for each fault."""


class After(StrEnum):
    """What has to be over for a recipe to fire."""

    START = "start"  # nothing: a viewer begins with a run, at its start document
    RUN = "run"  # a run, at its stop document
    POINT = "point"  # a point of an adaptive batch: its run, or its event
    BATCH = "batch"  # an adaptive batch as a whole


# ---- when


class Condition(Noun):
    """What a value of the start document has to be; all that is given has to hold."""

    equals: Scalar | None = None
    any_of: tuple[Scalar, ...] | None = Field(None, min_length=1)
    like: str | None = Field(None, description="pattern with * ? [...] that a text has to match")
    contains: Scalar | None = Field(None, description="member of a list, or key of a mapping")
    at_least: StrictInt | StrictFloat | None = None
    at_most: StrictInt | StrictFloat | None = None
    present: StrictBool | None = Field(None, description="whether the document has the key at all")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("says nothing")
        return self

    def unmet(self, value: Any, *, present: bool) -> str | None:
        """Why a value does not do; None if it does."""
        if self.present is not None and present is not self.present:
            return "is there" if present else "is not there"
        if not present:
            return None if self.model_fields_set == {"present"} else "is not there"
        tests = {
            "equals": self.equals is None or same(value, self.equals),
            "any_of": self.any_of is None or any(same(value, one) for one in self.any_of),
            "like": self.like is None
            or (isinstance(value, str) and fnmatch.fnmatchcase(value, self.like)),
            "contains": self.contains is None or _holds(value, self.contains),
            "at_least": self.at_least is None or (_is_number(value) and value >= self.at_least),
            "at_most": self.at_most is None or (_is_number(value) and value <= self.at_most),
        }
        failed = next((name for name, holds in tests.items() if not holds), None)
        if failed is None:
            return None
        wanted = getattr(self, failed)
        wanted = list(wanted) if isinstance(wanted, tuple) else wanted
        return f"is {shown(value)}, not {failed.replace('_', ' ')} {shown(wanted)}"


def same(value: Any, wanted: Any) -> bool:
    """Equal, and not a truth value for a number."""
    return isinstance(value, bool) is isinstance(wanted, bool) and bool(value == wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _holds(value: Any, member: Any) -> bool:
    return isinstance(value, list | tuple | Mapping) and any(same(one, member) for one in value)


def _short(value: Any) -> Any:
    """`plan_name: scan` and `plan_name: [scan, count]` are short for equals and any_of."""
    if isinstance(value, list | tuple):
        return {"any_of": value}
    return {"equals": value} if isinstance(value, bool | int | float | str) else value


AnyCondition = Annotated[
    Condition, BeforeValidator(_short, json_schema_input_type=Condition | list[Scalar] | Scalar)
]
ExitStatus = Literal["success", "abort", "fail"]
BatchOutcome = Literal["done", "stopped", "failed", "aborted", "silent", "closed"]


class When(Noun):
    """When a recipe fires."""

    after: After = Field(After.RUN, description="what has to be over; `start` is for viewers")
    start: dict[str, AnyCondition] | None = Field(
        None,
        description="dotted key of the start document -> what its value has to be; {} takes every "
        "run. Unset: only runs whose start document lists the recipe in `processing`",
    )
    exit_status: tuple[ExitStatus, ...] = Field(
        ("success",), min_length=1, description="of the run; others are skipped"
    )
    outcome: tuple[BatchOutcome, ...] = Field(
        ("done", "stopped", "silent", "closed"),
        min_length=1,
        description="of the batch, for `after: batch`; others are skipped",
    )
    analysis: bool = Field(False, description="also for runs that are results of processing")


# ---- what, where


def _template(text: str) -> str:
    try:
        placeholders(text)
    except ArgumentError as error:
        raise ValueError(str(error)) from None
    return text


Template = Annotated[SafeText, AfterValidator(_template)]


class Recipe(Noun):
    """When, where, what, with which resources, and how the result comes back."""

    name: Name
    version: str = Field("1", min_length=1, max_length=64, description="part of the job's key")
    description: str = ""
    when: When = Field(default_factory=When)
    targets: tuple[Name, ...] = Field(
        ("local",), min_length=1, description="targets, in the order they are tried"
    )
    argv: tuple[SafeText, ...] = Field(
        min_length=1,
        description="the program, which is the target's own path and taken as it is, and its "
        "arguments with {placeholders}; never a line for a shell",
    )
    environment: dict[VariableName, Template] = Field(default_factory=dict)
    directory: Template | None = Field(
        None, description="working directory; unset: a folder of its own for each attempt"
    )
    parameters: dict[Name, Parameter] = Field(
        default_factory=dict,
        description="names and defaults; the start document's `processing` may give others",
    )
    resources: Resources = Field(default_factory=Resources)
    kind: JobKind = Field("batch", description="a viewer has no time limit and gets the display")
    outputs: tuple[RelativePath, ...] = Field(
        (), description="files to be listed, paths or patterns below the working directory"
    )
    result: ResultSpec | None = None
    paths: PathPolicy = Field(default_factory=PathPolicy)
    wait_s: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="longest wait for a target before the next one is taken, s; unset: for ever",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._check_program()
        self._check_parameters()
        self._check_single_values()
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("a target is named twice")
        if self.wait_s is not None and len(self.targets) == 1:
            raise ValueError("wait_s needs a second target to go on to")
        if self.when.after is After.START and self.kind != "viewer":
            raise ValueError("after: start is for viewers; nothing else has its data by then")
        if self.kind == "viewer" and (self.resources.time_limit_s or self.result):
            raise ValueError("a viewer has neither a time limit nor a result")
        return self

    def _check_program(self) -> None:
        program = self.argv[0]
        if not program:
            raise ValueError("argv: the program is empty")
        # A document must never say what is executed.
        if "{" in program or "}" in program:
            raise ValueError(f"argv: the program {shown(program)} cannot have placeholders")
        for word in self.argv[1:]:
            _template(word)

    def _check_single_values(self) -> None:
        for word in (*self.environment.values(), self.directory or ""):
            if any(one is not None and one.spread for _, one in placeholders(word)):
                raise ValueError(f"{shown(word)} is a single value, and {{*...}} makes many")

    def _check_parameters(self) -> None:
        for placeholder in self.placeholders():
            parts = placeholder.parts
            if placeholder.root != "parameters":
                continue
            if not parts or parts[0] not in self.parameters:
                near = nearest(parts[0], self.parameters) if parts else ""
                raise ValueError(f"{placeholder.text}: the recipe has no such parameter{near}")

    def placeholders(self) -> list[Placeholder]:
        """All that is to be filled in."""
        words = (*self.argv[1:], *self.environment.values(), self.directory or "")
        found = [one for word in words for _, one in placeholders(word)]
        return [one for one in found if one is not None]


class RecipeFile(Noun):
    """A file of recipes."""

    recipes: tuple[Recipe, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [recipe.name for recipe in self.recipes]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"recipes: two recipes are called {twice}")
        return self


# ---- the file


class _Loader(yaml.SafeLoader):
    """YAML's own loader keeps the last of two equal keys and drops the other silently."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
            mark = key.start_mark
            raise RecipeError(f"line {mark.line + 1}: the key {key.value} is there twice")
        seen.add(str(key.value))
    loader.flatten_mapping(node)
    return dict(loader.construct_mapping(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_recipes(text: str) -> tuple[Recipe, ...]:
    """The recipes of a YAML file.

    :param text: what the file holds.
    :raises RecipeError: if it is no such file.
    """
    if len(text) > MAX_FILE:
        raise RecipeError(f"the file is longer than {MAX_FILE} characters")
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None)
        raise RecipeError(f"{where}{what or 'not YAML'}") from None
    except (RecursionError, ValueError) as error:
        if isinstance(error, RecipeError):
            raise
        raise RecipeError(f"not YAML: {error}") from None
    try:
        return RecipeFile.model_validate({} if data is None else data).recipes
    except ValidationError as error:
        raise RecipeError("\n".join(explain(error, RecipeFile, data))) from None
