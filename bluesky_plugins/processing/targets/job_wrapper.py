"""What runs a job where it runs: one file, the standard library alone, Python 3.6 or later.

It is shipped to the target and started there in one of two ways: `job_wrapper.py run FOLDER`
carries out the attempt that `FOLDER/spec.json` describes, `job_wrapper.py start FOLDER` does the
same in the background and prints its process id and start time.

The folder is `<work_dir>/<key[:2]>/<key>/<attempt>`. Whoever makes the folder `claim` in it
carries the attempt out, and nobody else ever does: neither a duplicate nor a requeued job. Files
there: `spec.json`, `claim/`, `heartbeat` (touched as long as the wrapper lives), `stdout`,
`stderr`, `cancel` (put there by whoever cancels) and `result.json`, which appears whole, once.
"""

import contextlib
import ctypes
import json
import math
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

MAX_SPEC = 8_000_000  # bytes
MAX_RESULT = 1_000_000  # bytes of the program's own result file
MAX_OUTPUTS = 10_000  # files in the manifest
MAX_TAIL = 4_096  # characters kept of the end of each stream in the record
MAX_DETAIL = 4_000  # characters
STACK = 8 << 20  # bytes of a thread's stack, as most systems have it
WATCH_S = 1.0  # how often memory is looked at
SWEEP_S = 5.0  # what is left of a program is gone after this, or stays
STOPPED_S = 1.0  # who wakes up so much too late was stopped itself
RESERVE = 1 << 17  # bytes kept for the record, should the disk be full by then
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
NO_MEMORY = re.compile(
    r"MemoryError|std::bad_alloc|[Cc]annot allocate memory|[Oo]ut of memory|oom-kill"
)
NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")
WHERE = re.compile(r"/([0-9a-f]{2})/(\1[0-9a-f]{62})/([1-9][0-9]{0,8})$")
FIELDS = {
    "key": str,
    "attempt": int,
    "argv": list,
    "environment": dict,
    "directory": (str, type(None)),
    "time_limit_s": (int, float, type(None)),
    "memory_mb": (int, type(None)),
    "outputs": list,
    "result": (dict, type(None)),
    "heartbeat_s": (int, float),
    "grace_s": (int, float),
    "log_mb": int,
}


class RefusedError(Exception):
    """The attempt cannot be carried out, and why."""


# ---- the specification


def read_spec(folder: Path) -> "dict[str, Any]":
    """The attempt that a folder holds.

    :raises RefusedError: if it is not exactly what is expected there.
    """
    where = WHERE.search(str(folder))
    if where is None:
        raise RefusedError("the folder is not <key[:2]>/<key>/<attempt>")
    try:
        with (folder / "spec.json").open("rb") as file:
            text = file.read(MAX_SPEC + 1)
        if len(text) > MAX_SPEC:
            raise RefusedError("spec.json is too large")
        spec = json.loads(text.decode("utf-8"))
    except OSError as error:
        raise RefusedError("spec.json: " + str(error.strerror)) from None
    except (ValueError, RecursionError) as error:
        raise RefusedError("spec.json is not JSON: " + str(error)[:200]) from None
    _check(spec)
    if (spec["key"], spec["attempt"]) != (where.group(2), int(where.group(3))):
        raise RefusedError("spec.json is of another attempt than its folder")
    return dict(spec)


