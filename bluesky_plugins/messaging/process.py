"""The one producer of this process."""

from __future__ import annotations

import atexit
import ctypes
import os
import threading

from bluesky_plugins.messaging.producer import Producer
from bluesky_plugins.settings import Settings

__all__ = ["process_producer"]

_producers: dict[str, Producer] = {}
_lock = threading.Lock()


def process_producer(settings: Settings) -> Producer:
    """The producer that everything in this process shares; closed when the process ends.

    There is one for each Kafka and spool that `settings` names. A forked child gets its own.
    """
    which = f"{settings.kafka.model_dump_json()} {settings.spool_dir}"
    with _lock:
        if which not in _producers:
            _producers[which] = Producer(settings)
        return _producers[which]


def _close_all() -> None:
    for producer in _producers.values():
        producer.close()
    _producers.clear()


def _forget_in_child() -> None:
    """The threads of librdkafka are not in the child: its producers are the parent's."""
    global _lock
    _lock = threading.Lock()
    for producer in _producers.values():
        producer.forsake()
        # Destroying one would wait for threads that do not exist here.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(producer))
    _producers.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_in_child)
