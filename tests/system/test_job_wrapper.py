"""The job wrapper as a program: what it does to a folder, and what it leaves there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bluesky_plugins.processing.model import EndReason, JobState, ResultRecord
from bluesky_plugins.processing.targets import job_wrapper
from tests.words import HOSTILE

WRAPPER = Path(job_wrapper.__file__)
KEY = "ab" + "0123456789abcdef" * 3 + "0123456789abcd"
# Records are on the disk before they are there, and images are built on the same one.
DEADLINE = 60.0
pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
# Time limits that end a program: it has long begun by then, also on a busy machine.
LIMIT_S = 5.0


def wait_until(what: Callable[[], Any], why: str) -> Any:
    deadline, pause = time.monotonic() + DEADLINE, threading.Event()
    while not (found := what()):
        assert time.monotonic() < deadline, why
        pause.wait(0.01)
    return found


class Folder:
    """The folder of one attempt, and the wrappers started on it."""

    def __init__(self, root: Path) -> None:
        self.path = root / KEY[:2] / KEY / "1"
        self.path.mkdir(parents=True)
        self.started: list[subprocess.Popen[bytes]] = []

    def write(self, *argv: str, **fields: Any) -> None:
        spec: dict[str, Any] = {
            "key": KEY,
            "attempt": 1,
            "argv": list(argv),
            "environment": {},
            "directory": None,
            "time_limit_s": None,
            "memory_mb": None,
            "outputs": [],
            "result": None,
            "heartbeat_s": 0.05,
            "grace_s": 0.3,
            "log_mb": 1,
        }
        (self.path / "spec.json").write_text(json.dumps(spec | fields))

    def python(self, code: str, *arguments: str, **fields: Any) -> None:
        self.write(sys.executable, "-S", "-c", textwrap.dedent(code), *arguments, **fields)

    def start(self, python: str = sys.executable, **environment: str) -> subprocess.Popen[bytes]:
        argv = [python, "-I", "-S", str(WRAPPER), "run", str(self.path)]
        process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ, **environment),
        )
        self.started.append(process)
        return process

    def run(self, **environment: str) -> ResultRecord:
        self.start(**environment).communicate(timeout=DEADLINE)
        return self.record

    @property
    def record(self) -> ResultRecord:
        return ResultRecord.model_validate_json((self.path / "result.json").read_text())

    def has(self, name: str) -> bool:
        return (self.path / name).exists()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path / "jobs")
    yield made
    for process in made.started:
        process.kill()
        process.communicate(timeout=DEADLINE)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- what runs ------------------------------------------------------------------------------


def test_arguments_reach_the_program_as_they_are(folder: Folder) -> None:
    folder.python("import json, sys; print(json.dumps(sys.argv[1:]))", *HOSTILE)

    assert json.loads(folder.run().stdout) == list(HOSTILE)


@settings(
    max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=5)
)
def test_any_text_reaches_the_program(tmp_path: Path, words: list[str]) -> None:
    shutil.rmtree(tmp_path / "any", ignore_errors=True)
    folder = Folder(tmp_path / "any")
    folder.python("import json, sys; print(json.dumps(sys.argv[1:]))", *words)

    assert json.loads(folder.run().stdout) == words


def test_the_environment_is_added_to(folder: Folder) -> None:
    folder.python(
        "import os; print(os.environ['ONE'], os.environ['PATH'] != '', os.environ['BP_JOB_KEY'])",
        environment={"ONE": "a 'b' $(c)"},
    )

    assert folder.run().stdout == f"a 'b' $(c) True {KEY}\n"


def test_a_record_says_how_it_ended(folder: Folder) -> None:
    before = time.time()
    folder.python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")

    record = folder.run(SLURM_JOB_ID="4711")

    assert (record.reason, record.exit_code, record.signal) == (EndReason.EXITED, 7, None)
    assert (record.key, record.attempt, record.native_id) == (KEY, 1, "4711")
    assert (record.stdout, record.stderr) == ("out\n", "err\n")
    assert before - 1 <= record.started <= record.ended <= time.time() + 1
    assert record.state is JobState.FAILED


def test_a_signal_from_elsewhere_is_named(folder: Folder) -> None:
    folder.python("import os; os.kill(os.getpid(), 11)")

    record = folder.run()

    assert (record.reason, record.exit_code, record.signal) == (EndReason.SIGNALLED, None, 11)
    assert "SIGSEGV" in record.detail


def test_a_program_that_is_not_there_is_named(folder: Folder) -> None:
    folder.write("/no/such/program")

    record = folder.run()

    assert record.reason is EndReason.NOT_STARTED
    assert record.detail == "/no/such/program: No such file or directory"


def test_a_working_directory_that_is_not_there_is_named(folder: Folder) -> None:
    folder.write("true", directory="/no/such directory")

    record = folder.run()

    assert record.reason is EndReason.NOT_STARTED
    assert record.detail == "/no/such directory: No such file or directory"


def test_the_program_runs_in_its_directory(folder: Folder, tmp_path: Path) -> None:
    there = tmp_path / "a dir ü"
    there.mkdir()
    folder.python("import os; print(os.getcwd())", directory=str(there))

    assert folder.run().stdout == f"{there}\n"


# -- once -----------------------------------------------------------------------------------


def test_a_duplicate_does_no_work(folder: Folder) -> None:
    folder.python("open('ran', 'a').write('x')")
    first = folder.run()

    again = folder.start()
    _, said = again.communicate(timeout=DEADLINE)

    assert (again.returncode, said) == (0, b"this attempt is claimed; nothing is done\n")
    assert (folder.path / "work" / "ran").read_text() == "x"
    assert folder.record == first
    assert len((folder.path / "duplicates").read_text().splitlines()) == 1


def test_of_many_at_once_one_works(folder: Folder) -> None:
    folder.python("open('ran', 'a').write('x')")

    racing = [folder.start(SLURM_JOB_ID=str(number)) for number in range(6)]
    for process in racing:
        process.communicate(timeout=DEADLINE)

    assert (folder.path / "work" / "ran").read_text() == "x"
    assert len((folder.path / "duplicates").read_text().splitlines()) == 5


def test_a_requeue_after_a_crash_does_no_second_work(folder: Folder) -> None:
    folder.python("import time; open('ran', 'a').write('x'); time.sleep(600)")
    first = folder.start(SLURM_JOB_ID="9")
    ran = folder.path / "work" / "ran"
    wait_until(lambda: ran.exists() and ran.read_text(), "the program starts")
    first.kill()
    first.communicate(timeout=DEADLINE)

    again = folder.start(SLURM_JOB_ID="9", SLURM_RESTART_COUNT="1")
    again.communicate(timeout=DEADLINE)

    assert again.returncode == 0
    assert ran.read_text() == "x"
    assert not folder.has("result.json")


def test_a_killed_wrapper_takes_its_program_along(folder: Folder) -> None:
    folder.python("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    wrapper = folder.start()
    pid = int(
        wait_until(lambda: folder.has("stdout") and (folder.path / "stdout").read_text(), "pid")
    )

    wrapper.kill()

    wait_until(lambda: not alive(pid), "the program ends")


# -- limits ---------------------------------------------------------------------------------

FAMILY = """
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = "import signal, time; signal.signal(15, 1); time.sleep(600)"
    child = [sys.executable, "-S", "-c", code]
    same_group = subprocess.Popen(child)
    own_session = subprocess.Popen(child, start_new_session=True)
    print(os.getpid(), same_group.pid, own_session.pid, flush=True)
    time.sleep(600)
