"""`up`, `status`, `doctor` and `down`, as a person runs them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress

import psutil
import pymongo
import pytest
import redis

from bluesky_plugins.embedded.processes import marked_processes
from bluesky_plugins.processing import Trigger, TriggerMethod

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

# Whether a stack starts is asked, not how soon beside all other tests.
PATIENT = {"BLUESKY_PLUGINS_EMBEDDED__READY_SECONDS": "300"}

NAMES = [
    "kafka", "mongo", "redis", "iocs", "recorder", "recommender", "queueserver", "httpserver",
]  # fmt: skip
SERVERS = NAMES[:3]


def until(condition, timeout):
    """The first true value of `condition`; the seconds it took."""
    begun = time.monotonic()
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value, time.monotonic() - begun
        assert time.monotonic() - begun < timeout, "this never became true"
        pause.wait(0.02)


def asked(command, right):
    """What a command ended with and said, when that is `right`; else what it last did.

    It gives each server a few seconds, which one on a busy machine may not keep.
    """
    deadline = time.monotonic() + 180
    while True:
        done = command()
        found = json.loads(done.stdout)
        if right(found) or time.monotonic() > deadline:
            return done, found


def unwell(found):
    """What `doctor` finds wrong: name -> problem."""
    return {name: one["problem"] for name, one in found.items() if not one["ok"]}


def all_well(found):
    return not unwell(found)


@pytest.fixture
def own_stack(stack, tmp_path):
    """Another stack, not up yet; what is left of it is stopped after the test."""
    other = type(stack)(tmp_path / "own")
    yield other
    other.command("down")


@pytest.fixture(scope="module")
def second_stack(stack, tmp_path_factory):
    """A whole stack beside the session's, for what a stack must bear."""
    other = type(stack)(tmp_path_factory.mktemp("second") / "state")
    up = other.command("up", **PATIENT)
    assert up.returncode == 0, up.stderr
    yield other
    other.command("down")


@pytest.fixture(scope="module")
def facility(stack):
    """Environment of a facility that has all three servers: those of the session's stack."""
    settings = stack.settings
    return {
        "BLUESKY_PLUGINS_BEAMLINE": f"t{os.urandom(4).hex()}",
        "BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.address,
        "BLUESKY_PLUGINS_MONGO__URI": settings.mongo.address,
        "BLUESKY_PLUGINS_REDIS__URL": settings.redis.address.replace("/0", "/7"),
    }


@pytest.fixture(scope="module")
def two_ups(stack, facility, tmp_path_factory):
    """A stack on a facility's servers, started twice at once: it, what was said, a pipe's end."""
    other = type(stack)(tmp_path_factory.mktemp("facility") / "state")
    reading, writing = os.pipe()
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "bluesky_plugins.cli", "up"],
            env={**other.environment, **facility, **PATIENT},
            pass_fds=[writing],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    os.close(writing)
    said = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    with os.fdopen(reading, "rb") as pipe:
        yield other, said, pipe
    other.command("down")


# -- a stack that runs ----------------------------------------------------------------------


