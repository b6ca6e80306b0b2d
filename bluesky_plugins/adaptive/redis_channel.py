"""Answers from a Redis list, for old profiles."""

from __future__ import annotations

import json
import logging
import math
import queue
import threading
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bluesky_plugins.adaptive.channel import ANSWER, LARGEST_BACKLOG, AnswerReader
from bluesky_plugins.settings import load_settings

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["RedisSuggestions"]

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0


class RedisSuggestions:
    """The Redis list of old profiles: JSON objects of positions, or null for "no more".

    As a queue it is compatible with the old consumer: put is LPUSH, get is BLPOP. The newest
    answer comes first, so what lies in the list when a run begins is thrown away.

    :param url: redis://[:password@]host:port/db; None means the settings'.
    :param key: name of the list.
    """

    def __init__(self, url: str | None = None, key: str = "adaptive") -> None:
        self._url = url
        self.key = key
        self._made: Redis | None = None

    @property
    def client(self) -> Redis:
        """The connection, made when it is first used."""
        if self._made is None:
            import redis  # not part of the bare install

            self._made = redis.Redis.from_url(
                self._url or load_settings().redis.address,
                socket_connect_timeout=CONNECT_SECONDS,
                socket_timeout=CONNECT_SECONDS,
            )
        return self._made

    def put(self, answer: Any) -> None:
        """Put an answer: a dict of positions, or None.

        :raises TypeError: if it is no JSON, numpy's numbers and arrays aside.
        :raises Exception: the answer itself if it is one: the list has no word for it.
        """
        if isinstance(answer, Exception):
            raise answer
        self.client.lpush(self.key, json.dumps(answer, default=_plain))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """The newest answer.

        :param timeout: s; None waits as long as it takes.
        :raises queue.Empty: if there is none in time.
        :raises ValueError: if it is not JSON.
        """
        if not block:
            raw = self.client.lpop(self.key)
            if raw is None:
                raise queue.Empty
            return json.loads(cast(bytes, raw))
        left = math.inf if timeout is None else timeout
        while left > 0:
            pair = self.client.blpop([self.key], timeout=min(left, CONNECT_SECONDS / 2))
            if pair is not None:
                return json.loads(cast(Any, pair)[1])
            left -= CONNECT_SECONDS / 2
        raise queue.Empty

    def close(self) -> None:
        """Let go of the connection; it is made again when needed."""
        if self._made is not None:
            self._made.close()
            self._made = None

    def open(self, batch_id: str, *, from_beginning: bool = False) -> RedisReader:
        """A reader; the list does not know batches.

        :raises ValueError: with `from_beginning`: the list keeps no past.
        """
        if from_beginning:
            raise ValueError("the Redis list keeps no past suggestions: it cannot serve resume=")
        return RedisReader(self)


def _plain(value: Any) -> Any:
    """A number or array of numpy as JSON knows it."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"an answer with {value!r:.80} is no JSON")


class RedisReader(AnswerReader):
    """Reads the list; a Redis that is away is waited for."""

    def __init__(self, answers: RedisSuggestions) -> None:
        self._answers = answers
        self._idle = threading.Event()  # never set: waits for a broken connection

    def start(self, timeout: float) -> bool:
        """True when Redis answers."""
        import redis

        try:
            self._answers.client.ping()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            logger.warning("Redis does not answer: %s", error)
            self._idle.wait(timeout)
            return False
        return True

    def read(self, timeout: float) -> list[tuple[str, Any]]:
        """All answers there are, oldest first."""
        import redis

        found: list[tuple[str, Any]] = []
        try:
            while len(found) < LARGEST_BACKLOG:
                found.insert(0, (ANSWER, self._next(timeout if not found else 0)))
        except queue.Empty:
            return found
        except (redis.ConnectionError, redis.TimeoutError) as error:
            logger.warning("Redis does not answer: %s", error)
            self._idle.wait(timeout)
        return found

    def _next(self, timeout: float) -> Any:
        try:
            return self._answers.get(block=timeout > 0, timeout=timeout)
        except ValueError as error:
            # The plan refuses it and says so.
            return f"not JSON: {error}"
