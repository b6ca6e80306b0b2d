"""The pods of the tests, reached as a person reaches them: by the launchers, podman and HTTP."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PODS = ("acquisition", "databroker", "recommender", "compute")
# Of what is waited for, and of a command of podman beside the builds of images.
DEADLINE = 240.0
QUEUE, DATABROKER, RECOMMENDER = (f"http://127.0.0.1:{port}" for port in (60610, 60640, 60620))

Done = subprocess.CompletedProcess[str]


def until(condition: Callable[[], Any], what: str, timeout: float = DEADLINE) -> Any:
    """What the condition gives, as soon as that is something."""
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"no {what} within {timeout:g} s"
        pause.wait(0.2)
    return found


def manifest(pod: str) -> dict[str, Any]:
    """The pod's document of pods/POD.yaml."""
    documents = yaml.safe_load_all((ROOT / "pods" / f"{pod}.yaml").read_text())
    found: dict[str, Any] = next(each for each in documents if each["kind"] == "Pod")
    return found


def containers(*pods: str) -> list[str]:
    """Names of the containers as podman calls them."""
    return [
        f"{pod}-{container['name']}"
        for pod in pods or PODS
        for container in manifest(pod)["spec"]["containers"]
    ]


def probe(container: str) -> list[str]:
    """The command of a container's liveness probe."""
    pod, _, name = container.partition("-")
    found = next(each for each in manifest(pod)["spec"]["containers"] if each["name"] == name)
    command: list[str] = found["livenessProbe"]["exec"]["command"]
    return command


