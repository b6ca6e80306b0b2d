"""The program of recipe `focus` on this machine, in a virtual environment of its own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bluesky_plugins.cli.stack_processing import PROGRAM, example, program_folder
from bluesky_plugins.embedded import StackError

__all__ = ["make_program"]

SECONDS = 900.0
# It stands beside its interpreter, wherever the folder is moved to.
LAUNCHER = """#!/bin/sh
here=$(dirname "$0")
exec "$here/python" -I "$here/../lib/reduce_focus.py" "$@"
"""


def make_program(root: Path, say: Callable[[str], None]) -> Path:
    """Make it unless it is there; what was made half is made again. Needs the network once.

    :param root: the state folder.
    :param say: takes a line of progress.
    :returns: its path.
    :raises StackError: when it cannot be made; the text has what was said last.
    :raises OSError: when the folder cannot be written.
    """
    folder, wanted = program_folder(root), _made_from()
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder.parent / ".lock"):
        if _stamp(folder) != wanted:
            say(f"making the virtual environment of {PROGRAM} (the first time only) ...")
            _make(folder, wanted)
    return folder / "bin" / PROGRAM


def _made_from() -> str:
    """What it depends on, as one hash."""
    sources = [example("focus.lock"), example("reduce_focus.py")]
    parts = [sys.version, LAUNCHER, *(path.read_text() for path in sources)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _stamp(folder: Path) -> str:
    try:
        return (folder / ".made-from").read_text()
    except FileNotFoundError:
        return ""


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Two demos may be begun at a time."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(folder: Path, stamp: str) -> None:
    _clear(folder)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    _fill(new)
    (new / ".made-from").write_text(stamp)
    if folder.exists():
        folder.rename(new.with_name(f"{new.name}-old"))
    new.rename(folder)
    _clear(folder)


def _clear(folder: Path) -> None:
    """Remove what was made half, and what was replaced."""
    for left in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left)


def _fill(folder: Path) -> None:
    uv, python = shutil.which("uv", path=_search_path()), str(folder / "bin" / "python")
    lock = ["--require-hashes", "--no-deps", "-r", str(example("focus.lock"))]
    _run([sys.executable, "-m", "venv", *(["--without-pip"] if uv else []), str(folder)])
    if uv is None:
        _run([python, "-m", "pip", "install", "--quiet", *lock])
    else:
        install = [uv, "pip", "install", "--quiet", "--python", python, *lock]
        # Most of it was installed for ourselves already.
        if _run([*install, "--offline"], may_fail=True):
            _run(install)
    (folder / "lib").mkdir(exist_ok=True)
    shutil.copyfile(example("reduce_focus.py"), folder / "lib" / "reduce_focus.py")
    launcher = folder / "bin" / PROGRAM
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)
    _run([str(launcher), "--help"])


def _search_path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _run(argv: list[str], *, may_fail: bool = False) -> int:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise StackError(f"`{' '.join(argv)}` took longer than {SECONDS:g} s") from None
    if done.returncode and not may_fail:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-10:])
        raise StackError(f"`{' '.join(argv)}` failed:\n{said}")
    return done.returncode
