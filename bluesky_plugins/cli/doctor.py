"""`doctor`: is each server reachable, which version, what to do if not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bluesky_plugins.cli.liveness import ask_http, read_pv
from bluesky_plugins.cli.stack import stack_status
from bluesky_plugins.cli.stack_parts import external_servers, part_addresses
from bluesky_plugins.embedded import Stack, StackError, StateFolder, tail
from bluesky_plugins.settings import ConfigurationError, Settings, load_settings, state_dir

__all__ = ["Finding", "doctor", "findings"]

TIMEOUT = 3.0
SETTING_OF = {"kafka": "kafka.bootstrap_servers", "mongo": "mongo.uri", "redis": "redis.url"}
# What else keeps a client out.
DOOR_OF = {
    "kafka": "is security.protocol in kafka.producer_config what this listener wants",
    "mongo": "are user and password in it right, and percent-encoded",
    "redis": "is the password in it right, and percent-encoded",
}


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    `advice` says what to do where `ok` is false.
    """

    ok: bool
    address: str | None = None
    version: str | None = None
    detail: str | None = None
    problem: str | None = None
    advice: str | None = None


Check = Callable[[Settings], Finding]


def findings(settings: Settings, folder: StateFolder) -> dict[str, Finding]:
    """Look at every server and service, side by side, each for a few seconds at most.

    A queue that hangs after an outage of Redis is mended.
    """
    checks: dict[str, Check] = {
        "kafka": _kafka,
        "topics": _topics,
        "mongo": _mongo,
        "redis": _redis,
        "recommender": lambda s: _http(s, s.http.recommender_port, "/healthz"),
        "httpserver": lambda s: _http(s, s.http.queueserver_port, "/api/status"),
        "queueserver": _queue,
    }
    elsewhere = not folder.stack_file.exists()
    if elsewhere:
        checks |= {"iocs": _iocs, "recorder": _recorder}
    with ThreadPoolExecutor(len(checks)) as pool:
        answers = {name: pool.submit(check, settings) for name, check in checks.items()}
    found = {name: answer.result() for name, answer in answers.items()}
    for name in ("recommender", "httpserver", "queueserver"):
        found[name] = _with_log(found[name], name, folder)
    return found if elsewhere else {**found, **_without_server(folder)}


def _advice(name: str) -> str:
    if name in external_servers(load_settings(with_stack=False)):
        return (
            f"{SETTING_OF[name]} is set by hand: is the address right, does {name} run there, is "
            f"there a way, {DOOR_OF[name]}?"
        )
    if not StateFolder(state_dir()).stack_file.exists():
        return (
            "run `bluesky-plugins up`; where it runs elsewhere: does it run there, and is its "
            "address in the settings right?"
        )
    return "run `bluesky-plugins up`"


def _lost(name: str, address: str | None, reason: object) -> Finding:
    return Finding(ok=False, address=address, problem=str(reason), advice=_advice(name))


def _kafka(settings: Settings) -> Finding:
    from bluesky_plugins.messaging import MessagingError, broker_count

    address = settings.kafka.address
    try:
        brokers = broker_count(settings, TIMEOUT)
    except (MessagingError, ConfigurationError) as error:
        return _lost("kafka", address, error)
    # Kafka's protocol does not tell the broker's version; our own is known.
    own = "kafka" not in external_servers(load_settings(with_stack=False))
    version = _own_kafka_version() if own else None
    return Finding(ok=True, address=address, version=version, detail=f"brokers: {brokers}")


def _own_kafka_version() -> str:
    from bluesky_plugins.embedded import locked_jars

    return next(j.version for j in locked_jars("kafka") if j.artifact.startswith("kafka_"))


def _topics(settings: Settings) -> Finding:
    from bluesky_plugins.messaging import MessagingError, partition_counts

    try:
        counts = partition_counts(settings, TIMEOUT)
    except (MessagingError, ConfigurationError) as error:
        return _lost("kafka", settings.kafka.address, error)
    missing = sorted(n for n, count in counts.items() if count is None)
    if missing:
        problem = f"not there: {', '.join(missing)}"
        return Finding(
            ok=False, problem=problem, advice="run `bluesky-plugins doctor --make-topics`"
        )
    other = {n: c for n, c in counts.items() if c != settings.kafka.partitions}
    if other:
        return Finding(
            ok=False,
            problem=", ".join(f"{n} has {c} partitions" for n, c in sorted(other.items())),
            advice=f"set kafka.partitions ({settings.kafka.partitions}) to what is there; never "
            "change a topic's partitions: runs and batches would lose their order",
        )
    detail = f"{len(counts)} topics with {settings.kafka.partitions} partitions each"
    return Finding(ok=True, detail=detail)


