"""Requests to the queue's manager over its control socket."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from bluesky_queueserver import CommTimeoutError, ZMQCommSendThreads

__all__ = ["NoAnswerError", "QueueControl"]


class NoAnswerError(RuntimeError):
    """The manager did not answer in time."""


class QueueControl:
    """A connection to the manager; not for several threads.

    :param address: `tcp://host:port` of its control socket.
    :param timeout: for each answer, s.
    """

    def __init__(self, address: str, timeout: float = 2.0) -> None:
        self._link = ZMQCommSendThreads(
            zmq_server_address=address,
            timeout_recv=int(timeout * 1000),
            timeout_send=int(timeout * 1000),
        )

    def ask(self, method: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The manager's answer.

        :raises NoAnswerError: if there is none in time.
        """
        try:
            answer: dict[str, Any] = self._link.send_message(
                method=method, params=dict(parameters or {})
            )
        except CommTimeoutError as error:
            raise NoAnswerError(f"the queue's manager does not answer: {error}") from None
        return answer

    def close(self) -> None:
        """End the connection."""
        self._link.close()

    def __enter__(self) -> QueueControl:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
