"""The supervisor on real processes that stand in for parts."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from bluesky_plugins.embedded import (
    HttpProbe,
    LineProbe,
    Part,
    PartState,
    Stack,
    StackError,
    StackSpec,
    StateFolder,
    TcpProbe,
)
from bluesky_plugins.embedded.processes import marked_processes, stray_repeaters
from tests.servers import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

# It only bounds a hang: a busy machine takes ten times as long as an idle one.
DEADLINE = 90.0

STEADY = "import threading; print('ready'); threading.Event().wait()"
TERM_PROOF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
FORKING = "import os; os.fork(); "


def program(code, name="part", **fields):
    argv = (sys.executable, "-uc", code)
    return Part(name=name, argv=argv, **{"probe": LineProbe(text="ready"), **fields})


def until(condition, timeout=DEADLINE):
    """The first true value of `condition`."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "this never became true"
        pause.wait(0.02)


@pytest.fixture
def port():
    return free_port()


@pytest.fixture
def launch(tmp_path):
    with contextlib.ExitStack() as clean:

        def make(*parts, root=tmp_path / "state", start=True, **options):
            folder = StateFolder(root)
            folder.make({})
            stack = Stack(folder, stop_seconds=2.0)
            clean.callback(stack.stop)
            spec = StackSpec(root=root, parts=parts, **{"stop_seconds": 2.0, **options})
            stack.launch(spec)
            if start:
                names = [p.name for p in parts]
                stack.start(names)
                assert stack.wait_ready(names, DEADLINE, lambda name: None) == {}
            return stack

        yield make


def test_a_part_whose_port_answers_is_ready(launch, port):
    argv = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port))
    probe = HttpProbe(host="127.0.0.1", port=port)
    stack = launch(Part(name="web", argv=argv, probe=probe, port=port))
    assert stack.records()["web"].state is PartState.RUNNING


def test_a_stranger_on_the_port_is_not_taken_for_the_part(launch):
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        probe = TcpProbe(host="127.0.0.1", port=port)
        stack = launch(program(STEADY, probe=probe, port=port), start=False)
        stack.start(["part"])
        assert "not ready after" in stack.wait_ready(["part"], 1.0, lambda name: None)["part"]


@pytest.mark.timed
def test_a_killed_part_works_again_within_two_seconds(launch):
    stack = launch(program(STEADY))
    pid = stack.records()["part"].pid
    begun = time.monotonic()
    os.kill(pid, signal.SIGKILL)

    def again():
        record = stack.records()["part"]
        return record.state is PartState.RUNNING and record.pid != pid

    until(again)
    assert time.monotonic() - begun < 2.0


def test_the_pid_is_the_working_process(launch):
    stack = launch(program(STEADY))
    process = psutil.Process(stack.records()["part"].pid)
    assert process.cmdline() == [sys.executable, "-uc", STEADY]
    assert process.children() == []


def test_a_part_that_never_gets_ready_is_given_up_and_named(launch, tmp_path):
    crash = "import sys; print('attempt'); sys.exit('no such detector')"
    stack = launch(program(crash, "bad"), program(STEADY, "good"), start=False, max_failures=4)
    stack.start(["bad", "good"])
    failed = stack.wait_ready(["bad"], DEADLINE, lambda name: None)
    assert failed == {"bad": "ended 4 times in a row without getting ready (exit status 1)"}
    lines = (stack.folder.log / "bad.log").read_text().splitlines()
    assert lines.count("attempt") == 4
    assert "no such detector" in lines
    records = until(lambda: (r := stack.records())["good"].state is PartState.RUNNING and r)
    assert records["bad"].state is PartState.FAILED


def test_a_part_that_was_given_up_can_be_started_again(launch, tmp_path):
    healed = tmp_path / "healed"
    code = f"import pathlib, sys; pathlib.Path({str(healed)!r}).exists() or sys.exit(1); {STEADY}"
    stack = launch(program(code), start=False, max_failures=2)
    stack.start(["part"])
    assert stack.wait_ready(["part"], DEADLINE, lambda name: None)
    healed.touch()
    stack.start(["part"])
    assert stack.wait_ready(["part"], DEADLINE, lambda name: None) == {}


def test_a_program_that_is_not_there_is_given_up(launch):
    part = Part(name="part", argv=("/no/such/program",), probe=LineProbe())
    stack = launch(part, start=False, max_failures=2)
    stack.start(["part"])
    assert "part" in stack.wait_ready(["part"], DEADLINE, lambda name: None)
    assert "/no/such/program" in (stack.folder.log / "part.log").read_text()