def claims() -> set[str]:
    """Names of the volumes that keep data."""
    return {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in PODS
        for volume in manifest(pod)["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }


class Podman:
    """podman with the settings that the launchers find for this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BLUESKY_PLUGINS_", "EPICS_"))
        }
        self.environment = {**kept, "BLUESKY_PODS_DIR": str(folder), "COLUMNS": "200"}
        asked = self._run(
            "bash", "-c", 'source launchers/podman.sh; bp_need_podman; echo "${CONTAINERS_CONF:-}"'
        )
        self.missing = asked.stderr.strip() if asked.returncode else ""
        if asked.stdout.strip():
            self.environment["CONTAINERS_CONF"] = asked.stdout.strip()

    def _run(self, *argv: str, stdin: str | None = None, timeout: float = DEADLINE) -> Done:
        return subprocess.run(
            argv,
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = DEADLINE) -> str:
        """What `podman ARGUMENTS...` prints; it must succeed."""
        done = self.try_(*arguments, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def try_(self, *arguments: str, stdin: str | None = None, timeout: float = DEADLINE) -> Done:
        """`podman ARGUMENTS...`, whatever comes of it."""
        return self._run("podman", *arguments, stdin=stdin, timeout=timeout)

    def script(
        self, name: str, *arguments: str, stdin: str | None = None, timeout: float = 900
    ) -> Done:
        """A script of the repository, `launchers/NAME` for instance, run to its end."""
        return self._run("bash", name, *arguments, stdin=stdin, timeout=timeout)

    def names(self, *arguments: str) -> set[str]:
        """Lines of what podman lists."""
        return set(self(*arguments).splitlines())

    def story(self, lines: int = 12) -> str:
        """States of all containers of the pods, and the last lines that each has said."""
        states = self.try_("ps", "--all", "--format", "{{.Names}}  {{.Status}}").stdout
        said = []
        for name in sorted(self.names("ps", "--all", "--format", "{{.Names}}")):
            if name.startswith(PODS) and not name.endswith("-infra"):
                done = self.try_("logs", "--tail", str(lines), name)
                said.append(f"-- {name}\n{done.stdout}{done.stderr}".rstrip())
        return "\n".join([states, *said])


class Beamline:
    """The running pods."""

    def __init__(self, podman: Podman) -> None:
        self.podman = podman
        self.folder = podman.folder
        # What jobs in the compute pod see of this machine.
        self.data = podman.folder / "data"

    # -- as a person --------------------------------------------------------------------------

    def launcher(self, name: str, *arguments: str, **how: Any) -> Done:
        """`bash launchers/NAME ARGUMENTS...`, to its end."""
        return self.podman.script(f"launchers/{name}", *arguments, **how)

    def start(self) -> None:
        """All pods, ready."""
        self.data.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, *arguments in self.starts:
            done = self.launcher(name, *arguments)
            assert done.returncode == 0, (
                f"{name}: {done.stdout}{done.stderr}\n{self.podman.story()}"
            )

    @property
    def starts(self) -> list[list[str]]:
        """The launchers that start them, with their arguments."""
        patience = ("--timeout", "600")
        return [
            ["start_core_pods.sh", *patience],
            ["start_adaptive_server.sh", *patience],
            ["start_compute_pod.sh", *patience, "--data", str(self.data)],
        ]

    def bsui(self, *lines: str, timeout: float = 600) -> str:
        """What a headless bsui prints for these lines."""
        typed = "".join(f"{line}\n" for line in lines)
        done = self.launcher("launch_bluesky_headless.sh", stdin=typed, timeout=timeout)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def key(self) -> str:
        return (self.folder / "api_key").read_text().strip()

    def http(self, address: str, **options: Any) -> httpx.Client:
        """A client of a server of the pods, with the key."""
        headers = {"Authorization": f"ApiKey {self.key}"}
        return httpx.Client(base_url=address, headers=headers, timeout=70, **options)

    # -- faults -------------------------------------------------------------------------------

    def kill(self, container: str) -> None:
        """`kill -9` of its first process, which podman takes for a crash."""
        pid = self.inspect(container, "{{.State.Pid}}")
        assert int(pid) > 1, f"{container} does not run"
        if os.geteuid() == 0:
            subprocess.run(["kill", "-9", pid], check=True)
        else:
            subprocess.run(["podman", "unshare", "kill", "-9", pid], check=True)

    def inspect(self, container: str, what: str) -> str:
        return self.podman("inspect", "--type", "container", "--format", what, container).strip()

    def restarts(self, container: str) -> int:
        return int(self.inspect(container, "{{.RestartCount}}"))

    def is_healthy(self, container: str) -> bool:
        """Whether its liveness probe succeeds now."""
        # Not `podman healthcheck run`: the third failure in a row has podman restart a container
        # that takes longer to start than its manifest says, and here they come five a second.
        return self.podman.try_("exec", container, *probe(container)).returncode == 0

    def wait_healthy(self, *names: str, timeout: float = DEADLINE) -> None:
        deadline = time.monotonic() + timeout
        for name in names:
            left = deadline - time.monotonic()
            until(lambda name=name: self.is_healthy(name), f"healthy {name}", left)

    # -- what is kept -------------------------------------------------------------------------

    def stored(self, container: str, uids: Sequence[str], timeout: float = 600) -> dict[str, Any]:
        """What the store of this container's pod holds of the runs, once their stops are there."""
        source = (ROOT / "tests" / "scenario.py").read_text()
        options = ("--json", "--timeout", f"{DEADLINE:g}", "--only", *uids)
        said = self.podman(
            "exec",
            "-i",
            container,
            "python",
            "-W",
            "ignore",
            "-",
            *options,
            stdin=source,
            timeout=timeout,
        )
        found: dict[str, Any] = json.loads(said)
        return found

    def shown(self, uid: str) -> bool:
        """Whether the databroker server has the end of this run."""
        with self.http(DATABROKER) as client:
            answer = answered(client, f"/api/v1/metadata/{uid}")
        return answer is not None and bool(
            answer.json()["data"]["attributes"]["metadata"].get("stop")
        )


def answered(client: httpx.Client, path: str) -> httpx.Response | None:
    """The answer, if it is a good one; none also where nobody listens yet."""
    try:
        answer = client.get(path)
    except httpx.TransportError:
        return None
    return answer if answer.status_code == 200 else None


# -- a bsui that stays -----------------------------------------------------------------------

# One line each, as a person would have to type it: what starts a plan and says how it went.
TOLD = """
import json as _json, time as _time
def _tell(name, doc):
    if name == "start":
        _uids.append(doc["uid"])
        print("@start", len(_uids), flush=True)
    elif name == "event":
        print("@event", doc["seq_num"], flush=True)
_uids = []
RE.subscribe(_tell)
def slow(seconds):
    def reading(devices, md=None):
        yield from bps.sleep(seconds)
        return (yield from bp.count(devices, md=md))
    return reading
def adaptive(seconds=0.2, **options):
    # Longer than a server takes to be stopped and started beside other tests.
    options.setdefault("timeout", 600)
    return adaptive_plan([det], {motor: options.pop("x", 0)}, to_recommender=to_recommender,
        from_recommender=from_recommender, take_reading=slow(seconds), **options)
def slow_move(to):
    yield from bps.mv(motor, 0)
    # It is still on its way when podman has killed its IOC.
    yield from bps.mv(motor.velocity, 0.5)
    yield from bps.abs_set(motor, to, group="move")
    yield from bps.sleep(0.5)
    print("@moving", flush=True)
    yield from bps.wait("move")
def go(plan):
    _uids.clear()
    begun, error = _time.monotonic(), None
    try:
        RE(plan)
    except BaseException as caught:
        error = f"{type(caught).__name__}: {caught}"
    seconds = _time.monotonic() - begun
    print("@ended " + _json.dumps({"uids": _uids, "error": error, "seconds": seconds,
        "at": motor.position if motor.connected else None}), flush=True)
"""


class Session:
    """A headless bsui in the pod, kept open: it is told a plan, and says how that goes."""

    def __init__(self, beamline: Beamline) -> None:
        self._heard: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            ["bash", "launchers/launch_bluesky_headless.sh"],
            cwd=ROOT,
            env=beamline.podman.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._listen)
        self._reader.start()

    def __enter__(self) -> Self:
        self.type(f"exec({TOLD!r}, globals())")
        self.type("print('@' + 'ready', flush=True)")
        self.hear("@ready")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(DEADLINE)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait(10)
        self._reader.join(10)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout:
            for line in self._process.stdout:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def type(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self, text: str, timeout: float = DEADLINE) -> str:
        """The rest of the next line with this text."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                tail = "\n".join(self._heard[-40:])
                pytest.fail(f"bsui did not say {text!r} within {timeout:g} s; it said:\n{tail}")
            self._heard.append(line)
            if text in line:
                return line.split(text, 1)[1].strip()

    def go(self, plan: str) -> None:
        """Start a plan; `hear` what it says."""
        self.type(f"go({plan})")

    def ended(self, timeout: float = 600) -> dict[str, Any]:
        """How the plan went."""
        found: dict[str, Any] = json.loads(self.hear("@ended", timeout))
        return found


def after(marker: str, output: str) -> str:
    """What a line of the output says after `MARKER=`."""
    found = re.search(rf"{marker}=(.*)", output)
    assert found, output
    return found.group(1).strip()