def _check(spec: "object") -> None:
    if not isinstance(spec, dict) or set(spec) != set(FIELDS):
        raise RefusedError(
            "spec.json does not have exactly the fields " + ", ".join(sorted(FIELDS))
        )
    for name, kind in FIELDS.items():
        if not isinstance(spec[name], kind) or isinstance(spec[name], bool):  # type: ignore[arg-type]
            raise RefusedError("spec.json: " + name + " is of a wrong kind")
    words = [*spec["argv"], *spec["environment"], *spec["environment"].values(), *spec["outputs"]]
    words += [spec["directory"] or ""]
    if not all(isinstance(word, str) and "\0" not in word for word in words):
        raise RefusedError("spec.json: a word is no text, or holds a NUL")
    try:
        "".join(words).encode("utf-8")
    except UnicodeEncodeError:
        raise RefusedError("spec.json: a word cannot be written as UTF-8") from None
    if not spec["argv"] or not spec["argv"][0]:
        raise RefusedError("spec.json: argv has no program")
    if any("=" in name or not name for name in spec["environment"]):
        raise RefusedError("spec.json: a variable's name is empty or holds =")
    for name in ("time_limit_s", "memory_mb", "heartbeat_s", "grace_s", "log_mb"):
        if spec[name] is not None and not 0 < spec[name] < 1e9:
            raise RefusedError("spec.json: " + name + " is out of its range")
    _check_paths(spec["outputs"], spec["result"])


def _check_paths(outputs: "list[str]", result: "dict[str, Any] | None") -> None:
    if result is not None:
        names = result.get("numbers")
        if set(result) != {"file", "numbers"} or not isinstance(result["file"], str):
            raise RefusedError("spec.json: result is not a file and numbers")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise RefusedError("spec.json: the names of the numbers are no texts")
        outputs = [*outputs, result["file"]]
    for path in outputs:
        parts = path.split("/")
        if not path or path.startswith("/") or ".." in parts or "\0" in path:
            raise RefusedError("spec.json: a path is not below the working directory")
        if any("**" in part and part != "**" for part in parts) or set(parts) <= {"", "."}:
            raise RefusedError("spec.json: " + path[:200] + " is not a pattern of paths")


def native(text: str) -> str:
    """A path as this Python wants it, whatever the locale."""
    return os.fsdecode(text.encode("utf-8"))


# ---- files that appear whole


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there completely or not at all, also after a crash."""
    new = path.with_name("{}.{}".format(path.name, os.getpid()))
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    folder = os.open(str(path.parent), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def tail(path: Path, limit: int) -> str:
    """The end of a file, at most `limit` characters; nothing if it is not there."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4 * limit))
            return file.read(4 * limit).decode("utf-8", "replace")[-limit:]
    except OSError:
        return ""


# ---- processes


def processes() -> "dict[int, tuple[int, str, str, int]]":
    """Of each process: its parent, state, start time (clock ticks) and resident memory (bytes)."""
    page = os.sysconf("SC_PAGE_SIZE")
    table = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        parent, state, began = int(words[1]), words[0].decode(), words[19].decode()
        table[int(path.parent.name)] = (parent, state, began, int(words[21]) * page)
    return table


def descendants(table: "dict[int, tuple[int, str, str, int]]", root: int) -> "set[int]":
    """All processes below one."""
    children = {}  # type: dict[int, list[int]]
    for pid, row in table.items():
        children.setdefault(row[0], []).append(pid)
    found, open_ends = set(), [root]
    while open_ends:
        new = children.get(open_ends.pop(), [])
        found.update(new)
        open_ends.extend(new)
    return found


def held(pid: int, resident: int) -> int:
    """Memory of a process, bytes, with its part of what it shares; else all that is resident."""
    try:
        text = Path("/proc/{}/smaps_rollup".format(pid)).read_text()
        return int(text.split("\nPss:")[1].split()[0]) << 10
    except (OSError, IndexError, ValueError) as error:
        # One that has ended since holds nothing; its part may be counted with another's by now.
        ended = isinstance(error, ProcessLookupError) or not Path("/proc/{}".format(pid)).exists()
        return 0 if ended else resident


def _libc() -> "ctypes.CDLL | None":
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl.restype = ctypes.c_int
    except (OSError, AttributeError):
        return None
    return libc


