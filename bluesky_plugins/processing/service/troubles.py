"""Who does not answer, and why."""

from __future__ import annotations

import structlog

__all__ = ["Troubles"]

log = structlog.get_logger(__name__)


class Troubles:
    """Servers and targets that do not answer; said once for each reason."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def told(self, who: str, reason: str) -> None:
        """How it is with one of them; without a reason it is well."""
        if reason and self.known.get(who) != reason:
            log.warning("does not answer", who=who, reason=reason)
        if reason:
            self.known[who] = reason
        else:
            self.known.pop(who, None)
