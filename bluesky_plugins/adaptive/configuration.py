"""Who recommends for a batch, and by which rules it is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from bluesky_plugins.adaptive.model import RecommenderInfo, RecommenderRequest, derived_uid
from bluesky_plugins.settings import AdaptiveSettings

__all__ = ["Configuration", "Described", "Rules", "configured", "rules_of"]


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of a recommender before it is made; `error` says why it cannot be."""

    version: str = ""
    parameters: Mapping[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a batch was given at its opening; it never changes after."""

    recommender: RecommenderInfo
    max_count: int
    independent_keys: tuple[str, ...]
    dependent_keys: tuple[str, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all batches of a service.

    :param describe: version and checked parameters of a recommender, by name.
    """

    defaults: RecommenderRequest
    describe: Callable[[str, Mapping[str, Any]], Described]
    max_revisions: int = 5
    silent_after: float = 600.0
    close_after: float = 86400.0
    reread_after: float = field(default=10.0)


def rules_of(
    settings: AdaptiveSettings, describe: Callable[[str, Mapping[str, Any]], Described]
) -> Rules:
    """The rules that the settings make."""
    defaults = RecommenderRequest(
        name=settings.recommender,
        parameters=settings.parameters,
        max_count=settings.max_count,
        independent_keys=settings.independent_keys,
        dependent_keys=settings.dependent_keys,
    )
    return Rules(
        defaults,
        describe,
        max_revisions=settings.max_revisions,
        silent_after=settings.silent_after_seconds,
        close_after=settings.close_after_seconds,
    )


def _requested(raw: Any, defaults: RecommenderRequest) -> tuple[RecommenderRequest, str | None]:
    if raw is None:
        return defaults, None
    if isinstance(raw, RecommenderRequest):
        return raw, None
    try:
        return RecommenderRequest.model_validate(
            {"name": raw} if isinstance(raw, str) else raw
        ), None
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'recommender'}: {item['msg']}"
            for item in error.errors(include_url=False, include_context=False)
        )
        return defaults, f"the start document's recommender is not understood: {told}"


def configured(batch_id: str, raw: Any, rules: Rules) -> Configuration:
    """Resolve what a start document or an opening asks for.

    :param raw: its `recommender`: a name, a mapping, or None for the defaults. What is wrong
        with it becomes the configuration's `error`.
    """
    defaults = rules.defaults
    request, error = _requested(raw, defaults)
    parameters = request.parameters
    if request.name == defaults.name and not parameters:
        parameters = defaults.parameters
    described = rules.describe(request.name, parameters)
    checked = parameters if described.parameters is None else described.parameters
    max_count = defaults.max_count if request.max_count is None else request.max_count
    return Configuration(
        RecommenderInfo(
            name=request.name,
            version=described.version,
            parameters=dict(checked),
            seed=seed_of(batch_id),
        ),
        max_count=max_count or 0,
        independent_keys=tuple(request.independent_keys or defaults.independent_keys or ()),
        dependent_keys=tuple(request.dependent_keys or defaults.dependent_keys or ()),
        error=error or described.error,
    )


def seed_of(batch_id: str) -> int:
    """The seed of a batch's recommender, 0 to 2**32 - 1."""
    return int(derived_uid("seed", batch_id)[:8], 16)