"""


def family(folder: Folder) -> list[int]:
    return [int(word) for word in (folder.path / "stdout").read_text().split()]


def test_over_the_time_limit_nothing_survives(folder: Folder) -> None:
    folder.python(FAMILY, time_limit_s=LIMIT_S)

    record = folder.run()

    assert record.reason is EndReason.TIMED_OUT
    assert record.detail == "over its time limit of 5 s"
    assert record.state is JobState.TIMED_OUT
    assert len(family(folder)) == 3
    assert [pid for pid in family(folder) if alive(pid)] == []


def test_a_program_may_end_gracefully_at_its_time_limit(folder: Folder) -> None:
    folder.python(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *a: (print("saved", flush=True), sys.exit(3)))
        time.sleep(600)
        """,
        time_limit_s=LIMIT_S,
        grace_s=15,
    )

    record = folder.run()

    assert (record.reason, record.exit_code, record.stdout) == (EndReason.TIMED_OUT, 3, "saved\n")


def test_what_a_program_leaves_behind_ends_with_it(folder: Folder) -> None:
    folder.python(FAMILY.replace("time.sleep(600)\n", "sys.exit(0)\n") + "")
    lines = (folder.path / "spec.json").read_text()
    assert "sys.exit(0)" in lines

    record = folder.run()

    assert record.state is JobState.SUCCEEDED
    assert [pid for pid in family(folder) if alive(pid)] == []


