"""Unsent messages on disk, in order.

A process has a folder of its own, locked (`flock`) while it lives. In it lie segments: files
of records that are only appended to, and removed when all of their messages are
acknowledged. The folder of a process that is gone is taken over by the next one that starts.

A record is out of this process when `append` returns: it survives the process's death of any
kind. It is not forced to the disk by each append, so a power cut may take the last seconds;
`close` forces it. A record that was cut off in the middle is left out, with a line in the log.
"""

from __future__ import annotations

import bisect
import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from bluesky_plugins.messaging.segment import Record, Segment
from bluesky_plugins.settings import Settings

__all__ = ["Spool", "SpoolFull", "open_spool"]

logger = logging.getLogger(__name__)

LOCK = "lock"
SUFFIX = ".spool"
SEGMENT_BYTES = 8_000_000


class SpoolFull(OSError):  # noqa: N818 - says what happened
    """The spool has reached `kafka.spool_max_mb`."""


class Spool:
    """What one process has not sent yet, oldest first. Not thread-safe.

    :param root: folder of the spools of all processes.
    :param max_bytes: `append` refuses to go beyond this, bytes.
    """

    def __init__(self, root: Path, max_bytes: int, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._folder: Path | None = None
        self._lock: int | None = None
        self._segments: list[Segment] = []
        self._writing: Segment | None = None

    @property
    def unread(self) -> int:
        """Number of records that `next` has not given yet."""
        return sum(segment.unread for segment in self._segments)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments)

    def take_over(self) -> int:
        """Take the segments of processes that are gone.

        :returns: number of records found.
        :raises OSError: if the folder cannot be used.
        """
        if not self._root.is_dir():
            return 0
        folders = (f for f in self._root.iterdir() if f.is_dir() and f != self._folder)
        found = 0
        for folder in sorted(f for f in folders if not f.name.startswith(".")):
            found += self._adopt(folder)
        return found

    def append(self, record: Record) -> Segment:
        """Keep a record behind all others.

        :raises SpoolFull: if there is no more room by the settings.
        :raises OSError: if there is none on the disk, or it cannot be written.
        """
        segment = self._writing
        if segment is None or segment.size >= self._segment_bytes:
            self.seal()
            segment = self._writing = self._begin(record)
        self._write(segment, record)
        return segment

    def journal(self, records: Iterable[Record]) -> list[Segment]:
        """Keep records that were handed on already: `next` does not give them to this process.

        :param records: by ascending `seq`.
        :returns: the segment of each record.
        :raises OSError: as `append`.
        """
        self.seal()
        out: list[Segment] = []
        try:
            self._journal(records, out)
        except OSError:
            # What is half written down would be sent twice.
            for segment in dict.fromkeys(out):
                self._remove(segment)
            raise
        for segment in dict.fromkeys(out):
            segment.seal()
        return out

    def _journal(self, records: Iterable[Record], out: list[Segment]) -> None:
        firsts = sorted(segment.first for segment in self._segments)
        for record in records:
            # A segment is read as a whole: it must not reach over the start of another.
            place = bisect.bisect(firsts, record.seq)
            if not out or place != bisect.bisect(firsts, out[-1].first):
                out.append(self._begin(record))
            else:
                out.append(out[-1])
            self._write(out[-1], record)
            out[-1].skip_all()

    def next(self) -> tuple[Record, Segment] | None:
        """The oldest record that was not given yet, and where it lies; None if there is none."""
        for segment in list(self._segments):
            while segment.unread:
                record = segment.read()
                if record is not None:
                    return record, segment
                self._give_up(segment)
        return None

    def release(self, segment: Segment) -> None:
        """A record of this segment is acknowledged; the last one removes it."""
        segment.left -= 1
        if segment.left <= 0 and segment.sealed and segment in self._segments:
            self._remove(segment)

    def close(self, keep: Callable[[Segment, Record], bool]) -> None:
        """Rewrite what is acknowledged in part, force all to the disk, and unlock.

        :param keep: says of a record that `next` or `journal` gave whether it is still unsent.
        """
        self.seal()
        for segment in list(self._segments):
            segment.compact(lambda record, s=segment: keep(s, record))  # type: ignore[misc]
            if segment.left <= 0:
                self._remove(segment)
            else:
                segment.force()
        if self._folder is not None and not self._segments:
            shutil.rmtree(self._folder, ignore_errors=True)
        self.unlock()

    def unlock(self) -> None:
        """Let go of the folder; also in a forked child, whose parent keeps it."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None
        for segment in self._segments:
            segment.seal()

    def _begin(self, record: Record) -> Segment:
        path = self._own() / f"{record.seq:020d}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        segment = Segment.new(path, record.seq)
        bisect.insort(self._segments, segment, key=lambda each: each.first)
        return segment

    def _write(self, segment: Segment, record: Record) -> None:
        framed = record.framed()
        if self.size + len(framed) > self._max_bytes:
            raise SpoolFull(f"the spool holds {self.size / 1e6:.0f} MB, kafka.spool_max_mb")
        segment.append(framed)

    def seal(self) -> None:
        """Begin a new segment at the next `append`: others were handed on since the last."""
        segment, self._writing = self._writing, None
        if segment is None:
            return
        segment.seal()
        if segment.left <= 0:
            self._remove(segment)

    def _remove(self, segment: Segment) -> None:
        self._segments.remove(segment)
        segment.remove()

    def _give_up(self, segment: Segment) -> None:
        """The rest of a segment cannot be read: keep the file for a person."""
        logger.error("%d unsent messages in %s cannot be read", segment.unread, segment.path)
        segment.set_aside(self._root)
        self._segments.remove(segment)

    def _own(self) -> Path:
        """This process's folder, made and locked when it is first needed."""
        if self._folder is None:
            name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
            # Made under another name, so that nobody sees it unlocked.
            new = self._root / f".{name}"
            new.mkdir(parents=True, mode=0o700)
            self._lock = os.open(new / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._folder = new.rename(self._root / name)
        return self._folder

    def _adopt(self, folder: Path) -> int:
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = [self._move(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
            shutil.rmtree(folder, ignore_errors=True)
        except (BlockingIOError, FileNotFoundError):
            return 0  # its process lives, or another one is just taking it over
        finally:
            os.close(lock)
        return sum(found)

    def _move(self, path: Path) -> int:
        segment = Segment.existing(path.rename(self._own() / path.name))
        if not segment.left:
            segment.remove()
            return 0
        bisect.insort(self._segments, segment, key=lambda each: each.first)
        return segment.left


def open_spool(settings: Settings) -> Spool:
    """The spool of this process, with what is left of processes that are gone."""
    spool = Spool(settings.spool_dir, settings.kafka.spool_max_mb * 1_000_000)
    try:
        found = spool.take_over()
    except OSError as error:
        logger.error("the spool %s cannot be read: %s", settings.spool_dir, error)
        return spool
    if found:
        logger.warning("%d messages that an earlier process could not send are sent now", found)
    return spool
