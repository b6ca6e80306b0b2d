"""Words with `{placeholders}`: how they are written, and how values come into them.

`{start.scan_id}` is a value at a dotted path; `[...]` takes a key with dots or colons in it, or
a place in a list: `{event.data[mad:det]}`, `{files[0].path}`. `{start.x:.3f}` formats a number,
`{start.hints:json}` writes any value as JSON in one word. `{*files.path}`, alone in its word,
becomes one word for each value of a list. `{{` and `}}` are braces.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from bluesky_plugins.processing.explaining import nearest, shown
from bluesky_plugins.processing.model import unsafe

__all__ = ["ROOTS", "ArgumentError", "Filled", "Placeholder", "fill", "lookup", "placeholders"]

# What a placeholder may begin with, and what it is called in a message.
ROOTS: Mapping[str, str] = {
    "start": "the start document",
    "stop": "the stop document",
    "descriptor": "the descriptor of the stream primary",
    "descriptors": "the descriptors, by stream",
    "event": "the last event of the stream primary",
    "events": "the last events, by stream",
    "file": "the only file of the run",
    "files": "the files of the run",
    "batch": "the batch",
    "parameters": "the recipe's parameters",
    "recipe": "the recipe",
    "job": "the job",
}
SPEC = re.compile(r"[-+ ]?0?\d{0,3}(\.\d{1,3})?[bcdeEfFgGnosxX%]?")
PART = re.compile(r"\.([^.\[\]{}]+)|\[([^\[\]]+)\]")
FIELD = re.compile(r"(\*?)([A-Za-z_][A-Za-z0-9_]*)((?:\.[^.\[\]{}]+|\[[^\[\]]+\])*)")


class ArgumentError(ValueError):
    """A word cannot be made, or cannot be given to a program; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One `{...}` of a word."""

    text: str
    root: str
    parts: tuple[str, ...]
    spec: str = ""
    spread: bool = False


@dataclass(frozen=True, slots=True)
class Filled:
    """A word as the program gets it, and the values that came into it."""

    text: str
    values: tuple[str, ...] = ()


def placeholders(template: str) -> list[tuple[str, Placeholder | None]]:
    """A word as pairs of text and the placeholder after it, which may be None.

    :raises ArgumentError: if it is written wrongly.
    """
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        hint = "{{ and }} are written for braces"
        raise ArgumentError(f"{shown(template)}: {error}; {hint}") from None
    pieces = [(text, _placeholder(*rest)) for text, *rest in parsed]
    spread = any(one is not None and one.spread for _, one in pieces)
    if spread and not (len(pieces) == 1 and not pieces[0][0]):
        raise ArgumentError(f"{shown(template)}: {{*...}} has to be alone in its word")
    return pieces


def _placeholder(field: str | None, spec: str | None, conversion: str | None) -> Placeholder | None:
    if field is None:
        return None
    text = f"{{{field}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
    matched = FIELD.fullmatch(field)
    if conversion or matched is None:
        raise ArgumentError(f"{text} is no placeholder, which is written {{start.scan_id}}")
    spread, root, path = matched.groups()
    if root not in ROOTS:
        raise ArgumentError(f"{text}: nothing is called {root}{nearest(root, ROOTS)}")
    if spec and spec != "json" and not SPEC.fullmatch(spec):
        raise ArgumentError(f"{text}: {spec} is no format of a number, and not json")
    parts = tuple(dotted or bracketed for dotted, bracketed in PART.findall(path))
    return Placeholder(text, root, parts, spec or "", bool(spread))


def lookup(value: Any, parts: Sequence[str], name: str) -> Any:
    """The value at a path; a key of a mapping may itself have dots.

    :param name: what `value` is called in the message.
    :raises ArgumentError: if there is none.
    """
    for number, part in enumerate(parts):
        value = _plain(value)
        if isinstance(value, Mapping):
            rest = ".".join(parts[number:])
            if part not in value and rest in value:
                return value[rest]
            if part not in value:
                raise ArgumentError(f"{name} has no {part}{nearest(part, map(str, value))}")
            value = value[part]
        elif isinstance(value, list | tuple):
            value = _member(value, part, name)
        else:
            raise ArgumentError(f"{name} is {shown(value)} and has no {part}")
        name = f"{part} of {name}"
    return _plain(value)


def _member(value: Sequence[Any], part: str, name: str) -> Any:
    if not re.fullmatch(r"-?\d{1,9}", part):
        # One more step into each of them: {*files.path}.
        return [lookup(one, (part,), f"a member of {name}") for one in value]
    try:
        return value[int(part)]
    except IndexError:
        raise ArgumentError(f"{name} has {len(value)} members and no {part}") from None


def _plain(value: Any) -> Any:
    """NumPy's values as Python's own."""
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return value.tolist()
    return value


def fill(template: str, context: Mapping[str, Any]) -> list[Filled]:
    """The words that a template becomes: one, or with `{*...}` as many as there are values.

    :param context: root -> its value; a root that is None or absent has no value.
    :raises ArgumentError: if a value is missing or no program can be given it.
    """
    pieces = placeholders(template)
    if len(pieces) == 1 and pieces[0][1] is not None and pieces[0][1].spread:
        return [_checked(template, Filled(text, (text,))) for text in _each(pieces[0][1], context)]
    words, values = [], []
    for text, placeholder in pieces:
        words.append(text)
        if placeholder is not None:
            value = _text(_value(placeholder, context), placeholder)
            words.append(value)
            values.append(value)
    return [_checked(template, Filled("".join(words), tuple(values)))]


def _checked(template: str, filled: Filled) -> Filled:
    why = unsafe(filled.text)
    if why:
        raise ArgumentError(f"{shown(template)} cannot be given to a program: {why}")
    return filled


def _value(placeholder: Placeholder, context: Mapping[str, Any]) -> Any:
    name = ROOTS[placeholder.root]
    root = context.get(placeholder.root)
    if root is None:
        raise ArgumentError(f"{placeholder.text} has no value: there is no {name[4:]}")
    if isinstance(root, ArgumentError):
        raise ArgumentError(f"{placeholder.text} has no value: {root}")
    try:
        value = lookup(root, placeholder.parts, name)
    except ArgumentError as error:
        raise ArgumentError(f"{placeholder.text} has no value: {error}") from None
    if value is None:
        raise ArgumentError(f"{placeholder.text} has no value: it is null")
    return value


def _each(placeholder: Placeholder, context: Mapping[str, Any]) -> list[str]:
    value = _value(placeholder, context)
    if not isinstance(value, list | tuple):
        raise ArgumentError(f"{placeholder.text}: {shown(value)} is no list")
    return [_text(_plain(one), placeholder) for one in value]


def _text(value: Any, placeholder: Placeholder) -> str:
    if placeholder.spec == "json":
        return _json(value, placeholder)
    if isinstance(value, bool) and not placeholder.spec:
        return "true" if value else "false"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, placeholder)
    if isinstance(value, str | PurePath) and not placeholder.spec:
        return str(value)
    if placeholder.spec:
        raise ArgumentError(f"{placeholder.text}: {shown(value)} is no number")
    hint = "{*...} makes a word of each of its values, :json one word of all"
    raise ArgumentError(f"{placeholder.text}: {shown(value)} is no text or number; {hint}")


def _number(value: float, placeholder: Placeholder) -> str:
    try:
        return format(value, placeholder.spec)
    except (ValueError, OverflowError) as error:
        raise ArgumentError(f"{placeholder.text}: {shown(value)}: {error}") from None


def _json(value: Any, placeholder: Placeholder) -> str:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, default=_json_default)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{placeholder.text}: cannot be written as JSON: {error}") from None


def _json_default(value: Any) -> Any:
    plain = _plain(value)
    if plain is value:
        raise TypeError(f"{shown(value)} is no JSON value")
    return plain
