"""Recorded runs, as processing wants to read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo.errors import PyMongoError

from bluesky_plugins.processing import StoreDownError
from bluesky_plugins.recording import StoredRuns
from bluesky_plugins.settings import Settings

__all__ = ["RecordedRuns"]


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except PyMongoError as error:
        raise StoreDownError(str(error).split(", Timeout", 1)[0]) from error


class RecordedRuns:
    """A `processing.RunSource`: measured runs, and the results of processing."""

    def __init__(self, settings: Settings) -> None:
        self._measured = StoredRuns(settings)
        self._analysed = StoredRuns(settings, "analysis")

    def documents(self, uid: str) -> list[tuple[str, dict[str, Any]]] | None:
        """See `processing.RunSource`."""
        with _answers():
            return self._measured.documents(uid) or self._analysed.documents(uid)

    def last_of_batch(self, batch_id: str) -> str | None:
        """See `processing.RunSource`."""
        with _answers():
            return self._measured.last_of_batch(batch_id)

    def close(self) -> None:
        """Let go of the connections."""
        self._measured.close()
        self._analysed.close()
