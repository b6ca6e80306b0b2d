"""What is wrong with input, in one line per fault: the key, the value, the nearest known key."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

__all__ = ["explain", "nearest", "shown"]


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that may have been meant, as the end of a sentence; or nothing."""
    found = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 2, 4, 4, 4
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: Any, limit: int = 60) -> str:
    """A value for a message: short, on one line, however large it is."""
    text = _SHORT.repr(value).replace("\n", " ")
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def explain(error: ValidationError, model: type[BaseModel], data: Any = None) -> list[str]:
    """One line for each fault.

    :param model: what was to be read.
    :param data: what it was read from, to name the members of lists by their `name`.
    """
    return [
        _line(item, model, data) for item in error.errors(include_url=False, include_context=True)
    ]


def _line(item: Any, model: type[BaseModel], data: Any) -> str:
    loc = item["loc"]
    where = _where(loc, data) or "the file"
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key{nearest(str(loc[-1]), _known(model, loc[:-1]))}"
    if item["type"] == "missing":
        return f"{where}: is missing"
    message = _message(item)
    value = item["input"]
    if item["type"] == "value_error" and isinstance(value, dict):
        return f"{where}: {message}"  # it names what it is about
    if item["type"] == "string_type" and isinstance(value, int | float):
        message += "; put it in quotes"
    if item["type"] in ("literal_error", "enum"):
        known = str(item.get("ctx", {}).get("expected", "")).replace("'", "")
        message += nearest(str(value), known.replace(" or ", ", ").split(", "))
    return f"{where}: {shown(value)}: {message}"


def _message(item: Any) -> str:
    """In the words of the file, not of Python."""
    message = str(item["msg"]).removeprefix("Value error, ")
    kind = item["type"]
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "a mapping is expected"
    if kind in ("tuple_type", "list_type"):
        return "a list is expected"
    return (message[:1].lower() + message[1:]).replace("tuple", "list")


def _where(loc: tuple[Any, ...], data: Any) -> str:
    words: list[str] = []
    for part in loc:
        data = _child(data, part)
        name = data.get("name") if isinstance(data, dict) and isinstance(part, int) else None
        words.append(f"{part} ({name})" if isinstance(name, str) else str(part))
    return ".".join(words)


def _child(data: Any, part: Any) -> Any:
    if isinstance(data, dict):
        return data.get(part)
    if isinstance(data, list) and isinstance(part, int) and part < len(data):
        return data[part]
    return None


def _known(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """The keys of the model at this place; positions in lists and mappings are passed over."""
    here: type[BaseModel] | None = model
    for part in loc:
        field = here.model_fields.get(str(part)) if here is not None else None
        if field is not None:
            here = _model_in(field.annotation)
    return list(here.model_fields) if here is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(one) for one in get_args(annotation))
    return next((one for one in found if one is not None), None)
