"""What a plan is told while it waits: what for, and that it shall go on waiting."""

from __future__ import annotations

from collections.abc import Callable

from bluesky_plugins.adaptive.model import Waiting
from bluesky_plugins.adaptive.state import Compute, Wait

__all__ = ["Progress", "awaiting", "computing"]

# Run, count, recipe -> where its job is; None if that is not known.
Progress = Callable[[str, int, str], str | None]


def computing(compute: Compute, until: float) -> Waiting:
    """A recommender has not replied yet.

    :param until: seconds since the epoch.
    """
    name = compute.configuration.recommender.name
    reason = f"a reply of recommender {name}"
    return Waiting(batch_id=compute.batch_id, batch_count=compute.count, reason=reason, until=until)


def awaiting(wait: Wait, progress: Progress, until: float) -> Waiting:
    """Processing has not brought its results yet.

    :param until: seconds since the epoch.
    """
    awaited = wait.awaited
    parts = [f"recipe {name}{_where(wait, name, progress)}" for name in wait.recipes]
    reason = f"results of processing for run {awaited.run}: {'; '.join(parts)}"
    return Waiting(batch_id=wait.batch_id, batch_count=awaited.count, reason=reason, until=until)


def _where(wait: Wait, recipe: str, progress: Progress) -> str:
    said = progress(wait.awaited.run, wait.awaited.count, recipe)
    return "" if said is None else f", {said}"