class Printed(threading.Thread):
    """What a program prints: its beginning in a file, its end in memory; all of it is read."""

    def __init__(self, path: Path, limit: int) -> None:
        super().__init__(name=path.name, daemon=True)
        self._file = path.open("wb", buffering=0)
        self._source, self.sink = os.pipe()
        self._room = limit
        self._end = b""
        self.dropped = 0  # bytes
        self.fault = ""

    def run(self) -> None:
        """Read to the end; what is left of the program may not wait for us."""
        with self._file, os.fdopen(self._source, "rb", buffering=0) as source:
            while True:
                data = source.read(1 << 16)
                if not data:
                    return
                self._end = (self._end + data)[-4 * MAX_TAIL :]
                self._keep(data)

    def _keep(self, data: bytes) -> None:
        kept = data[: self._room]
        try:
            while kept:
                written = self._file.write(kept) or 0
                self._room -= written
                data, kept = data[written:], kept[written:]
        except OSError as error:
            self.fault, self._room = str(error.strerror), 0
        self.dropped += len(data)

    def tail(self) -> str:
        """The end of it, at most `MAX_TAIL` characters."""
        return self._end.decode("utf-8", "replace")[-MAX_TAIL:]

    def lacks(self) -> str:
        """One sentence about what the file does not have, or nothing."""
        if not self.dropped:
            return ""
        why = self.fault or "longer than it may be"
        return "{} bytes of {} are not kept: {}".format(self.dropped, self.name, why)


class Program:
    """The program of an attempt, with all that it starts; none of it outlives `sweep`."""

    def __init__(self, spec: "dict[str, Any]", folder: Path, directory: Path) -> None:
        self.exit_code = None  # type: int | None
        self.signal = None  # type: int | None
        self.ended = False
        libc, limit = _libc(), spec["memory_mb"]
        if libc is not None:
            # What the program leaves behind becomes ours, however it detached itself.
            libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            if libc is not None:
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if limit is not None:
                # What is written to, and not what is merely reserved, as CUDA and Java do. Stacks
                # of threads count as if they were full, so each CPU's thread gets one on top.
                most = (limit << 20) + (os.cpu_count() or 1) * STACK
                resource.setrlimit(resource.RLIMIT_DATA, (most, most))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        environment = dict(os.environb)
        added = dict(spec["environment"], BP_JOB_KEY=spec["key"])
        environment.update({name.encode(): value.encode() for name, value in added.items()})
        limit_of_log = spec["log_mb"] << 20
        self.printed = [Printed(folder / name, limit_of_log) for name in ("stdout", "stderr")]
        try:
            self._process = subprocess.Popen(
                [word.encode() for word in spec["argv"]],
                stdin=subprocess.DEVNULL,
                stdout=self.printed[0].sink,
                stderr=self.printed[1].sink,
                cwd=str(directory),
                env=environment,
                preexec_fn=prepare,
                start_new_session=True,
            )
        finally:
            for one in self.printed:
                os.close(one.sink)
        for one in self.printed:
            one.start()
        self.pid = self._process.pid

    def reap(self) -> None:
        """Take notice of what has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.ended = True
                self.signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
                self.exit_code = None if self.signal else os.WEXITSTATUS(status)
                self._process.returncode = -self.signal if self.signal else self.exit_code

    def send(self, number: int) -> None:
        """A signal to the program's process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def exceeds(self, limit: int) -> bool:
        """Whether all that the program started holds more memory than so many bytes."""
        table = processes()
        pids = descendants(table, os.getpid())
        if sum(table[pid][3] for pid in pids) <= limit:
            return False
        # What processes share was counted for each of them; this is slower and counts it once.
        return sum(held(pid, table[pid][3]) for pid in pids) > limit

    def sweep(self) -> "list[int]":
        """End whatever is left; the processes that could not be ended."""
        deadline = time.monotonic() + SWEEP_S
        while True:
            self.send(signal.SIGKILL)
            self.reap()
            left = sorted(descendants(processes(), os.getpid()))
            for pid in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            if not left or time.monotonic() >= deadline:
                return left
            signal.sigtimedwait([signal.SIGCHLD], 0.05)

    def heard(self) -> None:
        """Wait for all that it printed, as long as nobody who is left keeps that open."""
        for one in self.printed:
            one.join(SWEEP_S)


# ---- one attempt