def test_the_last_words_of_a_part_are_in_its_log(launch):
    loud = "import sys; sys.stderr.write('x' * 50_000 + '\\nlast words\\n'); sys.exit(1)"
    stack = launch(program(loud), start=False, max_failures=1)
    stack.start(["part"])
    stack.wait_ready(["part"], DEADLINE, lambda name: None)
    assert "last words" in (stack.folder.log / "part.log").read_text()


def test_a_killed_supervisor_leaves_no_orphans(launch):
    stack = launch(program(STEADY), program(TERM_PROOF + STEADY, "stubborn"))
    pids = [r.pid for r in stack.records().values()]
    supervisor = stack.folder.read(stack.folder.supervisor_file)["pid"]
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not any(_works(pid) for pid in pids))
    until(lambda: not stack.alive)
    assert stack.records() == {}


def test_a_stack_whose_supervisor_was_killed_can_be_launched_again(launch):
    stack = launch(program(STEADY))
    os.kill(stack.folder.read(stack.folder.supervisor_file)["pid"], signal.SIGKILL)
    until(lambda: not stack.alive)
    launch(program(STEADY))
    assert stack.records()["part"].state is PartState.RUNNING


def test_stop_leaves_no_process_behind(launch):
    stack = launch(
        program(STEADY),
        program(TERM_PROOF + STEADY, "stubborn"),
        # A grandchild of its own session and without its parent, as daemons are.
        program(f"{FORKING} os.getpid() % 2 or os.setsid(); {TERM_PROOF} {STEADY}", "forking"),
    )
    until(lambda: len(marked_processes(stack.folder.root)) >= 5)
    stack.stop()
    assert marked_processes(stack.folder.root) == []
    assert not stack.alive


def test_parts_of_a_lower_rank_have_ended_before_the_others_are_told(launch, tmp_path):
    note = tmp_path / "order"
    code = (
        "import signal, sys, threading, time\n"
        "def end(*_):\n"
        "    open({note!r}, 'a').write('{name} told\\n'); threading.Event().wait(0.3)\n"
        "    open({note!r}, 'a').write('{name} ended\\n'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('ready'); signal.pause()"
    )
    parts = [
        program(code.format(note=str(note), name=name), name, stop_rank=rank)
        for name, rank in (("server", 2), ("service", 1))
    ]
    launch(*parts, stop_seconds=30.0).stop()
    assert note.read_text().split("\n")[:-1] == [
        "service told",
        "service ended",
        "server told",
        "server ended",
    ]


def test_a_repeater_that_a_client_left_behind_is_stopped(launch, port):
    stack = launch(program(STEADY))
    environment = {**os.environ, "EPICS_CA_REPEATER_PORT": str(port)}
    start = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', "
        "'caproto.commandline.repeater', '--quiet'], start_new_session=True, stdout=-3); "
        "print(p.pid)"
    )
    argv = [sys.executable, "-W", "ignore", "-c", start]
    told = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    pid = int(told.stdout.split()[0])
    until(lambda: stray_repeaters(port))
    assert stack.stop(repeater_port=port + 1) == []
    assert stack.stop(repeater_port=port) == [pid]
    assert not _works(pid)


def test_stop_of_nothing_is_harmless(tmp_path):
    folder = StateFolder(tmp_path / "state")
    assert Stack(folder, 1.0).stop() == []


def test_a_person_who_uses_the_folder_outlives_the_stack(launch, monkeypatch):
    stack = launch(program(STEADY))
    environment = {**os.environ, "BLUESKY_PLUGINS_STATE_DIR": str(stack.folder.root)}
    with psutil.Popen([sys.executable, "-c", STEADY], env=environment, stdout=-3) as person:
        stack.stop()
        assert person.poll() is None
        person.kill()


def test_a_folder_with_a_long_name_works(launch, tmp_path):
    root = tmp_path / ("long" * 25) / "state"
    root.parent.mkdir()
    assert launch(program(STEADY), root=root).records()["part"].state is PartState.RUNNING


def test_the_control_socket_is_for_the_user_alone(launch):
    stack = launch(program(STEADY))
    endpoint = stack.folder.read(stack.folder.supervisor_file)["endpoint"]
    assert endpoint.startswith("ipc://")
    assert Path(endpoint[6:]).parent.stat().st_mode & 0o077 == 0


def test_a_second_supervisor_of_one_folder_is_refused(launch):
    stack = launch(program(STEADY))
    with pytest.raises(StackError, match="has a supervisor already"):
        Stack(stack.folder, 1.0).launch(StackSpec(root=stack.folder.root, parts=()))
    assert stack.records()["part"].state is PartState.RUNNING


def _works(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
