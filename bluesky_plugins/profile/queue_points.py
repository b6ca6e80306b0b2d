"""What the queue's HTTP door refuses before the manager sees it; pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["RefusedBodyError", "check_body", "refusal_of"]

ADAPTIVE_PLANS = ("adaptive_plan", "adaptive_scan")


class RefusedBodyError(ValueError):
    """The body of a request cannot be taken; the text says why."""


def check_body(body: bytes) -> None:
    """Refuse JSON that is not finite, and adaptive plans whose points cannot be.

    :raises RefusedBodyError: with the reason; what is no JSON at all is left to the server.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return
    reason = refusal_of(content)
    if reason is not None:
        raise RefusedBodyError(reason)


def refusal_of(content: Any) -> str | None:
    """Why a request's content is refused; None when it is not."""
    for path, value in _numbers(content, ""):
        if not math.isfinite(value):
            return f"{path or 'the value'} is {value}; only finite numbers are taken"
    reasons = (reason for item in _plans(content) if (reason := _refused_plan(item)))
    return next(reasons, None)


def _numbers(content: Any, path: str) -> Iterator[tuple[str, float]]:
    """All floats, with where they are; without recursion: the content is a stranger's."""
    left = [(path, content)]
    while left:
        where, value = left.pop()
        if isinstance(value, float):
            yield where, value
        elif isinstance(value, Mapping):
            left += [(f"{where}.{key}".lstrip("."), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            left += [(f"{where}[{index}]", inner) for index, inner in enumerate(value)]


def _plans(content: Any) -> Iterator[Mapping[str, Any]]:
    """Every plan in a request: `item`, `items` of today's, `plan` of the old routes."""
    if not isinstance(content, Mapping):
        return
    items = content.get("items")
    candidates = [content.get("item"), content.get("plan")]
    candidates += items if isinstance(items, list) else []
    for item in candidates:
        if isinstance(item, Mapping) and item.get("name") in ADAPTIVE_PLANS:
            yield item


def _refused_plan(item: Mapping[str, Any]) -> str | None:
    kwargs, args = item.get("kwargs") or {}, item.get("args") or []
    point = kwargs.get("first_point") if isinstance(kwargs, Mapping) else None
    if point is None and isinstance(args, list) and len(args) > 1:
        point = args[1]
    if point is None:
        return None  # the manager says what is missing
    if not isinstance(point, Mapping) or not point:
        return "first_point must name at least one motor with its position"
    for name, value in point.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"first_point.{name} must be a number, not {value!r}"
    return None
