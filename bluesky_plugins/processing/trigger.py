"""The door of a person at a prompt: `Trigger(TriggerMethod.X).run([program, argument])`.

The request goes over Kafka, and the recommender's process carries it out: the job outlives the
prompt.
"""

from __future__ import annotations

import atexit
import getpass
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

from bluesky_plugins.messaging import Producer
from bluesky_plugins.processing.jobs.job import JobRecord, Subject, key_of
from bluesky_plugins.processing.model import JobState, Resources, ResultSpec
from bluesky_plugins.processing.recipes.arguments import trigger_argv
from bluesky_plugins.processing.service.postman import Mail
from bluesky_plugins.processing.service.requests import CancelJob, Request, SubmitJob, TriggerMethod
from bluesky_plugins.processing.service.store import JobStore, MongoJobStore
from bluesky_plugins.settings import Settings, load_settings

__all__ = ["Job", "JobTimeoutError", "Trigger", "asker", "send_request"]

SEND_S = 10.0
LOOK_S = 0.1


class JobTimeoutError(TimeoutError):
    """A job has not ended in the time that was given; it goes on."""


def asker() -> str:
    """Who asks, as far as this process knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def send_request(settings: Settings, request: Request, mail: Mail | None = None) -> None:
    """Have a request carried out by whoever has the jobs.

    :raises bluesky_plugins.messaging.NotDelivered: if Kafka does not take it in time.
    """
    key = getattr(request, "key", request.uid)
    doc = request.model_dump(mode="json")
    message = (settings.topic("jobs"), key, "request", doc)
    if mail is not None:
        mail.deliver([message], SEND_S)
        return
    producer = Producer(settings, client_id="bluesky-plugins-jobs", spool=False)
    try:
        producer.deliver([message], SEND_S)
    finally:
        producer.close(0.5)


_stores: dict[tuple[str, str], JobStore] = {}


def process_store(settings: Settings) -> JobStore:
    """The one store of this process for these settings; closed at its end."""
    which = (settings.mongo.address, settings.beamline)
    if which not in _stores:
        _stores[which] = store = MongoJobStore.from_settings(settings)
        atexit.register(store.close)
    return _stores[which]


class Job:
    """A handle of a job. The job does not depend on it."""

    def __init__(self, key: str, settings: Settings, store: JobStore) -> None:
        self.key = key
        self._settings = settings
        self._store = store

    def __repr__(self) -> str:
        return f"Job({self.key[:16]})"

    @property
    def record(self) -> JobRecord | None:
        """All that is known of it; None while nobody has taken it.

        :raises StoreDownError: if the database does not answer.
        """
        return self._store.job(self.key)

    @property
    def state(self) -> JobState | None:
        """Where it is now; None while nobody has taken it.

        :raises StoreDownError: if the database does not answer.
        """
        record = self.record
        return None if record is None else record.state

    @property
    def numbers(self) -> dict[str, float]:
        """What it found, if it succeeded."""
        record = self.record
        return {} if record is None else record.numbers

    def wait(self, timeout: float | None = None) -> JobState:
        """Wait until it has ended; its state.

        :param timeout: s; None: as long as it takes.
        :raises JobTimeoutError: if it has not ended by then, with where it is and why.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = threading.Event()
        while True:
            record = self.record
            if record is not None and record.state.final:
                return record.state
            if deadline is not None and time.monotonic() >= deadline:
                where = "nobody has taken it: is the recommender up?"
                if record is not None:
                    where = f"it is {record.state.value}: {record.reason}"
                raise JobTimeoutError(
                    f"job {self.key[:16]} has not ended in {timeout:g} s; {where}"
                )
            pause.wait(LOOK_S)

    def logs(self) -> tuple[str, str]:
        """The ends of its stdout and stderr; empty until it has ended."""
        record = self.record
        result = None if record is None else record.attempt.record or record.attempt.late_record
        return ("", "") if result is None else (result.stdout, result.stderr)

    def cancel(self, reason: str = "") -> None:
        """Ask for its end; `wait` says when that has come.

        :raises bluesky_plugins.messaging.NotDelivered: if Kafka does not take it in time.
        """
        asked = CancelJob(
            uid=str(uuid.uuid4()), time=time.time(), by=asker(), reason=reason, key=self.key
        )
        send_request(self._settings, asked)


class Trigger:
    """Carries programs out on a target.

    :param trigger_method: where.
    :param settings: loaded unless given.
    :raises NotImplementedError: for the REST API of Slurm.
    """

    def __init__(
        self,
        trigger_method: TriggerMethod = TriggerMethod.REMOTE_SBATCH_SCRIPT,
        *,
        settings: Settings | None = None,
    ) -> None:
        if trigger_method is TriggerMethod.SLURM_REST_API:
            raise NotImplementedError(
                "the REST API of Slurm is not supported; REMOTE_SBATCH_SCRIPT submits by sbatch"
            )
        self.method = TriggerMethod(trigger_method)
        self._settings = settings

    def run(
        self,
        arg_list: Sequence[Any],
        *,
        job_name: str = "trigger",
        resources: Resources | None = None,
        result: ResultSpec | None = None,
        reason: str = "",
    ) -> Job:
        """A new job, each time.

        :param arg_list: `['cmd']`, `['cmd a b']`, `['cmd', ['a', 'b']]` or `['cmd', 'a', 'b']`.
        :param result: the numbers that it leaves, if any.
        :raises ArgumentError: if it is no such list, or a word cannot be given to a program.
        :raises bluesky_plugins.messaging.NotDelivered: if Kafka does not take it in time.
        """
        settings = self._settings = self._settings or load_settings()
        uid = str(uuid.uuid4())
        request = SubmitJob(
            uid=uid,
            time=time.time(),
            by=asker(),
            reason=reason,
            name=job_name,
            argv=trigger_argv(arg_list),
            method=self.method,
            resources=resources or Resources(),
            result=result,
        )
        send_request(settings, request)
        key = key_of(Subject(), job_name, "", {}, uid)
        return Job(key, settings, process_store(settings))