def test_over_the_memory_limit_of_one_process(folder: Folder) -> None:
    folder.python("block = bytearray(400_000_000); print(len(block))", memory_mb=200)

    record = folder.run()

    assert (record.reason, record.stdout) == (EndReason.MEMORY, "")
    assert record.detail == "over its memory limit of 200 MB"


def test_over_the_memory_limit_of_all_processes_together(folder: Folder) -> None:
    folder.python(
        """
        import subprocess, sys, time
        code = "import time; block = b'x' * 60_000_000; time.sleep(600)"
        for process in [subprocess.Popen([sys.executable, "-S", "-c", code]) for _ in range(3)]:
            process.wait()
        """,
        memory_mb=100,
    )

    record = folder.run()

    assert record.reason is EndReason.MEMORY


def test_memory_that_is_shared_counts_once(folder: Folder) -> None:
    folder.python(
        """
        import os, time
        block = b"x" * 60_000_000
        for _ in range(3):
            if not os.fork():
                time.sleep(2.5)
                os._exit(0)
        for _ in range(3):
            os.wait()
        """,
        memory_mb=100,
    )

    assert folder.run().state is JobState.SUCCEEDED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_from_outside(folder: Folder, number: signal.Signals) -> None:
    folder.python(FAMILY)
    wrapper = folder.start()
    wait_until(lambda: folder.has("stdout") and len(family(folder)) == 3, "the family runs")

    wrapper.send_signal(number)
    wrapper.communicate(timeout=DEADLINE)

    assert folder.record.reason is EndReason.SIGNALLED
    assert folder.record.detail == f"ended from outside by {number.name}"
    assert [pid for pid in family(folder) if alive(pid)] == []


def test_cancelled_while_it_ran(folder: Folder) -> None:
    folder.python("import time; print('on', flush=True); time.sleep(600)")
    wrapper = folder.start()
    wait_until(lambda: folder.has("stdout") and (folder.path / "stdout").read_text(), "it runs")

    (folder.path / "cancel").touch()
    wrapper.terminate()
    wrapper.communicate(timeout=DEADLINE)

    assert (folder.record.reason, folder.record.state) == (EndReason.CANCELLED, JobState.CANCELLED)


def test_cancelled_where_the_program_gets_the_signal_too(folder: Folder) -> None:
    folder.python("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    wrapper = folder.start()
    wait_until(lambda: folder.has("stdout") and (folder.path / "stdout").read_text(), "it runs")

    (folder.path / "cancel").touch()
    os.kill(family(folder)[0], signal.SIGTERM)
    wrapper.communicate(timeout=DEADLINE)

    assert folder.record.reason is EndReason.CANCELLED


def test_cancelled_before_it_started(folder: Folder) -> None:
    folder.python("print('never')")
    (folder.path / "cancel").touch()

    record = folder.run()

    assert (record.reason, record.stdout) == (EndReason.CANCELLED, "")


# -- what comes back ------------------------------------------------------------------------


def test_the_heartbeat_goes_on_while_the_program_runs(folder: Folder) -> None:
    folder.python("import time; time.sleep(600)")
    folder.start()
    beat = folder.path / "heartbeat"
    wait_until(beat.exists, "the first beat")
    first = beat.stat().st_mtime_ns

    wait_until(lambda: beat.stat().st_mtime_ns > first + 100_000_000, "further beats")


def test_outputs_are_the_files_that_are_new_or_changed(folder: Folder, tmp_path: Path) -> None:
    there = tmp_path / "data"
    (there / "deep").mkdir(parents=True)
    for name in ("old.h5", "grown.h5"):
        (there / name).write_text("x")
    folder.python(
        """
        open("grown.h5", "a").write("more"); open("new.h5", "w").write("1234")
        open("deep/new ü.h5", "w"); open("other.txt", "w")
        """,
        directory=str(there),
        outputs=["**/*.h5"],
    )

    outputs = {file.path: file.size for file in folder.run().outputs}

    assert outputs == {
        str(there / "grown.h5"): 5,
        str(there / "new.h5"): 4,
        str(there / "deep/new ü.h5"): 0,
    }


def test_a_link_out_of_the_directory_is_no_output(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder.python(f"import os; os.symlink({str(tmp_path / 'secret')!r}, 'leak')", outputs=["*"])

    assert folder.run().outputs == ()


RESULT = {"file": "numbers.json", "numbers": ["width", "peak"]}


def test_numbers_come_back(folder: Folder) -> None:
    folder.python(
        'open(\'numbers.json\', \'w\').write(\'{"width": 1.5, "peak": 3, "more": "x"}\')',
        result=RESULT,
    )

    record = folder.run()

    assert (record.state, record.numbers) == (JobState.SUCCEEDED, {"width": 1.5, "peak": 3.0})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"width": 1}', "no number peak"),
        ('{"width": 1, "peak": NaN}', "peak is not finite"),
        ('{"width": 1, "peak": 1e999}', "peak is not finite"),
        ('{"width": 1, "peak": 1' + "0" * 400 + "}", "peak is not finite"),
        ('{"width": 1, "peak": true}', "no number peak"),
        ('{"width": 1, "peak": "2"}', "no number peak"),
        ("[1, 2]", "does not hold a JSON object"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("x" * 1_000_001, "too large"),
        ("", "is not JSON"),
        (None, "has not written numbers.json"),
    ],
)
def test_a_result_that_is_not_what_was_named(folder: Folder, text: str | None, why: str) -> None:
    source = folder.path / "source"
    if text is not None:
        source.write_text(text)
    folder.python(
        f"import os; old = {str(source)!r}; os.path.exists(old) and os.rename(old, 'numbers.json')",
        result=RESULT,
    )

    record = folder.run()

    assert (record.reason, record.numbers, record.exit_code) == (EndReason.NO_RESULT, {}, 0)
    assert why in record.detail