class Attempt:
    """From the claim to the record."""

    def __init__(self, folder: Path, spec: "dict[str, Any]") -> None:
        self.folder = folder
        self.spec = spec
        self.directory = Path(native(spec["directory"]) if spec["directory"] else folder / "work")
        self.started = time.time()
        self.record: "dict[str, Any]" = {
            "key": spec["key"],
            "attempt": spec["attempt"],
            "reason": "exited",
            "exit_code": None,
            "signal": None,
            "detail": "",
            "host": socket.gethostname()[:255],
            "native_id": native_id(),
            "numbers": {},
            "outputs": [],
        }

    def carry_out(self) -> None:
        """Run the program and write the record."""
        before = self._files()
        if (self.folder / "cancel").exists():
            self.record.update(reason="cancelled", detail="cancelled before it started")
        else:
            self._run()
        after = self._files()
        changed = [path for path, row in after.items() if before.get(path) != row]
        self.record["outputs"] = [
            {"path": path, "size": after[path][0], "mtime": after[path][1] / 1e9}
            for path in changed[:MAX_OUTPUTS]
        ]
        if len(changed) > MAX_OUTPUTS:
            self._say("{} files of {} are listed".format(MAX_OUTPUTS, len(changed)))
        if self.record["reason"] == "exited" and self.record["exit_code"] == 0:
            self._take_numbers(before, after)
        self.write()

    def write(self) -> None:
        """The record, as it stands."""
        for name in ("stdout", "stderr"):
            self.record.setdefault(name, "")
        self.record["detail"] = self.record["detail"][:MAX_DETAIL]
        self.record.update(started=self.started, ended=max(time.time(), self.started))
        with contextlib.suppress(OSError):
            (self.folder / "reserve").unlink()
        try:
            write_whole(self.folder / "result.json", json.dumps(self.record))
        except OSError as error:
            # That it ended, and how, is worth more than what it left.
            self._say("the list of outputs is not kept: " + str(error.strerror))
            short = dict(self.record, outputs=[], stdout="", detail=self.record["detail"][:500])
            short["stderr"] = self.record["stderr"][-500:]
            write_whole(self.folder / "result.json", json.dumps(short))

    def _say(self, sentence: str) -> None:
        said = self.record["detail"]
        self.record["detail"] = (said + "; " if said else "") + sentence

    def _run(self) -> None:
        try:
            if self.spec["directory"] is None:
                self.directory.mkdir(exist_ok=True)
            program = Program(self.spec, self.folder, self.directory)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            what = self.directory if not self.directory.is_dir() else self.spec["argv"][0]
            why = getattr(error, "strerror", None) or str(error)
            self.record.update(reason="not_started", detail="{}: {}".format(str(what)[:500], why))
            return
        self._follow(program)
        left = program.sweep()
        program.heard()
        if left:
            self._say("processes that could not be ended: " + ", ".join(map(str, left[:20])))
        self.record.update({one.name: one.tail() for one in program.printed})
        self.record.update(exit_code=program.exit_code, signal=program.signal)
        self._judge()
        for one in program.printed:
            if one.lacks():
                self._say(one.lacks())

    def _follow(self, program: Program) -> None:
        """Until the program has ended, by itself or by what it may not do."""
        now = time.monotonic()
        due = {"beat": now}
        if self.spec["time_limit_s"] is not None:
            due["time_limit"] = now + self.spec["time_limit_s"]
        if self.spec["memory_mb"] is not None:
            due["memory"] = now + WATCH_S
        while not program.ended:
            before = time.monotonic()
            pause = max(0.0, min(due.values()) - before)
            told = signal.sigtimedwait([signal.SIGCHLD, *ENDINGS], pause)
            late = time.monotonic() - before - pause
            if late > STOPPED_S and "time_limit" in due:
                due["time_limit"] += late  # a job that is suspended does not use its time up
            if told is not None and told.si_signo in ENDINGS and "kill" not in due:
                self._told_to_end(told.si_signo)
                self._end(program, due)
            now = time.monotonic()
            for name in [name for name, at in due.items() if at <= now]:
                getattr(self, "_due_" + name)(program, due)
            program.reap()

    def _end(self, program: Program, due: "dict[str, float]") -> None:
        program.send(signal.SIGTERM)
        due["kill"] = time.monotonic() + self.spec["grace_s"]

    def _due_beat(self, program: Program, due: "dict[str, float]") -> None:
        due["beat"] = time.monotonic() + self.spec["heartbeat_s"]
        # A file system that fails for a while makes the heartbeat old, and that is the message.
        with contextlib.suppress(OSError):
            os.utime(str(self.folder / "heartbeat"))

    def _due_time_limit(self, program: Program, due: "dict[str, float]") -> None:
        due["time_limit"] = math.inf
        if "kill" not in due:
            said = "over its time limit of {:g} s".format(self.spec["time_limit_s"])
            self.record.update(reason="timed_out", detail=said)
            self._end(program, due)

    def _due_memory(self, program: Program, due: "dict[str, float]") -> None:
        due["memory"] = time.monotonic() + WATCH_S
        if program.exceeds(self.spec["memory_mb"] << 20):
            if "kill" not in due:
                self.record.update(reason="memory", detail=self._over_memory())
            due["kill"] = 0.0

    def _due_kill(self, program: Program, due: "dict[str, float]") -> None:
        due["kill"] = time.monotonic() + WATCH_S
        program.send(signal.SIGKILL)

    def _over_memory(self) -> str:
        return "over its memory limit of {} MB".format(self.spec["memory_mb"])

    def _told_to_end(self, number: int) -> None:
        if (self.folder / "cancel").exists():
            self.record.update(reason="cancelled", detail="cancelled")
            return
        name = signal.Signals(number).name
        self.record.update(reason="signalled", detail="ended from outside by " + name)

    def _judge(self) -> None:
        """Tell an end by itself from one by a signal or for lack of memory."""
        code, number = self.record["exit_code"], self.record["signal"]
        if self.record["reason"] != "exited":
            return
        # Slurm signals program and wrapper alike, and the program may be the quicker to end.
        told = signal.sigtimedwait(ENDINGS, 0)
        if (number is not None or told is not None) and (self.folder / "cancel").exists():
            self.record.update(reason="cancelled", detail="cancelled")
            return
        if code == 0:
            return
        printed = self.record["stderr"]
        if NO_SPACE.search(printed):
            self._say("no space was left on a disk")
        if self.spec["memory_mb"] is not None and NO_MEMORY.search(printed):
            self.record.update(reason="memory", detail=self._over_memory())
        elif number is not None:
            name = signal.Signals(number).name if number in list(signal.Signals) else str(number)
            self.record.update(reason="signalled", detail="ended by " + name)

    def _files(self) -> "dict[str, tuple[int, int, int]]":
        """The files that the attempt may leave, with what shows that one has changed."""
        base, result = self.directory.resolve(), self.spec["result"]
        paths = [path for text in self.spec["outputs"] for path in base.glob(native(text))]
        found = {}
        for path in [*paths, *([base / native(result["file"])] if result else [])]:
            with contextlib.suppress(OSError, RuntimeError):
                real = path.resolve()
                # A link out of the working directory is not an output of this program.
                if base in real.parents and real.is_file():
                    info = real.stat()
                    row = (info.st_size, info.st_mtime_ns, info.st_ino)
                    found[os.fsencode(str(real)).decode("utf-8", "replace")] = row
        return found

    def _take_numbers(self, before: "dict[str, Any]", after: "dict[str, Any]") -> None:
        result = self.spec["result"]
        if result is None:
            return
        path = (self.directory / native(result["file"])).resolve()
        name = os.fsencode(str(path)).decode("utf-8", "replace")
        try:
            if after.get(name) == before.get(name):
                raise RefusedError("the program has not written " + result["file"])
            self.record["numbers"] = read_numbers(path, result["numbers"])
        except RefusedError as error:
            self.record.update(reason="no_result", detail=str(error))


