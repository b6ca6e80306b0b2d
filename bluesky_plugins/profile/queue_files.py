"""The files that the queueserver reads at its start, in `<state-dir>/queue`."""

from __future__ import annotations

import os
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import yaml

from bluesky_plugins.settings import Settings, state_dir

__all__ = [
    "LOOPBACK",
    "control_address",
    "info_address",
    "manager_arguments",
    "shown_redis_address",
    "write_queue_files",
]

LOOPBACK = "127.0.0.1"
LISTS = "existing_plans_and_devices.yaml"
STARTUP_MODULE = "bluesky_plugins.profile.queue_startup"
EVERYTHING = {
    "allowed_plans": [":.*"],
    "forbidden_plans": [":^_"],
    "allowed_devices": [":?.*:depth=5"],
    "forbidden_devices": [":^_:?.*"],
    "allowed_functions": [None],
    "forbidden_functions": [":.*"],
}


def control_address(settings: Settings) -> str:
    """Where the manager takes requests; on loopback, whoever reaches it needs no key."""
    return f"tcp://{LOOPBACK}:{settings.http.queueserver_control_port}"


def info_address(settings: Settings) -> str:
    """Where the manager publishes its console and status."""
    return f"tcp://{LOOPBACK}:{settings.http.queueserver_info_port}"


def shown_redis_address(settings: Settings) -> str:
    """The address of Redis as queueserver writes it into its log: without a password.

    The manager connects with the settings' own URL.
    """
    rest = settings.redis.address.partition("://")[2].partition("?")[0]
    return rest.rpartition("@")[2]


def manager_arguments(folder: Path) -> list[str]:
    """Arguments of `start-re-manager`; secrets are not among them."""
    return ["--config", str(folder / "config.yaml"), "--startup-module", STARTUP_MODULE]


def write_queue_files(settings: Settings) -> Path:
    """Write configuration and permissions; the lists of plans and devices, if there are none.

    :returns: the folder, readable by its owner only.
    """
    folder = state_dir() / "queue"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    _write(folder / "config.yaml", _configuration(settings, folder))
    groups = {"root": EVERYTHING, "primary": EVERYTHING}
    _write(folder / "user_group_permissions.yaml", {"user_groups": groups})
    if not (folder / LISTS).exists():
        # So that plans can be queued before the first environment; opening one renews them.
        with as_file(files("bluesky_plugins.profile") / LISTS) as shipped:
            shutil.copyfile(shipped, folder / LISTS)
    return folder


def _configuration(settings: Settings, folder: Path) -> dict[str, Any]:
    return {
        "network": {
            "zmq_control_addr": control_address(settings),
            "zmq_info_addr": info_address(settings),
            "zmq_publish_console": True,
            "redis_addr": shown_redis_address(settings),
            "redis_name_prefix": f"{settings.beamline}:queue",
        },
        "startup": {
            "existing_plans_and_devices_path": str(folder / LISTS),
            "user_group_permissions_path": str(folder / "user_group_permissions.yaml"),
        },
        "operation": {"update_existing_plans_and_devices": "ENVIRONMENT_OPEN"},
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(content, file)
    part.replace(path)
