"""The documents of a RunEngine, into Kafka."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from bluesky_plugins.messaging.keys import Keys
from bluesky_plugins.messaging.process import process_producer
from bluesky_plugins.messaging.producer import Producer
from bluesky_plugins.settings import Settings, load_settings

__all__ = ["KafkaPublisher"]

logger = logging.getLogger(__name__)

ADAPTIVE = "adaptive"
# After these a plan waits for an answer: to its run, or to each event.
AWAITED = frozenset(("stop",))
AWAITED_EACH_EVENT = frozenset(("stop", "event", "event_page"))
# How long what was gathered before may take to Kafka, s; once nobody answers it is not waited for.
BEFORE_SECONDS = 0.25


class KafkaPublisher:
    """A callback for `RE.subscribe` that sends every document to a topic.

    The documents of a run have its uid as their key, so that they stay in order. On the
    topic `adaptive` the key is the batch_id of the run's start document; runs without one
    are not sent there. It neither blocks nor raises into the RunEngine: in an outage the
    documents are kept and sent later, and what cannot be sent at all is a dead letter.
    Where a plan waits for an answer, what this process sent before is in Kafka first.

    :param topic: `documents`, `adaptive`, ... of the beamline; a name with a dot is taken
        as the full one.
    :param settings: None: from the file, the environment and the running stack.
    :param producer: None: the one of this process.
    """

    def __init__(
        self,
        topic: str = "documents",
        *,
        settings: Settings | None = None,
        producer: Producer | None = None,
    ) -> None:
        settings = settings or load_settings()
        self.topic = topic if "." in topic else settings.topic(topic)
        self._by_batch = self.topic.rpartition(".")[2] == ADAPTIVE
        self._producer = producer or process_producer(settings)
        self._keys = Keys()

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Send a document.

        :param name: name of the document (a str, or a member of an enumeration of them).
        """
        name = str(getattr(name, "value", name))
        run = self._keys.run_of(name, doc)
        if self._by_batch:
            if run is not None and run.batch_id is not None:
                soon = name in (AWAITED_EACH_EVENT if run.each_event else AWAITED)
                if soon:
                    # Its answer may be followed by a kill: then the recorder, too, must get
                    # all of what was answered. Plain plans do not pay for this.
                    self._producer.flush(BEFORE_SECONDS)
                self._producer.send(self.topic, run.batch_id, name, doc, soon=soon)
            return
        self._producer.send(self.topic, run.uid if run else "", name, doc)

    def batch_event(self, doc: Mapping[str, Any]) -> None:
        """Send what a plan says of its batch, keyed by the document's `batch_id`."""
        self._producer.send(self.topic, str(doc["batch_id"]), "batch_event", doc, soon=True)

    def command(self, doc: Mapping[str, Any]) -> None:
        """Send what a person asks of a batch, keyed by the document's `batch_id`."""
        self._producer.send(self.topic, str(doc["batch_id"]), "command", doc, soon=True)

    def flush(self, timeout: float) -> int:
        """Wait until everything is acknowledged, at most `timeout` seconds.

        :returns: number of messages that are not; at once when Kafka is known to be down.
        """
        return self._producer.flush(timeout)
