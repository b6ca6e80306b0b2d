"""What can be set, and what is refused where it is set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from bluesky_plugins.settings.places import PREFIX, ConfigurationError, secrets_dir, state_dir
from bluesky_plugins.settings.processing import ProcessingSettings
from bluesky_plugins.settings.secrets_folder import SecretsSource
from bluesky_plugins.settings.section import Section

__all__ = [
    "AdaptiveSettings",
    "EmbeddedSettings",
    "HttpSettings",
    "IocsSettings",
    "KafkaSettings",
    "MongoSettings",
    "RecordingSettings",
    "RedisSettings",
    "Settings",
]

# A name, an address of IPv4, or one of IPv6 in brackets; then maybe a port.
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\s]+)(:[0-9]{1,5})?")


def _checked_url(secret: SecretStr | None, *schemes: str) -> SecretStr | None:
    if secret is None:
        return None
    scheme, _, rest = secret.get_secret_value().partition("://")
    if scheme not in schemes:
        raise ValueError(f"it must begin with {' or '.join(f'{s}://' for s in schemes)}")
    hosts = re.split(r"[/?]", rest)[0].rpartition("@")[2]
    if scheme != "unix" and not all(HOST.fullmatch(host) for host in hosts.split(",")):
        raise ValueError("host:port is expected (% + / ? : @ in a password are percent-encoded)")
    return secret


def _checked_address(address: str, *, with_port: bool = False) -> str:
    found = HOST.fullmatch(address)
    if not found or (with_port and not found[2]):
        raise ValueError(f"{address!r} is not host{':port' if with_port else '[:port]'}")
    if found[2] and not 1 <= int(found[2][1:]) <= 65535:
        raise ValueError(f"{address!r}: a port is 1 to 65535")
    return address


def _has_port(address: str) -> bool:
    found = HOST.fullmatch(address)
    return bool(found and found[2])


class KafkaSettings(Section):
    """Where Kafka is and how to talk to it."""

    bootstrap_servers: str | None = Field(
        None, description="host:port[,host:port]; unset: the running stack's Kafka"
    )
    partitions: int = Field(4, ge=1, description="partitions of each topic made by `up`")
    replication_factor: int = Field(1, ge=1, description="replicas of each topic made by `up`")
    producer_config: dict[str, Any] = Field(
        default_factory=dict,
        description="librdkafka producer properties (SASL, TLS, ...)",
        repr=False,
    )
    consumer_config: dict[str, Any] = Field(
        default_factory=dict,
        description="librdkafka consumer properties (SASL, TLS, ...)",
        repr=False,
    )
    spool_dir: Path | None = Field(
        None, description="folder of unsent messages; unset: <state-dir>/spool"
    )
    spool_max_mb: int = Field(
        2048, ge=1, description="unsent messages kept on disk by one process, at most, MB"
    )
    max_message_bytes: int = Field(
        16_000_000,
        ge=1_000_000,
        description="largest message, bytes; topics made by `up` take as much",
    )

    @property
    def address(self) -> str:
        """`bootstrap_servers`, or Kafka's usual address on this machine."""
        return self.bootstrap_servers or "127.0.0.1:9092"


class MongoSettings(Section):
    """Where MongoDB is."""

    uri: SecretStr | None = Field(
        None, description="mongodb:// URI without a database; unset: the running stack's"
    )

    @field_validator("uri")
    @classmethod
    def _is_mongodb(cls, uri: SecretStr | None) -> SecretStr | None:
        return _checked_url(uri, "mongodb", "mongodb+srv")

    @property
    def address(self) -> str:
        """The URI, or MongoDB's usual one on this machine. It may hold a password."""
        return self.uri.get_secret_value() if self.uri else "mongodb://127.0.0.1:27017"


