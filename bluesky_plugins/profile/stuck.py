"""Whether the queue's manager hangs after an outage of Redis; pure.

When Redis goes away in the middle of a plan, the plan ends, but the manager says
`executing_queue` for ever. A restart of its process puts that right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["POLLS", "StuckWatch", "looks_stuck"]

POLLS = 4  # one after the other; between two plans it looks the same for a moment
EXECUTING = ("executing_queue", "starting_queue")


def looks_stuck(status: Mapping[str, Any]) -> bool:
    """Whether the manager says that it executes while its worker has nothing to do."""
    return (
        status.get("manager_state") in EXECUTING
        and status.get("worker_environment_state") == "idle"
        and status.get("re_state") == "idle"
    )


@dataclass(frozen=True)
class StuckWatch:
    """What the last polls saw, one second or more apart."""

    seen: int = 0
    reported: str = ""

    @property
    def stuck(self) -> bool:
        """Whether it looked stuck `POLLS` times in a row, with nothing new from the worker."""
        return self.seen >= POLLS

    def after(self, status: Mapping[str, Any] | None) -> StuckWatch:
        """The watch after one more poll; None: the manager did not answer."""
        if status is None or not looks_stuck(status):
            return StuckWatch()
        reported = str([status.get(key) for key in ("running_item_uid", "run_list_uid")])
        if reported != self.reported:
            return StuckWatch(1, reported)
        return replace(self, seen=self.seen + 1)
