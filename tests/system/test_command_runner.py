"""Commands on this host, with real programs."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from bluesky_plugins.processing.targets.command_runner import LocalRunner, clean_environment
from bluesky_plugins.processing.targets.ports import Fault, TransportError

pytestmark = [pytest.mark.system, pytest.mark.asyncio]
DEADLINE = 20.0


async def test_words_bytes_and_the_status_pass() -> None:
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()); sys.exit(sys.argv[1])"

    done = await LocalRunner().run(
        [sys.executable, "-c", code, "$(id) 'a'"], stdin=b"\0\xff", within=DEADLINE
    )

    assert (done.exit_status, done.stdout, done.stderr) == (1, b"\0\xff", b"$(id) 'a'\n")


async def test_a_signal_is_a_negative_status() -> None:
    done = await LocalRunner().run(["sh", "-c", "kill -9 $$"], within=DEADLINE)

    assert done.exit_status == -9


@pytest.mark.parametrize("argv", [["/no/such/program"], ["no-such-program"]])
async def test_a_program_that_is_not_there(argv: list[str]) -> None:
    with pytest.raises(TransportError, match="No such file") as error:
        await LocalRunner().run(argv, within=DEADLINE)
    assert (error.value.fault, error.value.doubtful) == (Fault.NO_PROGRAM, False)


async def test_a_program_that_hangs_ends_with_all_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {pid_file}; wait"
    began = time.monotonic()

    with pytest.raises(TransportError) as error:
        await LocalRunner().run(["sh", "-c", script], within=3.0)

    assert (error.value.fault, error.value.doubtful) == (Fault.TIMED_OUT, True)
    assert time.monotonic() - began < 10
    pid = int(pid_file.read_text())
    deadline = time.monotonic() + DEADLINE
    while is_alive(pid):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_commands_that_are_cancelled_end_at_once(tmp_path: Path) -> None:
    runner = LocalRunner()
    script = f"touch {tmp_path}/$$; exec sleep 60"
    under_way = [
        asyncio.create_task(runner.run(["sh", "-c", script], within=DEADLINE)) for _ in range(12)
    ]
    await asyncio.sleep(0.05)
    began = time.monotonic()

    for task in under_way:
        task.cancel()
    results = await asyncio.gather(*under_way, return_exceptions=True)

    assert {type(result) for result in results} == {asyncio.CancelledError}
    assert time.monotonic() - began < 10
    for name in await asyncio.to_thread(os.listdir, tmp_path):
        while is_alive(int(name)):
            assert time.monotonic() - began < DEADLINE
            await asyncio.sleep(0.02)


async def test_at_most_so_many_at_once(tmp_path: Path) -> None:
    runner = LocalRunner(max_commands=2)
    code = (
        "import os, sys, time; here = sys.argv[1]; open(f'{here}/{os.getpid()}', 'w');"
        "print(len(os.listdir(here))); time.sleep(0.1); os.remove(f'{here}/{os.getpid()}')"
    )

    argv = [sys.executable, "-S", "-c", code, str(tmp_path)]
    done = await asyncio.gather(*(runner.run(argv, within=DEADLINE) for _ in range(6)))

    assert {int(one.stdout) for one in done} <= {1, 2}


async def test_settings_and_secrets_are_not_passed_on() -> None:
    source = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "SLURM_CONF": "/etc/slurm.conf",
        "DISPLAY": ":0",
        "BLUESKY_PLUGINS_MONGO__URI": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }

    assert set(clean_environment(source)) == {"PATH", "LC_ALL", "SLURM_CONF"}
    assert set(clean_environment(source, display=True)) == {
        "PATH",
        "LC_ALL",
        "SLURM_CONF",
        "DISPLAY",
    }


async def test_the_environment_may_be_given() -> None:
    done = await LocalRunner(environment={"ONLY": "this"}).run(["/usr/bin/env"], within=DEADLINE)

    assert done.stdout == b"ONLY=this\n"
    assert "ONLY" not in os.environ