def read_numbers(path: Path, names: "list[str]") -> "dict[str, float]":
    """The named numbers of a JSON object in a file.

    :raises RefusedError: if one is missing, no number or not finite.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_RESULT + 1)
        if len(text) > MAX_RESULT:
            raise RefusedError("the result file is too large")
        values = json.loads(text.decode("utf-8"))
    except OSError as error:
        raise RefusedError("the result file: " + str(error.strerror)) from None
    except (ValueError, RecursionError) as error:
        raise RefusedError("the result file is not JSON: " + str(error)[:200]) from None
    if not isinstance(values, dict):
        raise RefusedError("the result file does not hold a JSON object")
    numbers = {}
    for name in names:
        value = values.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise RefusedError("the result file has no number " + name)
        if abs(value) > sys.float_info.max or value != value:
            raise RefusedError("the number " + name + " is not finite")
        numbers[name] = float(value)
    return numbers


# ---- the claim


def native_id() -> str:
    """Slurm's id of this job, else process and start time."""
    return os.environ.get("SLURM_JOB_ID", "")[:255] or process_id(os.getpid())


def process_id(pid: int) -> str:
    """What names a process for as long as the machine runs."""
    words = Path("/proc/{}/stat".format(pid)).read_bytes().rpartition(b")")[2].split()
    return "{}:{}".format(pid, words[19].decode())


