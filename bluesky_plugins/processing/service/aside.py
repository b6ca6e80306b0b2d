"""Jobs that cannot be driven: each is set aside alone, with its reason, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from bluesky_plugins.messaging import MessagingError
from bluesky_plugins.processing.service.store import StoreDownError

__all__ = ["Aside"]

log = structlog.get_logger(__name__)


class Aside:
    """What failed about a job in a way that nobody foresaw keeps no other job from going on.

    :param gone: called with the key of a job that is not looked after any more, until all jobs
        are taken up anew.
    """

    def __init__(self, gone: Callable[[str], None]) -> None:
        self._gone = gone
        self._reasons: dict[str, str] = {}

    @property
    def trouble(self) -> dict[str, str]:
        """Which jobs are set aside -> why."""
        return {f"job {key[:12]}": reason for key, reason in list(self._reasons.items())}

    def has(self, key: str) -> bool:
        """Whether a job is set aside."""
        return key in self._reasons

    def begin(self, unreadable: dict[str, str]) -> None:
        """All jobs are taken up anew, but those that cannot be read from the store."""
        self._reasons.clear()
        for key, reason in unreadable.items():
            self.put(key, f"it cannot be read: {reason}")

    @contextmanager
    def guard(self, key: str) -> Iterator[None]:
        """Do something about one job; what has a name of its own still goes its way."""
        try:
            yield
        except (StoreDownError, MessagingError):
            raise
        except Exception as error:
            log.exception("a job is set aside", key=key)
            self.put(key, f"{type(error).__name__}: {error}"[:500])

    def put(self, key: str, reason: str) -> None:
        """Look after it no more."""
        self._reasons[key] = reason
        self._gone(key)
