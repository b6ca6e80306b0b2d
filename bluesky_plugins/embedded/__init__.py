"""The servers a laptop lacks, and the supervisor that keeps parts running.

Nothing here knows what the parts do: whoever starts a stack says which programs it has.
Names are imported when they are asked for, so that a part starts quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bluesky_plugins.embedded.folder import StateFolder
    from bluesky_plugins.embedded.jars import JarError, classpath, lacking_jars, locked_jars
    from bluesky_plugins.embedded.kafka import DataFolderError, lacks_cache, prepare_kafka
    from bluesky_plugins.embedded.logs import tail
    from bluesky_plugins.embedded.mongo import mongo_command
    from bluesky_plugins.embedded.parts import (
        HttpProbe,
        KafkaProbe,
        LineProbe,
        MongoProbe,
        Part,
        PartRecord,
        PartState,
        Probe,
        RedisProbe,
        StackError,
        StackSpec,
        TcpProbe,
    )
    from bluesky_plugins.embedded.ports import PortReservations, PortWish, choose_ports
    from bluesky_plugins.embedded.readiness import answers
    from bluesky_plugins.embedded.stack import Stack
    from bluesky_plugins.embedded.tether import tethered
    from bluesky_plugins.embedded.valkey import prepare_valkey

_MODULES = {
    "folder": ("StateFolder",),
    "jars": ("JarError", "classpath", "lacking_jars", "locked_jars"),
    "kafka": ("DataFolderError", "lacks_cache", "prepare_kafka"),
    "logs": ("tail",),
    "mongo": ("mongo_command",),
    "parts": (
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
    ),
    "ports": ("PortReservations", "PortWish", "choose_ports"),
    "readiness": ("answers",),
    "stack": ("Stack",),
    "tether": ("tethered",),
    "valkey": ("prepare_valkey",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "DataFolderError",
    "HttpProbe",
    "JarError",
    "KafkaProbe",
    "LineProbe",
    "MongoProbe",
    "Part",
    "PartRecord",
    "PartState",
    "PortReservations",
    "PortWish",
    "Probe",
    "RedisProbe",
    "Stack",
    "StackError",
    "StackSpec",
    "StateFolder",
    "TcpProbe",
    "answers",
    "choose_ports",
    "classpath",
    "lacking_jars",
    "lacks_cache",
    "locked_jars",
    "mongo_command",
    "prepare_kafka",
    "prepare_valkey",
    "tail",
    "tethered",
]


def __getattr__(name: str) -> Any:
    """A public name, from its module."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
