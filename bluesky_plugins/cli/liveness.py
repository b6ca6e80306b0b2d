"""Is a service alive? Asked of the service itself, whatever the servers it works with do."""

from __future__ import annotations

import http.client
import json
import os
from dataclasses import dataclass
from typing import Any

from bluesky_plugins.settings import ConfigurationError, Settings

__all__ = [
    "Liveness",
    "ask_http",
    "httpserver_alive",
    "iocs_alive",
    "queueserver_alive",
    "read_pv",
    "recommender_alive",
    "recorder_alive",
]

ANYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - recognised, not bound
# bluesky-httpserver's answer when the queue's manager gives none.
NO_MANAGER = 408


@dataclass(frozen=True)
class Liveness:
    """Whether a service is alive, and why that is thought."""

    alive: bool
    detail: str


def recorder_alive(settings: Settings, limit: float) -> Liveness:
    """By the age of its last sign of life.

    :param limit: the oldest that is taken, s.
    """
    from bluesky_plugins.recording.beat import beat_age, beat_file

    path = beat_file(settings)
    try:
        age = beat_age(path)
    except OSError as error:
        return Liveness(False, f"{path}: {error.strerror}")
    if age is None:
        return Liveness(False, f"no sign of life yet: there is no {path}")
    return Liveness(age <= limit, f"the last sign of life is {age:.1f} s old (limit {limit:g} s)")


def recommender_alive(settings: Settings, timeout: float) -> Liveness:
    """By what its HTTP server says of its loop."""
    status, body = ask_http(settings, settings.http.recommender_port, "/healthz", timeout)
    if status is None:
        return Liveness(False, body)
    try:
        alive = json.loads(body)["alive"]
    except (ValueError, KeyError, TypeError):
        return Liveness(False, f"/healthz answers with status {status} and no word of its loop")
    return Liveness(bool(alive), f"its loop {'turns' if alive else 'hangs'}")


def queueserver_alive(settings: Settings, timeout: float) -> Liveness:
    """By the manager's status over 0MQ."""
    from bluesky_plugins.profile.queue_control import NoAnswerError, QueueControl
    from bluesky_plugins.profile.queue_files import control_address

    try:
        with QueueControl(control_address(settings), timeout=timeout) as control:
            state = control.ask("status").get("manager_state")
    except NoAnswerError as error:
        return Liveness(False, str(error))
    return Liveness(state is not None, f"the manager says {state}")


def httpserver_alive(settings: Settings, timeout: float) -> Liveness:
    """By its status, which it gives to who has the key."""
    status, body = ask_http(settings, settings.http.queueserver_port, "/api/status", timeout)
    if status is None:
        return Liveness(False, body)
    if status == NO_MANAGER:
        return Liveness(True, "it answers, but the queue's manager does not")
    return Liveness(status == 200, f"it answers with status {status}")


def iocs_alive(settings: Settings, port: int, timeout: float) -> Liveness:
    """By reading a PV of the IOCs at a port of this machine.

    :param timeout: for each of the two kinds of IOCs, s.
    """
    prefix, problem = settings.iocs.prefix, ""
    for pv in (f"{prefix}motor.RBV", f"{prefix}camera:NumImages"):
        try:
            return Liveness(True, f"{pv} is {read_pv(settings, pv, f'127.0.0.1:{port}', timeout)}")
        except OSError as error:
            problem = str(error)
    return Liveness(False, f"port {port}: {problem}")


def read_pv(settings: Settings, pv: str, addresses: str, timeout: float) -> Any:
    """The value of a PV.

    :param addresses: where it is looked for, as in EPICS_CA_ADDR_LIST.
    :raises OSError: if nobody has it, or it cannot be read.
    """
    os.environ.update({**settings.epics_environment, "EPICS_CA_ADDR_LIST": addresses})
    from caproto import CaprotoError
    from caproto.sync.client import read

    try:
        # Its own way leaves a repeater behind, which nobody ends.
        return read(pv, timeout=timeout, repeater=False).data[0]
    except (CaprotoError, TimeoutError) as error:
        raise OSError(f"{pv} is not there: {error}") from None


def ask_http(settings: Settings, port: int, path: str, timeout: float) -> tuple[int | None, str]:
    """Status and body of a GET with the key; or None and why there is no answer."""
    host = settings.http.host
    host = "127.0.0.1" if host in ANYWHERE else host
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        key = settings.http.key()
        headers = {"Authorization": f"ApiKey {key}"} if key else {}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(2**16).decode(errors="replace")
    except (OSError, http.client.HTTPException, ConfigurationError) as error:
        return None, f"no answer from {host}:{port}: {error or type(error).__name__}"
    finally:
        connection.close()
