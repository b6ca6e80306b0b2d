"""The nouns of a stack: its parts, how each is known to be ready, and what is known of it."""

from __future__ import annotations

import signal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "HttpProbe",
    "KafkaProbe",
    "LineProbe",
    "MongoProbe",
    "Part",
    "PartRecord",
    "PartState",
    "Probe",
    "RedisProbe",
    "StackError",
    "StackSpec",
    "TcpProbe",
]


class StackError(Exception):
    """The stack cannot do what was asked; the text says why and what to do."""


class Noun(BaseModel):
    """Frozen, and an unknown field is an error: the supervisor reads these from a pipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TcpProbe(Noun):
    """Ready when a connection is accepted."""

    kind: Literal["tcp"] = "tcp"
    host: str
    port: int


class HttpProbe(Noun):
    """Ready when `GET path` is answered with less than 500."""

    kind: Literal["http"] = "http"
    host: str
    port: int
    path: str = "/"


class KafkaProbe(Noun):
    """Ready when the broker tells its metadata.

    `config` are further librdkafka properties; they may hold passwords.
    """

    kind: Literal["kafka"] = "kafka"
    bootstrap_servers: str
    config: dict[str, Any] = Field(default_factory=dict, repr=False)


class MongoProbe(Noun):
    """Ready when `ping` is answered. The URI may hold a password."""

    kind: Literal["mongo"] = "mongo"
    uri: str = Field(repr=False)


class RedisProbe(Noun):
    """Ready when `PING` is answered. The URL may hold a password."""

    kind: Literal["redis"] = "redis"
    url: str = Field(repr=False)


class LineProbe(Noun):
    """Ready when the process has printed a line that contains `text` on its stdout."""

    kind: Literal["line"] = "line"
    text: str = ""


Probe = Annotated[
    TcpProbe | HttpProbe | KafkaProbe | MongoProbe | RedisProbe | LineProbe,
    Field(discriminator="kind"),
]


class Part(Noun):
    """A program of the stack.

    `port` is the one that the process (or a child of it) must itself listen on before its
    probe counts, so that a stranger on that port is not taken for the part. Parts of a lower
    `stop_rank` are stopped first.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")
    argv: tuple[str, ...] = Field(min_length=1)
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    probe: Probe
    port: int | None = None
    address: str | None = None
    stop_rank: int = 0
    stop_signal: int = int(signal.SIGTERM)


class StackSpec(Noun):
    """What a supervisor is started with."""

    root: Path
    parts: tuple[Part, ...]
    max_failures: int = Field(default=10, ge=1)
    stop_seconds: float = Field(default=15.0, gt=0)
    check_seconds: float = Field(default=0.25, gt=0)
    log_bytes: int = Field(default=10_000_000, ge=1000)


class PartState(StrEnum):
    """What `status` says of a part."""

    RUNNING = "running"
    STARTING = "starting"
    STOPPED = "stopped"
    FAILED = "failed"
    EXTERNAL = "external"
    DOWN = "down"


class PartRecord(Noun):
    """What the supervisor knows of a part."""

    state: PartState
    pid: int | None = None
    failures: int = 0
    reason: str | None = None