class RedisSettings(Section):
    """Where Redis (or Valkey) is."""

    url: SecretStr | None = Field(
        None, description="redis://[:password@]host:port/db; unset: the running stack's"
    )

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        return _checked_url(url, "redis", "rediss", "unix")

    @property
    def address(self) -> str:
        """The URL, or Redis' usual one on this machine. It may hold a password."""
        return self.url.get_secret_value() if self.url else "redis://127.0.0.1:6379/0"


class HttpSettings(Section):
    """The HTTP servers of the stack."""

    host: str = Field("127.0.0.1", description="address that the HTTP servers bind to")
    recommender_port: int = Field(60620, ge=0, le=65535, description="port of the recommender")
    queueserver_port: int = Field(60610, ge=0, le=65535, description="port of the queue's server")
    queueserver_control_port: int = Field(
        60615, ge=1, le=65535, description="0MQ port by which the queue is controlled"
    )
    queueserver_info_port: int = Field(
        60625, ge=1, le=65535, description="0MQ port on which the queue publishes its console"
    )
    api_key: SecretStr | None = Field(None, description="key for `Authorization: ApiKey <key>`")
    api_key_file: Path | None = Field(None, description="file (0600) that holds the key")

    def key(self) -> str | None:
        """The key itself: from `api_key`, else from `api_key_file`, else None."""
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        if self.api_key_file is None:
            return None
        try:
            return self.api_key_file.read_text().strip()
        except OSError as error:
            raise ConfigurationError(
                f"http.api_key_file {self.api_key_file}: {error.strerror}"
            ) from None


class RecordingSettings(Section):
    """The recorder: documents from Kafka into MongoDB."""

    group_id: str = Field("recorder", description="consumer group, prefixed by the beamline")
    instance: str = Field("0", description="this process's slot in its group (static membership)")
    bulk_size: int = Field(500, ge=1, description="documents written at once, at most")
    retry_seconds: float = Field(0.5, gt=0, description="pause before MongoDB is tried again, s")
    db_wait_seconds: float = Field(
        10.0, ge=0, description="how long db[-1] waits for the last run's stop document, s"
    )


class AdaptiveSettings(Section):
    """The recommender service and the defaults of a batch."""

    group_id: str = Field("recommender", description="consumer group, prefixed by the beamline")
    instance: str = Field("0", description="this process's slot in its group (static membership)")
    recommender: str = Field("step", description="registered name, used when a start names none")
    parameters: dict[str, Any] = Field(
        default_factory=lambda: {"step": 1.5}, description="parameters of that recommender"
    )
    max_count: int = Field(15, ge=0, description="runs up to this batch_count are answered")
    independent_keys: list[str] = Field(
        default_factory=lambda: ["motor"], description="data keys that are moved"
    )
    dependent_keys: list[str] = Field(
        default_factory=lambda: ["det"], description="data keys that are measured"
    )
    max_revisions: int = Field(
        5, ge=0, description="refused suggestions in a row after which the batch is stopped"
    )
    compute_seconds: float = Field(
        600.0, gt=0, description="a recommender that takes longer ends its batch, s"
    )
    silent_after_seconds: float = Field(
        600.0, gt=0, description="a batch without news for this long is shown as silent, s"
    )
    close_after_seconds: float = Field(
        86400.0, gt=0, description="a batch without news for this long is closed, s"
    )
    processing_wait_seconds: float = Field(
        3600.0, gt=0, description="a batch whose processed values are later than this is stopped, s"
    )


class IocsSettings(Section):
    """The simulated hardware and how its clients find it."""

    prefix: str = Field("mad:", description="prefix of every PV")
    ca_server_port: int = Field(5064, ge=1, le=65535, description="Channel Access port (TCP, UDP)")
    ca_repeater_port: int = Field(5065, ge=1, le=65535, description="Channel Access repeater port")
    address_list: list[str] = Field(
        default_factory=lambda: ["127.0.0.1"],
        min_length=1,
        description="host[:port] of each IOC; without a port at `ca_server_port`",
    )
    camera_dir: Path | None = Field(
        None, description="folder of the camera's files; unset: <state-dir>/camera"
    )

    @property
    def addresses(self) -> str:
        """`address_list` as EPICS clients take it, each with its port."""
        return " ".join(
            a if _has_port(a) else f"{a}:{self.ca_server_port}" for a in self.address_list
        )

    @field_validator("address_list")
    @classmethod
    def _are_addresses(cls, addresses: list[str]) -> list[str]:
        return [_checked_address(address) for address in addresses]


