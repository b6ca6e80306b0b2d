"""The documents of a RunEngine over 0MQ, for who listens at bluesky's own proxy."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from multiprocessing.util import Finalize
from typing import Any

import structlog
from bluesky.callbacks.zmq import Publisher
from zmq.constants import SocketOption

__all__ = ["ProxyPublisher"]

log = structlog.get_logger(__name__)

# At the end of the process, for what is still on its way.
LINGER_MILLISECONDS = 100


class ProxyPublisher(Publisher):  # type: ignore[misc]
    """bluesky's publisher, which a run bears whatever becomes of the proxy.

    A proxy that is away or stuck costs the documents beyond 0MQ's high-water mark, and no time:
    what must arrive travels over Kafka.

    :param address: host:port of the proxy's in-port.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._socket.setsockopt(SocketOption.LINGER, LINGER_MILLISECONDS)
        # Monitored signals send from threads of their own, and a 0MQ socket is for one at a time.
        self._one = threading.Lock()
        self._closed = False
        self._told = False
        # Not atexit, which the queue's worker does not run.
        Finalize(None, self.close, exitpriority=10)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Send a document; returns at once and never raises into the RunEngine."""
        name = str(getattr(name, "value", name))
        with self._one:
            if self._closed:
                return
            try:
                super().__call__(name, doc)
            except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
                if not self._told:
                    log.warning("documents do not reach 0MQ", document=name, reason=repr(error))
                self._told = True

    def close(self) -> None:
        """Send what is on its way, and end."""
        with self._one:
            if not self._closed:
                self._closed = True
                super().close()