def _mongo(settings: Settings) -> Finding:
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    address = part_addresses(settings)["mongo"] or ""
    try:
        with MongoClient[dict[str, Any]](
            settings.mongo.address, serverSelectionTimeoutMS=int(TIMEOUT * 1000)
        ) as client:
            return Finding(ok=True, address=address, version=client.server_info()["version"])
    except PyMongoError as error:
        return _lost("mongo", address, str(error).split(",")[0])


def _redis(settings: Settings) -> Finding:
    import redis

    address = part_addresses(settings)["redis"] or ""
    try:
        with redis.Redis.from_url(
            settings.redis.address, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT
        ) as client:
            information: Any = client.info("server")
    except (redis.RedisError, OSError) as error:
        return _lost("redis", address, error)
    version = information.get("valkey_version") or information.get("redis_version")
    return Finding(ok=True, address=address, version=version)


def _http(settings: Settings, port: int, path: str) -> Finding:
    address = f"{settings.http.host}:{port}"
    status, body = ask_http(settings, port, path, TIMEOUT)
    if status is None:
        return _lost("http", address, body)
    if status in (401, 403):
        advice = "is http.api_key or http.api_key_file the key that this server was started with?"
        return Finding(ok=False, address=address, problem="refuses the key", advice=advice)
    if status >= 400:
        return _lost("http", address, f"answers with status {status}")
    return Finding(ok=True, address=address)


def _queue(settings: Settings) -> Finding:
    """The queue's manager hangs after an outage of Redis; here it is mended."""
    from bluesky_plugins.profile import mend_queue

    address = part_addresses(settings)["queueserver"] or ""
    report = mend_queue(settings)
    if report.state in ("fine", "mended"):
        return Finding(ok=True, address=address, detail=f"{report.state}: {report.detail}")
    return _lost("queue", address, report.detail)


def _iocs(settings: Settings) -> Finding:
    """The IOCs of pods, or of a facility: by what they serve."""
    addresses = settings.iocs.addresses
    try:
        for pv in ("motor.RBV", "camera:NumImages"):
            read_pv(settings, f"{settings.iocs.prefix}{pv}", addresses, TIMEOUT)
    except OSError as error:
        return _lost("iocs", addresses, error)
    return Finding(ok=True, address=addresses)


def _recorder(settings: Settings) -> Finding:
    """The recorders of pods, or of a facility: by the members of their consumer group."""
    from bluesky_plugins.messaging import MessagingError, group_members

    group = settings.recording.group_id
    try:
        members = group_members(settings, group, TIMEOUT)
    except MessagingError as error:
        return _lost("recorder", None, error)
    if not members:
        return _lost("recorder", None, f"the consumer group {settings.beamline}.{group} is empty")
    return Finding(ok=True, detail=f"members of its group: {len(members)}")


def _with_log(finding: Finding, name: str, folder: StateFolder) -> Finding:
    record = Stack(folder, TIMEOUT).records().get(name)
    if finding.ok or record is None or not record.reason:
        return finding
    last = " / ".join(tail(folder.log / f"{name}.log", 3))
    problem = f"{record.reason}: {last}"
    return Finding(ok=False, address=finding.address, problem=problem, advice=_advice(name))


def _without_server(folder: StateFolder) -> dict[str, Finding]:
    """Parts that can only be judged by their process."""
    status = stack_status(folder)
    out = {}
    for name in ("iocs", "recorder"):
        part = status[name]
        finding = Finding(ok=part["state"] == "running", address=part["address"])
        if not finding.ok:
            finding = _lost(name, part["address"], f"is {part['state']}")
        out[name] = _with_log(finding, name, folder)
    return out


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--make-topics", is_flag=True, help="Make the topics that are missing.")
def doctor(as_json: bool, make_topics: bool) -> None:
    """Say of each server whether it is reachable, which version it is, what to do if not.

    A queue that hangs after an outage of Redis is mended.
    """
    settings = load_settings()
    if make_topics:
        _make_topics(settings)
    try:
        found = findings(settings, StateFolder(state_dir()))
    except StackError as error:
        click.echo(f"bluesky-plugins doctor: {error}", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps({name: asdict(finding) for name, finding in found.items()}))
    else:
        _show(found)
    sys.exit(0 if all(finding.ok for finding in found.values()) else 1)


def _make_topics(settings: Settings) -> None:
    from bluesky_plugins.messaging import MessagingError, make_topics

    try:
        make_topics(settings)
    except MessagingError as error:
        # What stands there, and what to do, is told with everything else.
        click.echo(f"bluesky-plugins doctor: the topics could not be made: {error}", err=True)


def _show(found: dict[str, Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    table = Table("what", "", "version", "address", "", box=None)
    for name, one in found.items():
        mark = "[green]ok[/green]" if one.ok else "[red]not ok[/red]"
        table.add_row(name, mark, one.version or "", one.address or "", one.detail or "")
    console.print(table)
    for name, one in found.items():
        if not one.ok:
            console.print(f"{name}: {one.problem}", markup=False)
            console.print(f"  {one.advice}", markup=False)
