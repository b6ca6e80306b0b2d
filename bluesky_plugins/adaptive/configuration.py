"""Who recommends for a batch, and by which rules it is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from bluesky_plugins.adaptive.model import (
    BatchMode,
    RecommenderInfo,
    RecommenderRequest,
    derived_uid,
)
from bluesky_plugins.settings import AdaptiveSettings

__all__ = ["PROCESSED", "Configuration", "Described", "Rules", "configured", "rules_of"]

# A dependent key `processing.<recipe>.<number>` is a number that processing finds.
PROCESSED = "processing."


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

    @property
    def measured_keys(self) -> tuple[str, ...]:
        """The dependent keys that events have."""
        return tuple(key for key in self.dependent_keys if not key.startswith(PROCESSED))

    @property
    def recipes(self) -> tuple[str, ...]:
        """The recipes of which a count's results are awaited, each once."""
        processed = (key for key in self.dependent_keys if key.startswith(PROCESSED))
        return tuple(dict.fromkeys(key.split(".")[1] for key in processed))


def _not_processed(key: str, mode: BatchMode) -> str | None:
    return f"{key}: nothing is processed here"


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all batches of a service.

    :param describe: version and checked parameters of a recommender, by name.
    :param unknown: why a dependent key `processing.<recipe>.<number>` will never have a value in
        a batch of this mode; None if it may have one.
    :param processing_wait: a count whose results are not there after this is stopped, s.
    """

    defaults: RecommenderRequest
    describe: Callable[[str, Mapping[str, Any]], Described]
    max_revisions: int = 5
    silent_after: float = 600.0
    close_after: float = 86400.0
    reread_after: float = field(default=10.0)
    unknown: Callable[[str, BatchMode], str | None] = _not_processed
    processing_wait: float = 3600.0


def rules_of(
    settings: AdaptiveSettings,
    describe: Callable[[str, Mapping[str, Any]], Described],
    unknown: Callable[[str, BatchMode], str | None] = _not_processed,
) -> Rules:
    """The rules that the settings make; see `Rules`."""
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
        unknown=unknown,
        processing_wait=settings.processing_wait_seconds,
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


def _impossible(keys: Sequence[str], mode: BatchMode, rules: Rules) -> str | None:
    """Why one of the keys will never have a value."""
    for key in keys:
        if key.startswith(PROCESSED):
            parts = key.split(".")
            if len(parts) != 3 or not all(parts):
                return f"dependent key {key}: it is not processing.<recipe>.<number>"
            if (why := rules.unknown(key, mode)) is not None:
                return f"dependent key {why}"
    return None


def configured(batch_id: str, raw: Any, rules: Rules, mode: BatchMode) -> Configuration:
    """Resolve what a start document or an opening asks for.

    :param raw: its `recommender`: a name, a mapping, or None for the defaults. What is wrong
        with it becomes the configuration's `error`.
    :param mode: whether a count is a run or an event.
    """
    defaults = rules.defaults
    request, error = _requested(raw, defaults)
    parameters = request.parameters
    if request.name == defaults.name and not parameters:
        parameters = defaults.parameters
    described = rules.describe(request.name, parameters)
    checked = parameters if described.parameters is None else described.parameters
    max_count = defaults.max_count if request.max_count is None else request.max_count
    dependent_keys = tuple(request.dependent_keys or defaults.dependent_keys or ())
    return Configuration(
        RecommenderInfo(
            name=request.name,
            version=described.version,
            parameters=dict(checked),
            seed=seed_of(batch_id),
        ),
        max_count=max_count or 0,
        independent_keys=tuple(request.independent_keys or defaults.independent_keys or ()),
        dependent_keys=dependent_keys,
        error=error or described.error or _impossible(dependent_keys, mode, rules),
    )


def seed_of(batch_id: str) -> int:
    """The seed of a batch's recommender, 0 to 2**32 - 1."""
    return int(derived_uid("seed", batch_id)[:8], 16)
