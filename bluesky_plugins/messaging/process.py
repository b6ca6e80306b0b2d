"""The one producer of this process."""

from __future__ import annotations

import atexit
import os
import threading

from bluesky_plugins.messaging.producer import Producer
from bluesky_plugins.settings import Settings

__all__ = ["process_producer"]

_producers: dict[str, Producer] = {}
_lock = threading.Lock()


def process_producer(settings: Settings) -> Producer:
    """The producer that everything in this process shares; closed when the process ends.

    There is one for each Kafka and spool that `settings` names. In a forked child it begins
    anew: what the parent has not sent stays the parent's.
    """
    which = f"{settings.kafka.model_dump_json()} {settings.spool_dir}"
    with _lock:
        producer = _producers.get(which)
        if producer is None or producer.closed:
            producer = _producers[which] = Producer(settings)
        return producer


def _close_all() -> None:
    for producer in _producers.values():
        producer.close()


def _new_lock() -> None:
    """In a forked child: another thread of the parent may have held it."""
    global _lock
    _lock = threading.Lock()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_new_lock)
