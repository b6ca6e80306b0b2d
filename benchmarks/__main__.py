"""`python -m benchmarks [recorder] [recorders] [scan] [round_trip] [processing]`: all as ratios.

Starts a Kafka, a MongoDB and a Redis of its own, from pip, unless the environment names running
ones: BLUESKY_PLUGINS_TEST_KAFKA (host:port), _MONGO (URI), _REDIS (URL).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import platform
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from bluesky_plugins.embedded import answers
from bluesky_plugins.embedded.kafka import prepare_kafka
from bluesky_plugins.embedded.mongo import mongo_command
from bluesky_plugins.embedded.parts import KafkaProbe, MongoProbe, RedisProbe
from bluesky_plugins.embedded.valkey import prepare_valkey
from bluesky_plugins.settings import Settings

NAMES = ("recorder", "recorders", "scan", "round_trip", "processing")
READY_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(argv: list[str], log: Path, probe: Any) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out)
    try:
        deadline, pause = time.monotonic() + READY_SECONDS, threading.Event()
        while not answers(probe, timeout=1.0):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{argv[0]} did not start:\n{log.read_text()[-2000:]}")
            pause.wait(0.1)
        yield
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[Settings]:
    """Settings of three servers that answer."""
    named = {n: os.environ.get(f"BLUESKY_PLUGINS_TEST_{n}") for n in ("KAFKA", "MONGO", "REDIS")}
    kafka_port, mongo_port, redis_port = free_port(), free_port(), free_port()
    kafka = named["KAFKA"] or f"127.0.0.1:{kafka_port}"
    mongo = named["MONGO"] or f"mongodb://127.0.0.1:{mongo_port}"
    redis = named["REDIS"] or f"redis://127.0.0.1:{redis_port}/0"
    starts: dict[str, tuple[Callable[[], list[str]], Any]] = {
        "KAFKA": (
            lambda: prepare_kafka(folder / "kafka", port=kafka_port, controller_port=free_port()),
            KafkaProbe(bootstrap_servers=kafka),
        ),
        "MONGO": (
            lambda: mongo_command(folder / "mongo.mv", port=mongo_port),
            MongoProbe(uri=mongo),
        ),
        "REDIS": (
            lambda: prepare_valkey(folder / "valkey", port=redis_port),
            RedisProbe(url=redis),
        ),
    }
    with contextlib.ExitStack() as running:
        for name, (argv, probe) in starts.items():
            if named[name] is None:
                running.enter_context(server(argv(), folder / f"{name}.log", probe))
        yield Settings(
            beamline=f"b{uuid4().hex[:8]}",
            kafka={"bootstrap_servers": kafka, "spool_dir": folder / "spool"},
            mongo={"uri": mongo},
            redis={"url": redis},
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="default: all")
    names = parser.parse_args().names or NAMES
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder, servers(Path(folder)) as settings:
        for name in names:
            for what, unit, value in importlib.import_module(f"benchmarks.{name}").measure(
                settings
            ):
                print(f"{what:<60} {value:>12.3f} {unit}", flush=True)


if __name__ == "__main__":
    main()