def take_claim(folder: Path) -> bool:
    """Whether this process is the one that carries the attempt out."""
    try:
        (folder / "claim").mkdir(0o700)
    except FileExistsError:
        with (folder / "duplicates").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"native_id": native_id(), "time": time.time()}) + "\n")
        return False
    (folder / "heartbeat").touch()
    return True


def take_space(folder: Path) -> None:
    """Keep room for the record.

    :raises RefusedError: if there is none.
    """
    try:
        (folder / "reserve").write_bytes(bytes(RESERVE))
    except OSError as error:
        with contextlib.suppress(OSError):
            (folder / "reserve").unlink()
        raise RefusedError("the folder of the job: " + str(error.strerror)) from None


def run(folder: Path) -> int:
    """Carry out the attempt in a folder, unless somebody does or did.

    :return: the exit status: 0 also for a duplicate, 1 for a failed job.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, *ENDINGS])
    umask = os.umask(0o077)
    if not take_claim(folder):
        print("this attempt is claimed; nothing is done", file=sys.stderr)
        return 0
    try:
        take_space(folder)
        spec = read_spec(folder)
    except RefusedError as error:
        return _refuse(folder, str(error))
    attempt = Attempt(folder, spec)
    os.umask(umask)
    attempt.carry_out()
    return 0 if attempt.record["reason"] == "exited" and attempt.record["exit_code"] == 0 else 1


def _refuse(folder: Path, why: str) -> int:
    print("refused: " + why, file=sys.stderr)
    where = WHERE.search(str(folder))
    if where is not None:
        spec = {"key": where.group(2), "attempt": int(where.group(3)), "directory": str(folder)}
        refused = Attempt(folder, spec)
        refused.record.update(reason="not_started", detail=why)
        refused.write()
    return 2


def start(folder: Path) -> int:
    """Run the attempt of a folder in a process of its own, and print `pid:start time`."""
    log = os.open(str(folder / "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    begun, closed_by_exec = os.pipe()
    pid = os.fork()
    if pid:
        os.close(closed_by_exec)
        os.read(begun, 1)  # its end: from now on the command line of the process names the folder
        print(process_id(pid))
        return 0
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((null, log, log)):
        os.dup2(file, number)
    os.chdir("/")
    argv = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), "run", str(folder)]
    os.execv(sys.executable, argv)  # noqa: S606 - a fresh process that its command line names


def main(arguments: "list[str]") -> int:
    """`run FOLDER` or `start FOLDER`."""
    if len(arguments) != 2 or arguments[0] not in ("run", "start"):
        print("usage: job_wrapper.py run|start FOLDER", file=sys.stderr)
        return 2
    try:
        return {"run": run, "start": start}[arguments[0]](Path(arguments[1]).absolute())
    except OSError as error:
        print("job_wrapper: " + str(error), file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
