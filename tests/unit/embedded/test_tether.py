"""A tethered program ends with the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from bluesky_plugins.embedded.processes import running_after
from bluesky_plugins.embedded.tether import tethered

PAUSE = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_killed_parent_leaves_nothing():
    command = [sys.executable, "-c", PARENT, *tethered(PAUSE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    assert running_after([child], timeout=50) == []


def test_program_has_the_process_id_of_the_script():
    command = tethered([sys.executable, "-c", "import os; print(os.getpid())"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert int(process.stdout.read()) == process.pid


def test_program_is_not_started_for_another_parent():
    command = tethered([sys.executable, "-c", "print('started')"], parent=os.getppid())
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "should be the parent" in done.stderr


def test_program_starts_for_the_expected_parent():
    command = tethered([sys.executable, "-c", "print('started')"], parent=os.getpid())
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "started\n"


def test_signal_of_choice_is_the_one_that_comes():
    wait_for_it = (
        "import signal; print('up', flush=True); "
        "open({!r}, 'w').write(str(signal.sigwait([signal.SIGUSR1])))"
    )
    read, write = os.pipe()
    child = [sys.executable, "-c", "import signal; signal.pthread_sigmask(0, [signal.SIGUSR1]); "]
    child[-1] += wait_for_it.format(f"/dev/fd/{write}")
    command = [sys.executable, "-c", PARENT.replace("text=True", f"text=True, pass_fds=[{write}]")]
    command += tethered(child, signal=signal.SIGUSR1)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[write]) as parent:
        parent.stdout.readline()
        parent.kill()
    os.close(write)
    with os.fdopen(read) as told:
        assert told.read() == str(int(signal.SIGUSR1))


def test_missing_program_is_named():
    done = subprocess.run(
        tethered(["/no/such/program"]), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "/no/such/program: No such file" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--"], ["program"]])
def test_bad_usage_is_told(arguments):
    script = tethered(["x"])[:4]
    done = subprocess.run([*script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "usage:" in done.stderr
