"""Requests to the queue's manager over its control socket."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from zmq.constants import SocketOption, SocketType
from zmq.sugar.context import Context

__all__ = ["NoAnswerError", "QueueControl"]


class NoAnswerError(RuntimeError):
    """The manager did not answer in time, or not in its language."""


class QueueControl:
    """A connection to the manager; not for several threads.

    :param address: `tcp://host:port` of its control socket.
    :param timeout: for each answer, s.
    """

    def __init__(self, address: str, timeout: float = 2.0) -> None:
        self._address = address
        self._milliseconds = int(timeout * 1000)
        self._context = Context()
        self._socket = self._open()

    def _open(self) -> Any:
        socket = self._context.socket(SocketType.REQ)
        socket.setsockopt(SocketOption.LINGER, 0)
        socket.connect(self._address)
        return socket

    def ask(self, method: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The manager's answer.

        :raises NoAnswerError: if there is none in time.
        """
        self._socket.send_json({"method": method, "params": dict(parameters or {})})
        if not self._socket.poll(self._milliseconds):
            # A REQ socket that waits for an answer takes no other request.
            self._socket.close()
            self._socket = self._open()
            raise NoAnswerError(f"no queue manager answers at {self._address}")
        try:
            answer: dict[str, Any] = self._socket.recv_json()
        except ValueError as error:
            raise NoAnswerError(f"{self._address} is no queue manager: {error}") from None
        return answer

    def close(self) -> None:
        """End the connection."""
        self._socket.close()
        self._context.term()

    def __enter__(self) -> QueueControl:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