def test_numbers_of_an_earlier_run_are_not_taken(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "numbers.json").write_text('{"width": 1, "peak": 2}')
    folder.write("true", directory=str(tmp_path), result=RESULT)

    assert folder.run().reason is EndReason.NO_RESULT


def test_a_long_stream_is_cut_to_its_end(folder: Folder) -> None:
    folder.python("print('ü' * 100_000 + 'end')")

    record = folder.run()

    assert record.stdout.endswith("end\n")
    assert len(record.stdout) == job_wrapper.MAX_TAIL


def test_bytes_that_are_no_text_are_shown(folder: Folder) -> None:
    folder.python("import os; os.write(1, b'\\xff\\xfe\\x00end')")

    assert folder.run().stdout == "\ufffd\ufffd\x00end"


def test_the_record_appears_whole(folder: Folder) -> None:
    folder.python("print('x' * 3000)")
    seen: list[bytes] = []
    wrapper = folder.start()
    while wrapper.poll() is None:
        if folder.has("result.json"):
            seen.append((folder.path / "result.json").read_bytes())
    assert all(json.loads(text) for text in seen)
    assert [name.name for name in folder.path.glob("result*")] == ["result.json"]


# -- a specification that is not ours -------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"more": 1},
        {"argv": []},
        {"argv": [""]},
        {"argv": "rm -rf /"},
        {"argv": ["a\0b"]},
        {"argv": [1]},
        {"argv": ["\ud800"]},
        {"attempt": 2},
        {"attempt": True},
        {"key": "cd" + KEY[2:]},
        {"environment": {"A=B": "c"}},
        {"environment": {"A": 1}},
        {"time_limit_s": -1},
        {"time_limit_s": float("nan")},
        {"memory_mb": 10**12},
        {"outputs": ["../x"]},
        {"outputs": ["/etc/passwd"]},
        {"outputs": ["."]},
        {"outputs": ["**x"]},
        {"result": {"file": "../x", "numbers": ["a"]}},
        {"result": {"file": "x"}},
        {"directory": 5},
    ],
    ids=repr,
)
def test_a_wrong_specification_is_refused(folder: Folder, fields: dict[str, Any]) -> None:
    folder.write("true", **fields)

    record = folder.run()

    assert record.reason is EndReason.NOT_STARTED
    assert record.detail.startswith("spec.json")


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 200_000, b"x" * 8_000_001]
)
def test_what_is_no_specification_is_refused(folder: Folder, text: bytes) -> None:
    (folder.path / "spec.json").write_bytes(text)

    assert folder.run().reason is EndReason.NOT_STARTED


def test_a_missing_specification_is_refused(folder: Folder) -> None:
    assert folder.run().detail == "spec.json: No such file or directory"


