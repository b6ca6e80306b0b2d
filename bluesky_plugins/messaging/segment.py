"""One file of the spool: records, each with its length and checksum."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bluesky_plugins.messaging.codec import pack_plain, unpack_plain

__all__ = ["Record", "Segment"]

logger = logging.getLogger(__name__)

# length of what follows the header, its CRC-32 (over seq and that), seq
HEADER = struct.Struct(">IIQ")


class Record(NamedTuple):
    """A message that is not acknowledged yet.

    :param seq: order within its process; nanoseconds since the epoch, made unique.
    """

    seq: int
    topic: str
    key: bytes
    value: bytes

    def framed(self) -> bytes:
        """The record as it lies in a segment."""
        payload = pack_plain((self.topic, self.key, self.value))
        return HEADER.pack(len(payload), _sum(self.seq, payload), self.seq) + payload


def _sum(seq: int, payload: bytes) -> int:
    return zlib.crc32(payload, seq & 0xFFFFFFFF)


class Segment:
    """A file of records; what is written is never changed, but for `compact`.

    :param first: seq of its first record.
    """

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.first = first
        self.size = 0  # bytes of whole records
        self.left = 0  # records not acknowledged
        self.unread = 0
        self.sealed = False
        self._offset = 0
        self._file: int | None = None

    @classmethod
    def new(cls, path: Path, first: int) -> Segment:
        """An empty segment to append to."""
        segment = cls(path, first)
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
        segment._file = os.open(path, flags, 0o600)
        return segment

    @classmethod
    def existing(cls, path: Path) -> Segment:
        """A segment of a process that is gone; a torn end is left out."""
        segment = cls(path, int(path.name.partition("-")[0]))
        segment.sealed = True
        length = path.stat().st_size
        with path.open("rb") as file:
            while len(header := file.read(HEADER.size)) == HEADER.size:
                end = segment.size + HEADER.size + HEADER.unpack(header)[0]
                if end > length:
                    break
                segment.size = file.seek(end)
                segment.left += 1
        segment.unread = segment.left
        if segment.size != length:
            logger.warning("%s: the last record was not wholly written", path)
        return segment

    def append(self, framed: bytes) -> None:
        """Add a record.

        :raises OSError: if it cannot be written; the segment is as before then.
        """
        file = self._opened()
        try:
            written = os.pwrite(file, framed, self.size)
            while written < len(framed):
                written += os.pwrite(file, framed[written:], self.size + written)
        except OSError:
            os.ftruncate(file, self.size)
            raise
        self.size += len(framed)
        self.left += 1
        self.unread += 1

    def read(self) -> Record | None:
        """The next record; None if it is damaged."""
        record, offset = self._record_at(self._offset)
        if record is None:
            return None
        self._offset = offset
        self.unread -= 1
        if not self.unread and self.sealed:
            self._let_go()
        return record

    def skip_all(self) -> None:
        """Count everything as read."""
        self._offset = self.size
        self.unread = 0

    def set_aside(self, folder: Path) -> None:
        """Give up what is unread: the file goes to `folder`, for a person to look at."""
        self.left -= self.unread
        self.skip_all()
        self.sealed = True
        self._let_go()
        self.path = self.path.rename(folder / f"{self.path.stem}.damaged")

    def seal(self) -> None:
        """End the writing."""
        self.sealed = True
        if not self.unread:
            self._let_go()

    def compact(self, keep: Callable[[Record], bool]) -> None:
        """Leave out the records that were read and are acknowledged."""
        if self.left == self.unread + self._count(0, self._offset):
            return
        kept = [r for r in self._records(0, self._offset) if keep(r)]
        kept += self._records(self._offset, self.size)
        self._let_go()
        content = b"".join(record.framed() for record in kept)
        new = self.path.with_suffix(".new")
        new.write_bytes(content)
        new.replace(self.path)
        self.size, self.left = len(content), len(kept)

    def force(self) -> None:
        """Force the file to the disk."""
        file = self._opened()
        os.fsync(file)
        self._let_go()

    def remove(self) -> None:
        """Remove the file."""
        self._let_go()
        self.path.unlink(missing_ok=True)

    def _count(self, begin: int, end: int) -> int:
        return len(self._records(begin, end))

    def _records(self, begin: int, end: int) -> list[Record]:
        out: list[Record] = []
        while begin < end:
            record, begin = self._record_at(begin)
            if record is None:
                break
            out.append(record)
        return out

    def _record_at(self, offset: int) -> tuple[Record | None, int]:
        """The record there and where the next one begins."""
        file = self._opened()
        header = os.pread(file, HEADER.size, offset)
        if len(header) < HEADER.size:
            return None, offset
        length, checksum, seq = HEADER.unpack(header)
        if offset + HEADER.size + length > self.size:
            return None, offset
        payload = os.pread(file, length, offset + HEADER.size)
        if _sum(seq, payload) != checksum:
            return None, offset
        return Record(seq, *unpack_plain(payload)), offset + HEADER.size + length

    def _opened(self) -> int:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        return self._file

    def _let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
