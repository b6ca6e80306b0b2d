"""Does a part answer? One question, one deadline, no retry."""

from __future__ import annotations

import http.client
import logging
import socket
from typing import assert_never

import psutil

from bluesky_plugins.embedded.parts import (
    HttpProbe,
    KafkaProbe,
    LineProbe,
    MongoProbe,
    Probe,
    RedisProbe,
    TcpProbe,
)

__all__ = ["answers", "listens"]

# "Connection refused" is an answer here, not news.
_SILENT = logging.getLogger(f"{__name__}.kafka")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


def listens(pid: int, port: int) -> bool:
    """Whether process `pid`, or a descendant of it, listens on TCP `port`."""
    try:
        process = psutil.Process(pid)
        return any(_listens(one, port) for one in (process, *process.children(recursive=True)))
    except psutil.Error:
        return False


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:
        return False
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def answers(probe: Probe, timeout: float = 1.0) -> bool:
    """Ask once.

    :param timeout: s; also for a server that accepts and then says nothing.
    :returns: False for a `LineProbe`, which only the supervisor can answer.
    """
    match probe:
        case TcpProbe():
            return _tcp(probe.host, probe.port, timeout)
        case HttpProbe():
            return _http(probe, timeout)
        case KafkaProbe():
            return _tcp_first(probe.bootstrap_servers, timeout) and _kafka(probe, timeout)
        case MongoProbe():
            return _mongo(probe, timeout)
        case RedisProbe():
            return _redis(probe, timeout)
        case LineProbe():
            return False
        case _:
            assert_never(probe)


def _tcp(host: str, port: int, timeout: float) -> bool:
    try:
        with socket.create_connection((host, port), timeout):
            return True
    except OSError:
        return False


def _tcp_first(servers: str, timeout: float) -> bool:
    # A librdkafka client takes its whole deadline to say that nobody is there.
    for server in servers.split(","):
        host, _, port = server.strip().rpartition(":")
        if port.isdigit() and _tcp(host.split("//")[-1].strip("[]"), int(port), timeout):
            return True
    return False


def _http(probe: HttpProbe, timeout: float) -> bool:
    connection = http.client.HTTPConnection(probe.host, probe.port, timeout=timeout)
    try:
        connection.request("GET", probe.path)
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _kafka(probe: KafkaProbe, timeout: float) -> bool:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    config = {**probe.config, "bootstrap.servers": probe.bootstrap_servers}
    try:
        metadata = AdminClient(config, logger=_SILENT).list_topics(timeout=timeout)
    except KafkaException:
        return False
    return bool(metadata.brokers)


def _mongo(probe: MongoProbe, timeout: float) -> bool:
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    milliseconds = int(timeout * 1000)
    try:
        with MongoClient[dict[str, object]](
            probe.uri, serverSelectionTimeoutMS=milliseconds, socketTimeoutMS=milliseconds
        ) as client:
            client.admin.command("ping")
    except PyMongoError:
        return False
    return True


def _redis(probe: RedisProbe, timeout: float) -> bool:
    import redis

    try:
        with redis.Redis.from_url(
            probe.url, socket_timeout=timeout, socket_connect_timeout=timeout
        ) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
