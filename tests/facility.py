"""Servers as a facility has them: three Kafka nodes, TLS, logins, a Redis with a password.

From the same jars and wheels as the embedded ones, on loopback; as processes of the tests.
"""

from __future__ import annotations

import ipaddress
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.servers import PrivateServer, free_port

NODES = 3
READY_SECONDS = 180.0
ASK_SECONDS = 60.0
HEAP_MB = 256
USER = "beamline"
# What would have to be quoted or encoded somewhere; the storage tool takes no comma here.
KAFKA_PASSWORD = 'p4$$ w:rd/é%41+"=]'
REDIS_PASSWORD = "r3d/is@:?#%41 é+\"'\\"
MECHANISM = "SCRAM-SHA-512"


# -- certificates ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority's certificate, and a server's key with its certificate."""

    authority: Path
    server: Path


def make_certificates(folder: Path) -> Certificates:
    """Of a new authority, for a server on 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def built(name: str, key: Any, issuer: str) -> Any:
        subject, by = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, each)])
            for each in (name, issuer)
        )
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == issuer, path_length=None), True)
        )

    folder.mkdir(parents=True, exist_ok=True)
    authority, server = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    signing = built("authority", authority, "authority").sign(authority, hashes.SHA256())
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    names = x509.SubjectAlternativeName([address, x509.DNSName("localhost")])
    signed = built("server", server, "authority").add_extension(names, False)
    pem = serialization.Encoding.PEM
    key = server.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths = Certificates(folder / "authority.pem", folder / "server.pem")
    paths.authority.write_bytes(signing.public_bytes(pem))
    paths.server.touch(mode=0o600)
    paths.server.write_bytes(key + signed.sign(authority, hashes.SHA256()).public_bytes(pem))
    return paths


# -- Kafka ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ports:
    plain: int
    secure: int
    controller: int


def node_properties(
    node: int, ports: dict[int, Ports], data: Path, certificates: Certificates
) -> dict[str, str]:
    """A node that is broker and controller, with a plain and a TLS+SASL listener."""
    from bluesky_plugins.embedded.kafka import server_properties

    own = ports[node]
    clients = f"PLAINTEXT://127.0.0.1:{own.plain},SECURE://127.0.0.1:{own.secure}"
    voters = ",".join(f"{n}@127.0.0.1:{each.controller}" for n, each in ports.items())
    secure = "listener.name.secure"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    three = dict.fromkeys(
        (
            "offsets.topic.replication.factor",
            "transaction.state.log.replication.factor",
            "share.coordinator.state.topic.replication.factor",
            "default.replication.factor",
        ),
        str(NODES),
    )
    two = dict.fromkeys(
        (
            "min.insync.replicas",
            "transaction.state.log.min.isr",
            "share.coordinator.state.topic.min.isr",
        ),
        "2",
    )
    protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL"
    return {
        **server_properties(own.plain, own.controller, data),
        "node.id": str(node),
        "controller.quorum.voters": voters,
        "listeners": f"{clients},CONTROLLER://127.0.0.1:{own.controller}",
        "advertised.listeners": clients,
        "listener.security.protocol.map": protocols,
        f"{secure}.sasl.enabled.mechanisms": MECHANISM,
        f"{secure}.{MECHANISM.lower()}.sasl.jaas.config": scram,
        f"{secure}.ssl.keystore.type": "PEM",
        f"{secure}.ssl.keystore.location": str(certificates.server),
        # Whoever logs in may what an ACL says; the plain listener is the facility's own.
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        **three,
        **two,
        # Three JVMs on two cores: a heartbeat may be late without anybody being dead.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }


class FacilityKafka:
    """Three nodes, every partition on all of them, two of which must have a message."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.certificates = make_certificates(folder / "certificates")
        self.ports = {
            node: Ports(free_port(), free_port(), free_port()) for node in range(1, NODES + 1)
        }
        self._cluster_id = "facilityfacilityfacili"
        self.nodes = {node: self._node(node) for node in self.ports}

    def _node(self, node: int) -> PrivateServer:
        from bluesky_plugins.embedded.parts import KafkaProbe

        address = f"127.0.0.1:{self.ports[node].plain}"
        probe = KafkaProbe(bootstrap_servers=address)
        return PrivateServer(
            f"kafka-{node}", self._folder, address, lambda: self._prepare(node), probe
        )

    def _prepare(self, node: int) -> list[str]:
        from bluesky_plugins.embedded.kafka import prepare_node

        folder = self._folder / str(node)
        login = f"{MECHANISM}=[name={USER},password={KAFKA_PASSWORD}]"
        return prepare_node(
            folder,
            node_properties(node, self.ports, folder / "data", self.certificates),
            cluster_id=self._cluster_id,
            format_options=["--add-scram", login],
            heap_mb=HEAP_MB,
        )

    def start(self) -> None:
        """All that do not run, side by side; returns when all answer and know each other."""
        missing = [node for node, server in self.nodes.items() if not server.running]
        with ThreadPoolExecutor(NODES) as pool:  # formatting; a server starts below
            list(pool.map(self._prepare, missing))
        deadline = time.monotonic() + READY_SECONDS
        for node in missing:
            self.nodes[node].launch()
        for server in self.nodes.values():
            server.wait_until_ready(deadline)
        self.wait_until_in_sync(deadline)
        self._grant()

    def _grant(self) -> None:
        """The rights that the documentation asks for, on all beamlines that begin with `t`."""
        from confluent_kafka.admin import (
            AclBinding,
            AclOperation,
            AclPermissionType,
            AdminClient,
            ResourcePatternType,
            ResourceType,
        )

        may = {
            ResourceType.TOPIC: ("READ", "WRITE", "DESCRIBE", "CREATE"),
            ResourceType.GROUP: ("READ",),
        }
        rules = [
            AclBinding(
                kind,
                "t",
                ResourcePatternType.PREFIXED,
                f"User:{USER}",
                "*",
                AclOperation[operation],
                AclPermissionType.ALLOW,
            )
            for kind, operations in may.items()
            for operation in operations
        ]
        client = AdminClient({"bootstrap.servers": self.plain_address})
        for done in client.create_acls(rules, request_timeout=ASK_SECONDS).values():
            done.result(ASK_SECONDS + 5)

    def wait_until_in_sync(self, deadline: float) -> None:
        """Every partition is led, and all nodes have all of it."""
        pause = threading.Event()
        while behind := self._behind():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not in sync in time: {behind}")
            pause.wait(0.05)

    def _behind(self) -> str:
        found = self.metadata()
        if len(found.brokers) < NODES:
            return f"{len(found.brokers)} of {NODES} nodes"
        return ", ".join(
            f"{topic.topic}[{partition.id}]"
            for topic in found.topics.values()
            for partition in topic.partitions.values()
            if len(partition.isrs) < len(partition.replicas) or partition.leader < 0
        )

    def metadata(self) -> Any:
        from confluent_kafka.admin import AdminClient

        client = AdminClient({"bootstrap.servers": self.plain_address})
        return client.list_topics(timeout=ASK_SECONDS)

    def leader(self, topic: str, partition: int = 0) -> int:
        """Number of the node that leads a partition."""
        return int(self.metadata().topics[topic].partitions[partition].leader)

    @property
    def plain_address(self) -> str:
        return ",".join(f"127.0.0.1:{each.plain}" for each in self.ports.values())

    @property
    def secure_address(self) -> str:
        return ",".join(f"127.0.0.1:{each.secure}" for each in self.ports.values())

    def section(self, **changes: Any) -> dict[str, Any]:
        """The section `kafka` of the settings, for the TLS+SASL listener.

        :param changes: properties of the clients (with _ for a dot) in place of the right ones.
        """
        how = self.client | {key.replace("_", "."): value for key, value in changes.items()}
        return {
            "bootstrap_servers": self.secure_address,
            "replication_factor": NODES,
            "producer_config": how,
            "consumer_config": how,
        }

    @property
    def client(self) -> dict[str, str]:
        """How librdkafka's clients connect to the TLS+SASL listener."""
        return {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.certificates.authority),
            "sasl.mechanism": MECHANISM,
            "sasl.username": USER,
            "sasl.password": KAFKA_PASSWORD,
        }

    def kill(self, nodes: Iterable[int] | None = None) -> None:
        """`kill -9`, of all unless some are named."""
        for node in nodes or self.nodes:
            self.nodes[node].kill()


def traces_of(*passwords: str) -> list[str]:
    """The parts of passwords that stay as they are where they are quoted, escaped or encoded."""
    parts = [password.partition("é")[0] for password in passwords]
    return parts + [quote(part, safe="") for part in parts]


# -- MongoDB --------------------------------------------------------------------------------


def facility_mongo_uri() -> str | None:
    """A real MongoDB is in no package registry: it is named from outside, or there is none."""
    return os.environ.get("BLUESKY_PLUGINS_TEST_MONGO") or None


NO_MONGO = (
    "no real MongoDB: none is in a package registry; "
    "BLUESKY_PLUGINS_TEST_MONGO=mongodb://... names one"
)
