"""Paths of the beamline and the same files as a target sees them.

A target sees them in one or more views (the core file system, the mount of the beamline, a
container's folders); a rule says under which root a view has what lies here under another.
The longest root wins. Paths are compared as they are written, without `.` and doubled
slashes; one with `..` is refused, and so is one that a symlink leads out of its root.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Annotated

from pydantic import AfterValidator, Field

from bluesky_plugins.processing.model import Name, Noun
from bluesky_plugins.processing.recipes.templates import Filled

__all__ = ["Mapped", "PathError", "PathMapper", "PathPolicy", "PathRule"]

OPTION = re.compile(r"(--?[A-Za-z0-9][A-Za-z0-9_-]*=)(/.*)", re.DOTALL)


class PathError(ValueError):
    """A path is refused or cannot be mapped; the text says which and why."""


def _normal(path: str) -> str:
    """An absolute path without `.`, doubled and trailing slashes."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/" + "/".join(parts)


def _climbs(path: str) -> bool:
    return ".." in path.split("/")


def _root(path: str) -> str:
    if not path.startswith("/") or _climbs(path):
        raise ValueError("a root is an absolute path without ..")
    root = _normal(path)
    if root == "/":
        raise ValueError("a root must not be / itself")
    return root


Root = Annotated[str, AfterValidator(_root)]


def _rest(path: str, root: str) -> str | None:
    """What of a normal path comes after the root; None if it is not below."""
    if path == root:
        return ""
    return path[len(root) :] if path.startswith(root + "/") else None


class PathRule(Noun):
    """What lies here under `local` lies under `remote` in a view of the target."""

    view: Name = Field("core", description="core, beamline, or any other name")
    local: Root = Field(description="absolute path at the beamline")
    remote: Root = Field(description="absolute path of the same folder on the target")


class PathPolicy(Noun):
    """How a recipe wants its paths mapped."""

    view: Name | None = Field(None, description="only by rules of this view; unset: by any")
    demand: bool = Field(
        False,
        description="an absolute path that comes into a word must be mapped, or the job fails",
    )


class Mapped(Noun):
    """A path on the target."""

    path: str
    view: str
    rule: PathRule


class PathMapper:
    """The rules of one target.

    :param rules: where two have the same local root, the first one counts.
    :raises ValueError: if two rules bring different local paths to the same remote one, so that
        there is no way back.
    """

    def __init__(self, rules: Iterable[PathRule] = ()) -> None:
        self.rules = tuple(rules)
        for rule in self.rules:
            for other in self.rules:
                rest = _rest(other.remote, rule.remote)
                if rest is not None and other.local != rule.local + rest:
                    raise ValueError(
                        f"{rule.local}{rest} and {other.local} would both be {other.remote}"
                    )

    def map(
        self,
        path: str,
        view: str | None = None,
        real: Callable[[str], str] | None = None,
    ) -> Mapped | None:
        """The path on the target; None if it is below no root.

        :param view: only by rules of this view.
        :param real: resolves the symlinks of a path that exists here.
        :raises PathError: if it holds `..`, or a symlink leads out of its root.
        """
        if not path.startswith("/"):
            return None
        if _climbs(path):
            self._refuse_climbing(path, view)
            return None
        normal = _normal(path)
        rule = self._longest(normal, view)
        if rule is None:
            return None
        if real is not None and _rest(_normal(real(normal)), _normal(real(rule.local))) is None:
            raise PathError(f"{path} leads out of {rule.local} by a symlink")
        rest = normal[len(rule.local) :]
        return Mapped(path=rule.remote + rest, view=rule.view, rule=rule)

    def _refuse_climbing(self, path: str, view: str | None) -> None:
        """Refuse `..` where it starts below a root or could lead below one."""
        stack: list[str] = []
        for part in path.split("/"):
            if part == "..":
                stack[-1:] = []
            elif part not in ("", "."):
                stack.append(part)
        before, _, _ = path.partition("/..")
        for seen in (_normal(before), _normal("/".join(stack))):
            if self._longest(seen, view) is not None:
                raise PathError(f"{path} holds ..")

    def _longest(self, normal: str, view: str | None) -> PathRule | None:
        fitting = [
            rule
            for rule in self.rules
            if view in (None, rule.view) and _rest(normal, rule.local) is not None
        ]
        # max takes the first of equals.
        return max(fitting, key=lambda rule: len(rule.local), default=None)

    def unmap(self, path: str, view: str | None = None) -> str | None:
        """The path at the beamline of one on the target; None if it is below no root.

        :raises PathError: if it holds `..`.
        """
        if not path.startswith("/"):
            return None
        if _climbs(path):
            raise PathError(f"{path} holds ..")
        normal = _normal(path)
        fitting = [
            rule
            for rule in self.rules
            if view in (None, rule.view) and _rest(normal, rule.remote) is not None
        ]
        rule = max(fitting, key=lambda rule: len(rule.remote), default=None)
        return None if rule is None else rule.local + normal[len(rule.remote) :]

    # ---- words of a command

    def word(
        self,
        word: Filled,
        policy: PathPolicy | None = None,
        real: Callable[[str], str] | None = None,
    ) -> str:
        """A word as the target's program gets it: mapped if it is a path, or `--option=path`.

        :raises PathError: if the path is refused, or is not mapped though the recipe demands it.
        """
        policy = policy or PathPolicy()
        option, path = _split_option(word.text)
        mapped = self.map(path, policy.view, real)
        if mapped is not None:
            return option + mapped.path
        demanded = [value for value in word.values if value.startswith("/")]
        if policy.demand and demanded:
            raise PathError(f"{demanded[0]} is below no root that the target knows{self._roots()}")
        return word.text

    def _roots(self) -> str:
        roots = ", ".join(sorted({rule.local for rule in self.rules}))
        return f" ({roots})" if roots else ""


def _split_option(text: str) -> tuple[str, str]:
    matched = OPTION.fullmatch(text)
    return (matched[1], matched[2]) if matched else ("", text)
