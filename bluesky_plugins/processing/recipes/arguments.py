"""What a program is given: the words of a recipe with their values, or a person's own list."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from bluesky_plugins.processing.explaining import shown
from bluesky_plugins.processing.model import MAX_ARGV_BYTES, unsafe
from bluesky_plugins.processing.recipes.templates import ArgumentError, Filled, fill

__all__ = ["ArgumentError", "Filled", "filled_argv", "filled_environment", "trigger_argv"]


def filled_argv(templates: Sequence[str], context: Mapping[str, Any]) -> tuple[Filled, ...]:
    """The words of a recipe, with values; the first is the program and is taken as it is.

    :raises ArgumentError: if a value is missing, or no program can be given what comes out.
    """
    words = [Filled(templates[0])]
    for template in templates[1:]:
        words += fill(template, context)
    if sum(len(word.text.encode()) + 1 for word in words) > MAX_ARGV_BYTES:
        raise ArgumentError(f"all words together are longer than {MAX_ARGV_BYTES} bytes")
    return tuple(words)


def filled_environment(
    templates: Mapping[str, str], context: Mapping[str, Any]
) -> dict[str, Filled]:
    """The environment of a recipe, with values.

    :raises ArgumentError: as `filled_argv`.
    """
    filled: dict[str, Filled] = {}
    for name, template in templates.items():
        words = fill(template, context)
        if len(words) != 1:
            raise ArgumentError(f"environment {name}: {{*...}} makes no single value")
        filled[name] = words[0]
    return filled


# ---- a person at a prompt


def trigger_argv(arg_list: Sequence[Any]) -> tuple[str, ...]:
    """The words of `Trigger(...).run(arg_list)`, from any of its four shapes.

    `['cmd']` and `['cmd a b']` are one text that is split into words as a shell would split it,
    quotes included, and not interpreted further; `['cmd', ['a', 'b']]` and `['cmd', 'a', 'b']`
    are words already and stay as they are, the empty ones too. Numbers and paths become text.

    :raises ArgumentError: if it is none of these, or a word cannot be given to a program.
    """
    if isinstance(arg_list, str | bytes) or not isinstance(arg_list, Sequence):
        raise ArgumentError(f"a list of arguments is expected, not {shown(arg_list)}")
    if not arg_list:
        raise ArgumentError("the list of arguments is empty")
    words = _words(arg_list)
    for word in words:
        why = unsafe(word)
        if why:
            raise ArgumentError(f"{shown(word)} cannot be given to a program: {why}")
    if not words or not words[0]:
        raise ArgumentError("there is no program")
    if sum(len(word.encode()) + 1 for word in words) > MAX_ARGV_BYTES:
        raise ArgumentError(f"all words together are longer than {MAX_ARGV_BYTES} bytes")
    return words


def _words(arg_list: Sequence[Any]) -> tuple[str, ...]:
    first, rest = arg_list[0], arg_list[1:]
    if not rest and isinstance(first, str):
        return _split(first)
    if len(rest) == 1 and isinstance(rest[0], list | tuple):
        rest = rest[0]
    return tuple(_word(one) for one in (first, *rest))


def _split(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ArgumentError(f"{shown(text)}: {str(error).lower()}") from None


def _word(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | os.PathLike):
        raise ArgumentError(f"{shown(value)} is no text, number or path")
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(path, bytes):
        raise ArgumentError(f"{shown(value)} is no text, number or path")
    return str(path)
