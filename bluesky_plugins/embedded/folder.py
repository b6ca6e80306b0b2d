"""The folder of a stack: where everything is, whose it is, and what may be done with it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bluesky_plugins.embedded.parts import StackError

__all__ = ["LAYOUT", "StateFolder"]

# Raised when the arrangement of the folder changes so that an older one cannot be used.
LAYOUT = 1
# What we, and producers without a stack, put there; anything else makes it another's folder.
OURS = (
    "data", "log", "run", "spool", "camera", "queue", "demo", "beats", "jobs", "programs",
    "api_key", "stack.json", "ports.json", "lock",
)  # fmt: skip
# The last scan number of each beamline, kept by processes that may run without a stack.
OURS_TOO = "*-scan_id"


class StateFolder:
    """A folder of 0700 with data/, log/, run/, api_key, ports.json and stack.json.

    stack.json stands there while the stack is meant to run.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.data = self.root / "data"
        self.log = self.root / "log"
        self.run = self.root / "run"
        self.key_file = self.root / "api_key"
        self.ports_file = self.root / "ports.json"
        self.stack_file = self.root / "stack.json"
        self.version_file = self.data / "version.json"
        self.parts_file = self.run / "parts.json"
        self.supervisor_file = self.run / "supervisor.json"
        self.supervisor_lock = self.run / "supervisor.lock"

    def check(self, versions: Mapping[str, str], minimum_free_mb: int) -> None:
        """Refuse what must not be touched or cannot work; nothing is changed.

        :param versions: server -> release series whose data format the folder must have.
        :raises StackError: for another's folder, data of another version, or a full disk.
        """
        self._check_owner()
        self._check_version(versions)
        free = shutil.disk_usage(_existing(self.root)).free // 1_000_000
        if free < minimum_free_mb:
            raise StackError(
                f"the disk of {self.root} has {free} MB free and the stack needs {minimum_free_mb} "
                "MB (embedded.minimum_free_mb); make room or use --state-dir"
            )

    def make(self, versions: Mapping[str, str]) -> None:
        """Make what is missing.

        :raises StackError: when the folder cannot be written.
        """
        try:
            for path in (self.root, self.data, self.log, self.run):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.chmod(0o700)
            if not self.version_file.exists():
                self.write(self.version_file, {"layout": LAYOUT, **versions})
            if not self.key_file.exists():
                _write(self.key_file, secrets.token_hex(32) + "\n")
            self.key_file.chmod(0o600)
        except OSError as error:
            raise StackError(f"{self.root} cannot be used: {error.strerror}") from None

    def read(self, path: Path) -> dict[str, Any] | None:
        """The JSON object in one of our files, None when there is none.

        :raises StackError: when it is not a JSON object.
        """
        try:
            content = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StackError(f"{path} cannot be read: {error}") from None
        if not isinstance(content, dict):
            raise StackError(f"{path} cannot be read: it is no JSON object")
        return content

    def write(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write a JSON object so that a reader sees the old one or the new one, never half."""
        _write(path, json.dumps(content, indent=1) + "\n")

    def supervised(self) -> bool:
        """Whether a supervisor lives: it holds the lock as long as it does."""
        try:
            descriptor = os.open(self.supervisor_lock, os.O_RDWR)
        except OSError:
            return False
        try:
            # Shared: two that ask at once must not take each other for a supervisor.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def hold_supervisor_lock(self, timeout: float = 1.0) -> None:
        """Be the supervisor, as long as this process or one forked from it lives.

        :param timeout: s; somebody who just asks `supervised` is in the way for a moment.
        :raises StackError: when there is another one.
        """
        descriptor = os.open(self.supervisor_lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _flock(descriptor, timeout, lambda: None, pause=0.01)
        except StackError:
            os.close(descriptor)
            raise StackError(f"{self.root} has a supervisor already") from None

    @contextlib.contextmanager
    def command_lock(self, timeout: float, on_wait: Callable[[], None]) -> Iterator[None]:
        """One `up` or `down` at a time.

        :param timeout: s, how long to wait for another one.
        :param on_wait: called once, if another one runs.
        :raises StackError: when the other one has not ended by then.
        """
        self._check_owner()
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _flock(descriptor, timeout, on_wait)
            yield
        finally:
            os.close(descriptor)

    def wipe(self) -> None:
        """Remove all that is ours.

        :raises StackError: when the folder does not have our mark.
        """
        self.check_mark()
        # The mark goes last: a wipe that is killed can be done again.
        names = {*OURS, *(p.name for p in self.root.glob(OURS_TOO))}
        for name in sorted(names, key=lambda n: (n == "data", n == "lock")):
            path = self.root / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.root.rmdir()

    def check_mark(self) -> None:
        """Refuse a folder that no `up` has made.

        :raises StackError: when there is no mark.
        """
        marked = self.read(self.version_file)
        if marked is None or "layout" not in marked:
            raise StackError(
                f"{self.root} is not a folder of ours (no {self.version_file}); not wiped"
            )

    def _check_owner(self) -> None:
        if not self.root.exists():
            return
        if not self.root.is_dir():
            raise StackError(f"{self.root} is not a folder")
        foreign = sorted(p.name for p in self.root.iterdir() if not _is_ours(p))
        if foreign and not self.version_file.exists():
            raise StackError(
                f"{self.root} holds other things ({', '.join(foreign[:3])}); "
                "give --state-dir a folder of its own"
            )

    def _check_version(self, versions: Mapping[str, str]) -> None:
        expected = {"layout": LAYOUT, **versions}
        if not self.data.exists() or not any(self.data.iterdir()):
            return
        found = self.read(self.version_file)
        if found is None:
            raise StackError(
                f"{self.data} has data but no {self.version_file.name}, so that its version is not "
                "known; use another --state-dir, or move that folder away"
            )
        for name, version in expected.items():
            if found.get(name) != version:
                raise StackError(
                    f"{self.data} was written by another version ({name} {found.get(name)}, this "
                    f"is {version}); use that version, or another --state-dir, or `down --wipe`, "
                    "which loses the data"
                )


def _is_ours(path: Path) -> bool:
    return path.name in OURS or path.match(OURS_TOO)


def _existing(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.exists())


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _flock(
    descriptor: int, timeout: float, on_wait: Callable[[], None], pause: float = 0.1
) -> None:
    deadline = time.monotonic() + timeout
    never = threading.Event()
    told = False
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StackError("another `up` or `down` of this folder has not ended") from None
        if not told:
            on_wait()
            told = True
        never.wait(pause)
