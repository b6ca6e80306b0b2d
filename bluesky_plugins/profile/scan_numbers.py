"""`scan_id`: one row of numbers for bsui and the queue, over restarts and outages of Redis.

Redis counts for every machine of the beamline; a locked file in the state folder counts for
this machine while Redis is away, and keeps Redis from going back after it.
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import redis

from bluesky_plugins.settings import Settings, state_dir

__all__ = ["ScanNumbers", "make_scan_numbers", "next_number"]

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 0.4  # a connection and an answer each; a scan waits no longer
AWAY_SECONDS = 15.0  # Redis is not asked again for this long after it did not answer
# Redis never counts below what this machine has used already.
ABOVE = """
local last = math.max(tonumber(redis.call('GET', KEYS[1])) or 0, tonumber(ARGV[1]))
redis.call('SET', KEYS[1], string.format('%d', last + 1))
return last + 1
"""


def next_number(local: int, shared: int | None) -> int:
    """The number after the last local one, and not below what the others have reached."""
    return max(local + 1, shared or 0)


class ScanNumbers:
    """A `scan_id_source` for a RunEngine; it never fails and waits at most about a second.

    :param count: asks Redis for a number above the given one; None when it does not answer.
    :param path: file that keeps the last number used on this machine.
    """

    def __init__(self, count: Callable[[int], int | None], path: Path) -> None:
        self._count = count
        self._path = path
        self._last = 0

    def __call__(self, md: Mapping[str, Any] | None = None) -> int:
        """The next number; above all that this machine has given out."""
        shared = self._count(max(self._last, self._stored()))
        try:
            with _locked(self._path) as file:
                self._last = next_number(max(self._last, _number(file)), shared)
                _store(file, self._last)
        except OSError as error:
            logger.warning("scan_id is not kept in %s: %s", self._path, error)
            self._last = next_number(self._last, shared)
        return self._last

    def _stored(self) -> int:
        try:
            with self._path.open() as file:
                return _number(file)
        except OSError:
            return 0  # the first scan; or what is wrong is said when the number is stored


class _RedisCount:
    def __init__(self, url: str, key: str) -> None:
        self._client = redis.Redis.from_url(
            url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS, retry=None
        )
        self._above = self._client.register_script(ABOVE)
        self._key = key
        self._away_until = 0.0

    def __call__(self, last: int) -> int | None:
        if time.monotonic() < self._away_until:
            return None
        try:
            return int(self._above(keys=[self._key], args=[last]))
        except (redis.RedisError, ValueError) as error:
            self._away_until = time.monotonic() + AWAY_SECONDS
            logger.warning("Redis does not count scans now (%s); this machine does", error)
            return None


def make_scan_numbers(settings: Settings) -> ScanNumbers:
    """The numbers of the settings' beamline."""
    count = _RedisCount(settings.redis.address, f"{settings.beamline}:scan_id")
    return ScanNumbers(count, state_dir() / f"{settings.beamline}-scan_id")


@contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        # Held for one read and one write by whoever has it: no wait worth a deadline.
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _number(file: IO[str]) -> int:
    file.seek(0)
    text = file.read(32).strip()
    return int(text) if text.isdecimal() else 0


def _store(file: IO[str], number: int) -> None:
    file.seek(0)
    file.truncate()
    file.write(f"{number}\n")
    file.flush()