def test_status_says_of_all_eight_parts_that_they_run(stack):
    done = stack.command("status", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert list(found) == NAMES
    assert {part["state"] for part in found.values()} == {"running"}
    assert all(list(part) == ["address", "pid", "state"] for part in found.values())


def test_every_address_is_that_of_the_working_process(stack):
    for name, part in stack.status().items():
        process = psutil.Process(part["pid"])
        if part["address"] is None or name == "iocs":
            continue
        port = int(part["address"].rpartition(":")[2])
        family = [process, *process.children(recursive=True)]
        ports = {c.laddr.port for p in family for c in p.net_connections("tcp")}
        assert port in ports, name


def test_up_on_a_running_stack_says_so(stack):
    before = stack.status()
    done = stack.command("up")
    assert done.returncode == 0
    assert "running already" in done.stdout
    assert stack.status() == before


def test_the_key_is_in_a_file_that_status_names_and_nowhere_else(stack):
    key_file = stack.state_dir / "api_key"
    key = key_file.read_text().strip()
    shown = stack.command("status")
    assert str(key_file) in shown.stdout
    assert key not in shown.stdout + shown.stderr + stack.command("doctor").stdout
    told = [*stack.state_dir.glob("*.json"), *stack.state_dir.glob("log/*")]
    told += stack.state_dir.glob("run/*.json")
    assert [p for p in told if key in p.read_text()] == []


def test_doctor_finds_every_server_its_version_and_the_partitions(stack):
    done, found = asked(lambda: stack.command("doctor", "--json"), all_well)
    assert unwell(found) == {}
    assert done.returncode == 0
    assert found["kafka"]["version"].startswith("4.")
    assert found["topics"]["detail"] == "9 topics with 4 partitions each"
    assert found["mongo"]["version"]
    assert found["redis"]["version"]


def test_doctor_names_topics_with_other_partitions(stack):
    done, found = asked(
        lambda: stack.command("doctor", "--json", BLUESKY_PLUGINS_KAFKA__PARTITIONS="7"),
        lambda found: "has 4 partitions" in (found["topics"]["problem"] or ""),
    )
    topics = found["topics"]
    assert done.returncode == 1
    assert "has 4 partitions" in topics["problem"]
    assert "kafka.partitions" in topics["advice"]


# -- a stack of its own ---------------------------------------------------------------------


def test_two_stacks_side_by_side_share_no_port(stack, second_stack):
    one, other = stack.settings, second_stack.settings
    assert one.kafka.address != other.kafka.address
    assert one.mongo.address != other.mongo.address
    assert one.redis.address != other.redis.address
    ports = [
        {getattr(s.http, n) for n in type(s.http).model_fields if n.endswith("_port")}
        | {s.iocs.ca_server_port, s.iocs.ca_repeater_port}
        for s in (one, other)
    ]
    assert ports[0] & ports[1] == set()
    assert {p["state"] for p in stack.status().values()} == {"running"}


@pytest.mark.timed
def test_every_killed_part_is_started_again_within_two_seconds(second_stack):
    parts_file = second_stack.state_dir / "run" / "parts.json"

    def pid_of(name):
        return json.loads(parts_file.read_text())[name]["pid"]

    for name in NAMES:
        pid = pid_of(name)
        os.kill(pid, signal.SIGKILL)
        _, took = until(lambda n=name, old=pid: pid_of(n) not in (None, old), 10)
        assert took < 2.0, name
    until(lambda: {p["state"] for p in second_stack.status().values()} == {"running"}, 90)


@pytest.mark.parametrize("how", ["kill", "down"])
def test_data_addresses_and_jobs_stay(second_stack, tmp_path, how):
    before, settings = _addresses(second_stack), second_stack.settings
    with closing(redis.Redis.from_url(settings.redis.address)) as client:
        client.set("kept", how)
    with closing(pymongo.MongoClient(settings.mongo.address)) as client:
        client["kept"]["kept"].replace_one({"_id": 1}, {"how": how}, upsert=True)
    gate = tmp_path / "gate"
    waits = (
        "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.1)"
    )
    trigger = Trigger(TriggerMethod.LOCAL_BASH_SCRIPT, settings=settings)
    job = trigger.run([sys.executable, "-c", waits, str(gate)])
    until(lambda: job.state == "running", 150)
    if how == "kill":
        about = json.loads((second_stack.state_dir / "run" / "supervisor.json").read_text())
        os.kill(about["pid"], signal.SIGKILL)
    else:
        assert second_stack.command("down").returncode == 0
        assert marked_processes(second_stack.state_dir) == []
    until(lambda: not marked_processes(second_stack.state_dir), 60)
    done = second_stack.command("status", "--json")
    state = "down" if how == "kill" else "stopped"
    assert done.returncode == 1
    assert {(p["state"], p["pid"]) for p in json.loads(done.stdout).values()} == {(state, None)}

    up = second_stack.command("up", **PATIENT)
    assert up.returncode == 0, up.stderr
    assert _addresses(second_stack) == before
    with (
        closing(redis.Redis.from_url(settings.redis.address)) as queue,
        closing(pymongo.MongoClient(settings.mongo.address)) as documents,
    ):
        assert queue.get("kept") == how.encode()
        assert documents["kept"]["kept"].find_one({"_id": 1})["how"] == how
    gate.touch()
    assert job.wait(timeout=150) == "succeeded"
    assert len(job.record.attempts) == 1


def _addresses(stack):
    return {name: part["address"] for name, part in stack.status().items()}


# -- a facility's servers -------------------------------------------------------------------


def test_nothing_of_the_caller_is_held_by_the_stack(two_ups):
    other, _, pipe = two_ups
    assert pipe.read() == b""
    caller = {os.getpgid(0), os.getsid(0)}
    processes = marked_processes(other.state_dir)
    assert len(processes) >= 6
    for process in processes:
        with suppress(ProcessLookupError):  # what a part ran for a moment
            assert {os.getpgid(process.pid), os.getsid(process.pid)} & caller == set()


def test_of_two_ups_at_once_one_waits_for_the_other(two_ups):
    _, said, _ = two_ups
    assert sorted("waiting for it" in text for text in said) == [False, True]
    assert sorted("running already" in text for text in said) == [False, True]


def test_servers_of_a_facility_are_used_and_not_started(two_ups, facility):
    other = two_ups[0]
    done, found = asked(
        lambda: other.command("status", "--json", **facility),
        lambda found: all(found[name]["state"] == "external" for name in SERVERS),
    )
    assert done.returncode == 0
    assert [found[n]["state"] for n in NAMES] == ["external"] * 3 + ["running"] * 5
    assert [found[n]["pid"] for n in SERVERS] == [None] * 3
    assert not (other.state_dir / "data" / "kafka").exists()


def test_a_server_of_a_facility_that_does_not_answer_is_named(own_stack):
    up = own_stack.command("up", BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:9")
    assert up.returncode == 1
    assert "kafka at 127.0.0.1:9 does not answer" in up.stderr
    assert marked_processes(own_stack.state_dir) == []


def test_what_does_not_start_is_named_with_its_log_and_all_is_stopped(own_stack, facility):
    wrong = {
        **facility,
        "BLUESKY_PLUGINS_HTTP__API_KEY_FILE": "/no/such/key",
        "BLUESKY_PLUGINS_EMBEDDED__MAX_FAILURES": "2",
        **PATIENT,
    }
    up = own_stack.command("up", **wrong)
    assert up.returncode == 1
    assert re.search("^(.*: )?(recommender|httpserver) ended 2 times", up.stderr, re.MULTILINE)
    assert "/no/such/key" in up.stderr
    assert marked_processes(own_stack.state_dir) == []
    assert {p["state"] for p in own_stack.status().values()} == {"stopped"}


# -- refusals, before anything starts -------------------------------------------------------


@pytest.fixture
def no_stack(stack, tmp_path):
    return type(stack)(tmp_path / "none")


def test_a_port_that_a_person_set_and_that_is_taken_is_named(no_stack, facility):
    with socket.socket() as user:
        user.bind(("127.0.0.1", 0))
        user.listen()
        port = user.getsockname()[1]
        taken = {"BLUESKY_PLUGINS_HTTP__RECOMMENDER_PORT": str(port)}
        up = no_stack.command("up", **facility, **taken)
    assert up.returncode == 1
    assert f"port {port} (http.recommender_port) is taken" in up.stderr


def test_data_of_another_version_are_a_clear_error(no_stack):
    version = no_stack.state_dir / "data" / "version.json"
    version.parent.mkdir(parents=True)
    version.write_text('{"layout": 1, "kafka": "3.9"}')
    up = no_stack.command("up")
    assert up.returncode == 1
    assert "another version (kafka 3.9" in up.stderr
    assert [p.name for p in version.parent.iterdir()] == ["version.json"]


def test_a_full_disk_is_a_clear_error(no_stack):
    up = no_stack.command("up", BLUESKY_PLUGINS_EMBEDDED__MINIMUM_FREE_MB="1000000000")
    assert up.returncode == 1
    assert "MB free" in up.stderr


def test_down_of_nothing_says_so(no_stack):
    down = no_stack.command("down")
    assert down.returncode == 0
    assert "nothing runs" in down.stdout


def test_status_of_nothing_is_one_object_and_fails(no_stack):
    done = no_stack.command("status", "--json")
    assert done.returncode == 1
    assert list(json.loads(done.stdout)) == NAMES


def test_wipe_refuses_a_folder_of_another(no_stack):
    precious = no_stack.state_dir / "data" / "precious"
    precious.parent.mkdir(parents=True)
    precious.touch()
    down = no_stack.command("down", "--wipe")
    assert down.returncode == 1
    assert "not a folder of ours" in down.stderr
    assert precious.exists()


def test_doctor_says_what_to_do_when_nothing_runs(no_stack):
    lost = {
        "BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "BLUESKY_PLUGINS_MONGO__URI": "mongodb://u:hidden@127.0.0.1:9",
        "BLUESKY_PLUGINS_REDIS__URL": "redis://:hidden@127.0.0.1:9/0",
    }
    done = no_stack.command("doctor", **lost)
    assert done.returncode == 1
    assert "hidden" not in done.stdout + done.stderr
    assert "is the address right" in done.stdout
    assert "bluesky-plugins up" in done.stdout


# -- pods, or a facility: no stack in the state folder ---------------------------------------


@pytest.fixture
def elsewhere(stack, tmp_path):
    """A state folder without a stack, and the settings by which the session's is found."""
    there = json.loads((stack.state_dir / "stack.json").read_text())["settings"]
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps(there))
    other = type(stack)(tmp_path / "without")
    return lambda *arguments, **environment: other.command(
        *arguments, BLUESKY_PLUGINS_CONFIG=str(file), **environment
    )


def test_doctor_judges_what_runs_elsewhere_by_what_it_does(elsewhere):
    done, found = asked(lambda: elsewhere("doctor", "--json"), all_well)
    assert unwell(found) == {}
    assert found["recorder"]["detail"] == "members of its group: 1"
    assert done.returncode == 0


def test_doctor_misses_iocs_and_recorders_that_are_not_elsewhere(elsewhere):
    nobody = {
        "BLUESKY_PLUGINS_IOCS__PREFIX": "nowhere:",
        "BLUESKY_PLUGINS_RECORDING__GROUP_ID": "nobody",
    }
    lost = {"iocs", "recorder"}
    _, found = asked(
        lambda: elsewhere("doctor", "--json", **nobody), lambda found: set(unwell(found)) == lost
    )
    assert set(unwell(found)) == lost


def test_doctor_makes_the_topics_that_are_missing(elsewhere):
    beamline = f"t{os.urandom(4).hex()}"
    before = elsewhere("doctor", "--json", BLUESKY_PLUGINS_BEAMLINE=beamline)
    _, made = asked(
        lambda: elsewhere("doctor", "--json", "--make-topics", BLUESKY_PLUGINS_BEAMLINE=beamline),
        lambda found: found["topics"]["ok"],
    )
    assert not json.loads(before.stdout)["topics"]["ok"]
    assert made["topics"]["ok"]
