"""The loop as people run it: services as processes, a plan in a process, all of them killable."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from bluesky_plugins.messaging import make_topics
from bluesky_plugins.settings import Settings

# It only bounds a hang: a busy machine takes ten times as long as an idle one.
DEADLINE = 120.0


def environment_of(settings: Settings) -> dict[str, str]:
    """The settings as a process gets them."""
    kafka = settings.kafka
    return {
        **os.environ,
        "BLUESKY_PLUGINS_BEAMLINE": settings.beamline,
        "BLUESKY_PLUGINS_KAFKA__BOOTSTRAP_SERVERS": kafka.address,
        "BLUESKY_PLUGINS_KAFKA__PARTITIONS": str(kafka.partitions),
        "BLUESKY_PLUGINS_KAFKA__REPLICATION_FACTOR": str(kafka.replication_factor),
        "BLUESKY_PLUGINS_KAFKA__PRODUCER_CONFIG": json.dumps(kafka.producer_config),
        "BLUESKY_PLUGINS_KAFKA__CONSUMER_CONFIG": json.dumps(kafka.consumer_config),
        "BLUESKY_PLUGINS_KAFKA__SPOOL_DIR": str(settings.spool_dir),
        "BLUESKY_PLUGINS_MONGO__URI": settings.mongo.address,
        "BLUESKY_PLUGINS_REDIS__URL": settings.redis.address,
        "BLUESKY_PLUGINS_HTTP__RECOMMENDER_PORT": "0",
        "PYTHONUNBUFFERED": "1",
    }


class Process:
    """A process whose lines on stdout can be waited for. It can be killed and started again."""

    def __init__(self, argv: list[str], environment: dict[str, str], log: Path) -> None:
        self._argv, self._environment, self._log = argv, environment, log
        self._process: subprocess.Popen[str] | None = None
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def start(self) -> Process:
        self.lines = queue.SimpleQueue()
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._argv, env=self._environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        threading.Thread(target=self._collect, args=(self._process, self.lines)).start()
        return self

    @staticmethod
    def _collect(process: subprocess.Popen[str], lines: queue.SimpleQueue[str | None]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                lines.put(line.rstrip("\n"))
        lines.put(None)

    def line(self, having: str, timeout: float = DEADLINE) -> str:
        """The next line that has this text in it."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                tail = "\n".join(self._log.read_text().splitlines()[-30:])
                pytest.fail(f"{self._argv[-3:]} did not say {having!r}; its log ends:\n{tail}")
            if having in line:
                return line

    def rest(self) -> list[str]:
        """The lines that were not waited for, once it has ended."""
        return list(iter(lambda: self.lines.get(timeout=DEADLINE), None))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it does not run."""
        return self._process is None or self._process.poll() is not None

    def errors(self) -> str:
        """What it has written on stderr."""
        return self._log.read_text()

    def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(DEADLINE)

    def stop(self, timeout: float = 10.0) -> int:
        """SIGTERM; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout)

    def wait(self, timeout: float = DEADLINE) -> int:
        """The exit status, when it ends by itself."""
        assert self._process is not None
        return self._process.wait(timeout)


class Loop:
    """Services and plans with the same settings."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.environment = environment_of(settings)
        self._folder = folder
        self._processes: list[Process] = []
        self._client: MongoClient[dict[str, Any]] = MongoClient(
            settings.mongo.address, serverSelectionTimeoutMS=int(DEADLINE * 1000)
        )

    def run(self, *argv: str) -> Process:
        log = self._folder / f"{len(self._processes)}.log"
        process = Process([sys.executable, *argv], self.environment, log)
        self._processes.append(process)
        return process.start()

    def service(self, name: str, *options: str) -> Process:
        """A service, ready."""
        process = self.run("-m", "bluesky_plugins.cli", name, *options)
        process.line("ready")
        return process

    def plan(self, **options: Any) -> Process:
        """An adaptive plan on simulated devices; it says `run N` and, at its end, its report."""
        # A service that is killed takes longer to come back on a busy machine than plans wait.
        told = json.dumps({"timeout": DEADLINE, **options})
        return self.run(str(Path(__file__).with_name("plan_process.py")), told)

    def report(self, plan: Process, timeout: float = DEADLINE) -> dict[str, Any]:
        return json.loads(plan.line('{"uids"', timeout))

    def collection(self, database: str, name: str) -> Any:
        return self._client[self.settings.database(database)][name]

    def starts(self, batch_id: str) -> list[dict[str, Any]]:
        found = self.collection("documents", "run_start").find({"batch_id": batch_id})
        return sorted(found, key=lambda doc: (doc["batch_count"], doc["time"]))

    def until(self, condition: Callable[[], Any], what: str, timeout: float = DEADLINE) -> Any:
        deadline, pause = time.monotonic() + timeout, threading.Event()
        while not (found := condition()):
            assert time.monotonic() < deadline, f"no {what} within {timeout} s"
            pause.wait(0.02)
        return found

    def recorded(self, uids: list[str]) -> dict[str, list[dict[str, Any]]]:
        """All documents of the runs, once all their stops are stored."""
        of_runs = {"run_start": {"$in": uids}}
        stops = self.collection("documents", "run_stop")
        self.until(lambda: stops.count_documents(of_runs) >= len(uids), f"{len(uids)} stops")
        found = {
            "start": list(self.collection("documents", "run_start").find({"uid": {"$in": uids}})),
            "descriptor": list(self.collection("documents", "event_descriptor").find(of_runs)),
            "stop": list(stops.find(of_runs)),
        }
        of_descriptors = {"descriptor": {"$in": [d["uid"] for d in found["descriptor"]]}}
        events = self.collection("documents", "event")
        return {**found, "event": list(events.find(of_descriptors))}

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        self._client.close()


@pytest.fixture
def make_loop(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> Iterator[Callable[..., Loop]]:
    """`make_loop(**sections)`: a loop with its topics; no service runs yet."""
    made: list[Loop] = []

    def make(**sections: Any) -> Loop:
        settings = make_settings(**sections)
        make_topics(settings, DEADLINE)
        made.append(Loop(settings, tmp_path))
        return made[-1]

    yield make
    for loop in made:
        loop.close()


@pytest.fixture
def loop(make_loop: Callable[..., Loop]) -> Loop:
    """A loop on the session's servers."""
    return make_loop()