class EmbeddedSettings(Section):
    """The servers that `bluesky-plugins up` starts on this machine."""

    ready_seconds: float = Field(60.0, gt=0, description="`up` fails when not ready after this, s")
    stop_seconds: float = Field(15.0, gt=0, description="a part that stops is killed after this, s")
    max_failures: int = Field(
        10, ge=1, description="a part that ends this often without getting ready is stopped"
    )
    minimum_free_mb: int = Field(
        500, ge=0, description="`up` refuses a state folder with less free space than this, MB"
    )
    jars_dir: Path | None = Field(
        None, description="folder of the servers' jars; unset: in the user's cache folder"
    )
    kafka_heap_mb: int = Field(512, ge=128, description="largest heap of Kafka's JVM, MB")


class Settings(BaseSettings):
    """All settings of bluesky-plugins."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    beamline: str = Field(
        "mad",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$",
        description="prefixes the topics and the databases",
    )
    document_proxy: str | None = Field(
        None,
        description="host:port into which bsui and the queue publish every document over 0MQ too "
        "(the in-port of bluesky-0MQ-proxy); unset: none",
    )
    kafka: KafkaSettings = Field(default_factory=lambda: KafkaSettings())
    mongo: MongoSettings = Field(default_factory=lambda: MongoSettings())
    redis: RedisSettings = Field(default_factory=lambda: RedisSettings())
    http: HttpSettings = Field(default_factory=lambda: HttpSettings())
    recording: RecordingSettings = Field(default_factory=lambda: RecordingSettings())
    adaptive: AdaptiveSettings = Field(default_factory=lambda: AdaptiveSettings())
    processing: ProcessingSettings = Field(default_factory=lambda: ProcessingSettings())
    iocs: IocsSettings = Field(default_factory=lambda: IocsSettings())
    embedded: EmbeddedSettings = Field(default_factory=lambda: EmbeddedSettings())

    @field_validator("document_proxy")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        return None if address is None else _checked_address(address, with_port=True)

    def topic(self, name: str) -> str:
        """Full name of a topic, e.g. `documents` -> `mad.bluesky.documents`."""
        return f"{self.beamline}.bluesky.{name}"

    def database(self, name: str) -> str:
        """Full name of a MongoDB database, e.g. `documents` -> `mad-bluesky-documents`."""
        return f"{self.beamline}-bluesky-{name}"

    @property
    def spool_dir(self) -> Path:
        """Folder in which producers keep what they could not send."""
        return self.kafka.spool_dir or state_dir() / "spool"

    @property
    def camera_dir(self) -> Path:
        """Folder into which the simulated camera writes its files."""
        return self.iocs.camera_dir or state_dir() / "camera"

    @property
    def epics_environment(self) -> dict[str, str]:
        """What EPICS servers and clients of this stack need in their environment."""
        server_port, repeater_port = str(self.iocs.ca_server_port), str(self.iocs.ca_repeater_port)
        return {
            "EPICS_CA_ADDR_LIST": self.iocs.addresses,
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_CA_SERVER_PORT": server_port,
            "EPICS_CA_REPEATER_PORT": repeater_port,
            "EPICS_CAS_SERVER_PORT": server_port,
            "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
            "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
            "EPICS_CAS_BEACON_ADDR_LIST": "127.0.0.1",
            "EPICS_CAS_BEACON_PORT": repeater_port,
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before secrets before what `load_settings` passes as files."""
        return (env_settings, SecretsSource(settings_cls, secrets_dir()), init_settings)
