"""Sends what goes out about jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from bluesky_plugins.messaging import NotDelivered, Undeliverable
from bluesky_plugins.processing.jobs.job import JobRecord
from bluesky_plugins.processing.service.results import (
    Outgoing,
    changes_of,
    result_documents,
    result_of,
)

__all__ = ["Mail", "Postman"]

log = structlog.get_logger(__name__)
DELIVER_S = 5.0


class Mail(Protocol):
    """What sends messages: a `messaging.Producer`."""

    def deliver(
        self, messages: Iterable[tuple[str, str, str, Mapping[str, Any]]], timeout: float
    ) -> None:
        """Send, and wait until all are acknowledged."""
        ...


class Postman:
    """Sends the changes of jobs, their results, and what their batches wait for.

    :param topic: short name of a topic -> its full name.
    """

    def __init__(self, mail: Mail, topic: Callable[[str], str]) -> None:
        self._mail = mail
        self._topic = topic

    @staticmethod
    def letter(job: JobRecord, *, publish: bool) -> list[Outgoing]:
        """All that is to go out about a job now.

        :param publish: its result too.
        """
        ended = any(line.state.final for line in job.history[job.announced :])
        results = result_documents(job) if publish else []
        # Of a job with a result the batch hears when that goes out.
        told = publish or (ended and not job.numbers)
        return [*results, *(result_of(job) if told else []), *changes_of(job)]

    def deliver(self, letters: Sequence[Sequence[Outgoing]]) -> str | None:
        """Send all of it; None when it is acknowledged, else why it is not."""
        try:
            self._send([one for letter in letters for one in letter])
        except NotDelivered as error:
            return str(error)
        except Undeliverable:
            return self._one_by_one(letters)
        return None

    def _one_by_one(self, letters: Sequence[Sequence[Outgoing]]) -> str | None:
        for message in (one for letter in letters for one in letter):
            try:
                self._send([message])
            except NotDelivered as error:
                return str(error)
            except Undeliverable as error:
                log.error("cannot be sent", uid=message[3].get("uid"), reason=str(error))
        return None

    def _send(self, messages: Iterable[Outgoing]) -> None:
        full = [(self._topic(short), key, name, doc) for short, key, name, doc in messages]
        self._mail.deliver(full, DELIVER_S)
