"""Documents over 0MQ: bluesky's own proxy and dispatcher, and proxies that are no use."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.plans import count
from ophyd.sim import det

from bluesky_plugins.profile.document_proxy import ProxyPublisher
from tests.servers import free_port

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

# It only bounds a hang: a busy machine takes ten times as long as an idle one.
DEADLINE = 120.0

# A process that measures with `document_proxy` set, and says how long its run takes. Before it, and
# until a file is there, others: what is sent before 0MQ has connected all is not delivered.
RUN = """
import json, os, sys, time
from bluesky.plans import count
from ophyd.sim import det
from bluesky_plugins.profile.engine import make_engine
from bluesky_plugins.settings import load_settings
engine = make_engine(load_settings(), headless=True, table=False)
while len(sys.argv) > 1 and not os.path.exists(sys.argv[1]):
    engine(count([det]))
began = time.monotonic()
uids = engine(count([det], 300))
print(json.dumps({"uid": list(uids)[0], "took": time.monotonic() - began}))
"""
LISTEN = """
import json, sys
from bluesky.callbacks.zmq import RemoteDispatcher
dispatcher = RemoteDispatcher(sys.argv[1])
dispatcher.subscribe(lambda name, doc: print(json.dumps({**doc, "document": str(name)})))
dispatcher.start()
"""


@contextmanager
def proxy() -> Iterator[tuple[int, int]]:
    """The in-port and the out-port of a running proxy."""
    ports = free_port(), free_port()
    argv = [str(Path(sys.executable).with_name("bluesky-0MQ-proxy")), *map(str, ports)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for port in ports:
            wait_for_listener(port)
        yield ports
    finally:
        process.kill()
        process.wait(DEADLINE)


def wait_for_listener(port: int) -> None:
    deadline, pause = time.monotonic() + DEADLINE, threading.Event()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            assert time.monotonic() < deadline, f"nobody listens on {port}"
            pause.wait(0.05)
        else:
            return


@contextmanager
def listening(port: int) -> Iterator[queue.SimpleQueue[dict[str, Any]]]:
    """Documents as another process gets them."""
    got: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    process = subprocess.Popen(
        [sys.executable, "-uc", LISTEN, f"127.0.0.1:{port}"], stdout=subprocess.PIPE, text=True
    )

    def collect() -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                got.put(json.loads(line))

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        yield got
    finally:
        process.kill()
        process.wait(DEADLINE)
        thread.join(DEADLINE)


def measured(address: str, folder: Path, *until: str) -> dict[str, Any]:
    """What the process said: the uid of its run, and how long that took, in s."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BLUESKY_PLUGINS_")}
    prefix = "BLUESKY_PLUGINS_"
    environment = {
        **kept,
        f"{prefix}STATE_DIR": str(folder),
        f"{prefix}KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
        f"{prefix}REDIS__URL": f"redis://127.0.0.1:{free_port()}/0",
        f"{prefix}DOCUMENT_PROXY": address,
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, *until],
        env=environment,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def test_documents_of_the_engine_come_out_of_the_proxy(tmp_path: Path) -> None:
    heard, documents = tmp_path / "heard", []
    with proxy() as (into, out), listening(out) as got, ThreadPoolExecutor(1) as pool:
        saying = pool.submit(measured, f"127.0.0.1:{into}", tmp_path, str(heard))
        got.get(timeout=DEADLINE)
        heard.touch()
        uid = saying.result()["uid"]
        while not any(d["document"] == "stop" and d["run_start"] == uid for d in documents[-1:]):
            documents.append(got.get(timeout=DEADLINE))
    first = [document["uid"] for document in documents].index(uid)
    names = [document["document"] for document in documents[first:]]
    assert names == ["start", "descriptor", *["event"] * 300, "stop"]


@pytest.mark.timed
def test_a_proxy_that_is_away_holds_up_neither_the_run_nor_the_end(tmp_path: Path) -> None:
    said = measured(f"127.0.0.1:{free_port()}", tmp_path)
    assert said["took"] < 20


@pytest.mark.timed
def test_a_proxy_that_takes_connections_and_reads_nothing_holds_up_no_run(tmp_path: Path) -> None:
    with socket.socket() as stuck:
        stuck.bind(("127.0.0.1", 0))
        stuck.listen(5)
        said = measured(f"127.0.0.1:{stuck.getsockname()[1]}", tmp_path)
    assert said["took"] < 20


@pytest.mark.timed
def test_what_is_beyond_the_high_water_mark_costs_no_time() -> None:
    publisher = ProxyPublisher(f"127.0.0.1:{free_port()}")
    began = time.monotonic()
    for number in range(5000):
        publisher("event", {"uid": str(number), "data": {"x": "x" * 1000}})
    publisher.close()
    assert time.monotonic() - began < 10


def test_a_document_that_cannot_travel_does_not_stop_the_run() -> None:
    publisher = ProxyPublisher(f"127.0.0.1:{free_port()}")
    engine = RunEngine({})
    engine.subscribe(publisher)
    (uid,) = engine(count([det]), lambda name, doc: publisher(name, {"lock": threading.Lock()}))
    assert uid
    publisher.close()
    publisher("start", {})
