"""How often the jobs are looked after."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pace"]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often what is done; times in seconds."""

    poll_s: float = 1.0
    lease_s: float = 15.0
    retry_s: float = 0.5  # until a store that is down is asked again
