"""The pinned jars of the embedded servers: fetched once by jgo, checked before every use.

A lock file beside this module names each jar with its sha256. Nothing is looked up in a
repository while all jars are there: a warm start reads and hashes them, no more.
"""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Literal

from platformdirs import user_cache_path

__all__ = ["Jar", "JarError", "classpath", "default_jars_dir", "lacking_jars", "locked_jars"]

Server = Literal["kafka", "mongo"]
DOWNLOADS_AT_ONCE = 6
ATTEMPTS = 3
# Longer than the slowest line needs for 50 MB; a second process waits for the first.
LOCK_SECONDS = 600.0


class JarError(RuntimeError):
    """A jar cannot be had or is not the one that is pinned; the message says what to do."""


@dataclass(frozen=True)
class Jar:
    """One pinned jar."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def path(self) -> PurePosixPath:
        """Where it lies in a folder that is laid out like a Maven repository."""
        folder = PurePosixPath(*self.group.split("."), self.artifact, self.version)
        return folder / f"{self.artifact}-{self.version}.jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


def locked_jars(server: Server) -> tuple[Jar, ...]:
    """The jars that the checked-in lock file of a server names, in class path order."""
    text = (files(__package__) / f"{server}.lock.toml").read_text()
    return tuple(
        Jar(entry["groupId"], entry["artifactId"], entry["version"], entry["sha256"])
        for entry in tomllib.loads(text)["dependencies"]
    )


def default_jars_dir() -> Path:
    """Folder of the jars of this user: shared by all stacks, outlives them."""
    return user_cache_path("bluesky-plugins") / "jars"


def classpath(server: Server, folder: Path | None = None) -> list[Path]:
    """Paths of a server's jars, each checked; those that lack are fetched first.

    :param folder: folder of the jars; None means `default_jars_dir()`. One that somebody
        filled on another machine needs no network.
    :raises JarError: a jar is not the pinned one, or cannot be fetched.
    """
    folder = folder or default_jars_dir()
    jars = locked_jars(server)
    if _lacking(jars, folder):
        with _one_process(folder):
            # Another process may have fetched them meanwhile.
            _fetch(_lacking(jars, folder), folder)
    paths = [folder / jar.path for jar in jars]
    for jar, path in zip(jars, paths, strict=True):
        _check(jar, path)
    return paths


def lacking_jars(server: Server, folder: Path | None = None) -> tuple[Jar, ...]:
    """The jars that `classpath` would have to fetch.

    :param folder: see `classpath`.
    """
    return tuple(_lacking(locked_jars(server), folder or default_jars_dir()))


def _lacking(jars: Sequence[Jar], folder: Path) -> list[Jar]:
    return [jar for jar in jars if not (folder / jar.path).is_file()]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(jar: Jar, path: Path) -> None:
    try:
        found = _sha256(path)
    except OSError as error:
        raise JarError(f"{path} cannot be read: {error.strerror}") from error
    if found != jar.sha256:
        raise JarError(
            f"{path} is not the pinned {jar} (its sha256 is {found}, not {jar.sha256}): "
            "delete that file and start again, and it is fetched anew"
        )


@contextmanager
def _one_process(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; it goes with the process, however that ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise JarError(f"the folder of the jars, {folder}: {error.strerror}") from error
    with lock:
        _wait_for_lock(lock.fileno(), folder, time.monotonic() + LOCK_SECONDS)
        yield


def _wait_for_lock(descriptor: int, folder: Path, deadline: float) -> None:
    pause = threading.Event()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise JarError(
                    f"another process has been fetching jars into {folder} for more than "
                    f"{LOCK_SECONDS:.0f} s; end it and start again"
                ) from None
            pause.wait(0.1)
        else:
            return


def _fetch(jars: Sequence[Jar], folder: Path) -> None:
    if not jars:
        return
    # Fetched beside their place, moved into it when checked: a torn jar never lies there.
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as beside,
        ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool,
    ):
        list(pool.map(lambda jar: _fetch_one(jar, folder, Path(beside)), jars))


def _fetch_one(jar: Jar, folder: Path, beside: Path) -> None:
    path = _download(jar, folder, beside)
    found = _sha256(path)
    if found != jar.sha256:
        raise JarError(
            f"what the repository has as {jar} is not what is pinned (its sha256 is {found}, "
            f"not {jar.sha256}); it was not kept"
        )
    place = folder / jar.path
    place.parent.mkdir(parents=True, exist_ok=True)
    path.replace(place)


def _download(jar: Jar, folder: Path, beside: Path) -> Path:
    # Imported when something is to be fetched: it costs more than checking all jars.
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    # A facility's own repository is named in jgo's configuration file.
    mirrors = GlobalSettings.load().repositories or None
    failure: Exception | None = None
    for attempt in range(ATTEMPTS):
        cache = beside / f"{jar.artifact}-{attempt}"
        context = MavenContext(repo_cache=cache, remote_repos=mirrors)
        artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
        try:
            return Path(artifact.resolve())
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
            failure = error
    raise JarError(
        f"{jar} cannot be fetched ({failure}); without a network, put it at {folder / jar.path} "
        "or name a filled folder in the setting embedded.jars_dir"
    )
