"""The sign of life of a recorder's loop: a file that is touched while the loop turns."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote

import structlog

from bluesky_plugins.settings import Settings, state_dir

__all__ = ["Beat", "beat_age", "beat_file"]

log = structlog.get_logger(__name__)
EVERY_SECONDS = 1.0


def beat_file(settings: Settings) -> Path:
    """The file of the recorder that has these settings; its group and instance name it."""
    recording = settings.recording
    parts = (settings.beamline, recording.group_id, recording.instance)
    return state_dir() / "beats" / f"recorder.{'.'.join(quote(p, safe='') for p in parts)}"


def beat_age(path: Path) -> float | None:
    """Seconds since the last beat; None if there was none.

    :raises OSError: if that cannot be seen.
    """
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None


class Beat:
    """Called by the loop at every turn; touches the file at most once a second.

    A file that cannot be touched does not hold up the loop: the log says so once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = -EVERY_SECONDS
        self._told = False

    def __call__(self) -> None:
        """The loop turned."""
        now = time.monotonic()
        if now - self._last < EVERY_SECONDS:
            return
        self._last = now
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
        except OSError as error:
            if not self._told:
                log.warning("no sign of life", file=str(self._path), reason=error.strerror)
            self._told = True
        else:
            self._told = False