def test_wrong_use_is_told() -> None:
    done = subprocess.run([sys.executable, str(WRAPPER), "go"], capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (2, b"usage: job_wrapper.py run|start FOLDER\n")


# -- where it runs --------------------------------------------------------------------------


def other_pythons() -> list[str]:
    """Every other Python that is installed here by name or by pyenv."""
    found = [shutil.which("python3", path="/usr/bin")]
    found += [str(path) for path in Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python3")]
    return sorted(path for path in found if path)


@pytest.mark.parametrize("python", other_pythons())
def test_the_target_s_python_is_good_enough(folder: Folder, python: str) -> None:
    folder.python(
        "import sys; open('numbers.json', 'w').write('{\"a\": 1}'); print(sys.argv[1])",
        "ü",
        result={"file": "numbers.json", "numbers": ["a"]},
        outputs=["*.json"],
        time_limit_s=30,
        memory_mb=500,
    )

    folder.start(python, LC_ALL="C").communicate(timeout=DEADLINE)

    assert (folder.record.state, folder.record.stdout) == (JobState.SUCCEEDED, "ü\n")
    assert (folder.record.numbers, len(folder.record.outputs)) == ({"a": 1.0}, 1)


def test_started_in_the_background(folder: Folder) -> None:
    folder.write("true")
    argv = [sys.executable, str(WRAPPER), "start", str(folder.path)]

    done = subprocess.run(argv, capture_output=True, check=True, timeout=DEADLINE)
    wait_until(lambda: folder.has("result.json"), "the record")

    assert folder.record.native_id == done.stdout.decode().strip()
    assert folder.record.state is JobState.SUCCEEDED


# -- disks ----------------------------------------------------------------------------------


def test_what_is_printed_beyond_the_limit_is_read_and_dropped_and_that_is_said(
    folder: Folder,
) -> None:
    folder.python(
        """
        import sys
        for _ in range(300): print("x" * 9999)
        print("the end")
        print("short", file=sys.stderr)
        """
    )

    record = folder.run()

    assert (folder.path / "stdout").stat().st_size == 1 << 20
    assert record.exit_code == 0
    assert (
        record.detail
        == f"{300 * 10_000 + 8 - (1 << 20)} bytes of stdout are not kept: longer "
        + ("than it may be")
    )
    assert record.stdout.endswith("the end\n")
    assert (folder.path / "stderr").read_text() == record.stderr == "short\n"


def test_a_disk_that_is_full_holds_up_no_program_and_is_named(folder: Folder) -> None:
    (folder.path / "stdout").symlink_to("/dev/full")
    folder.python("print('x' * 1000000); raise SystemExit(3)")

    record = folder.run()

    assert record.exit_code == 3
    assert record.detail == "1000001 bytes of stdout are not kept: No space left on device"


def test_a_program_for_which_the_disk_is_full_has_that_in_its_reason(folder: Folder) -> None:
    folder.python("open('/dev/full', 'w', buffering=1).write('x' * 100000)")

    record = folder.run()

    assert record.exit_code == 1
    assert record.detail == "no space was left on a disk"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    where = tmp_path / "small"
    where.mkdir()
    options = ["-t", "tmpfs", "-o", "size=400k", "none", str(where)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def test_there_is_room_for_the_record_when_the_program_filled_the_disk(small_disk: Path) -> None:
    folder = Folder(small_disk)
    folder.python("open('all', 'wb').write(bytes(1 << 20))")

    record = folder.run()

    assert (record.state, record.reason) == (JobState.FAILED, EndReason.EXITED)
    assert record.detail.startswith("no space was left on a disk")


def test_without_room_for_a_record_nothing_is_started(small_disk: Path) -> None:
    folder = Folder(small_disk)
    folder.python("open('started', 'w')")
    (small_disk / "others").write_bytes(bytes(350 << 10))

    record = folder.run()

    assert record.reason is EndReason.NOT_STARTED
    assert record.detail == "the folder of the job: No space left on device"


def test_what_is_left_of_a_program_and_keeps_its_stdout_is_not_waited_for(folder: Folder) -> None:
    folder.python(
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
        print("done")
        """
    )

    record = folder.run()

    assert (record.exit_code, record.stdout) == (0, "done\n")


def test_a_job_that_was_suspended_has_the_rest_of_its_time(folder: Folder) -> None:
    folder.python("import time; time.sleep(1.0)", time_limit_s=LIMIT_S)
    wrapper = folder.start()
    wait_until(lambda: folder.has("heartbeat"), "it runs")

    wrapper.send_signal(signal.SIGSTOP)
    threading.Event().wait(1.2 * LIMIT_S)
    wrapper.send_signal(signal.SIGCONT)
    wrapper.communicate(timeout=DEADLINE)

    assert folder.record.state is JobState.SUCCEEDED
