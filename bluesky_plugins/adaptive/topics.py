"""The topics, made as soon as there is a broker."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from bluesky_plugins.messaging import BrokerUnreachable, make_topics
from bluesky_plugins.settings import Settings

__all__ = ["make_topics_when_up"]

log = structlog.get_logger(__name__)
RETRY_SECONDS = 0.5
REACH_SECONDS = 10.0


def make_topics_when_up(
    settings: Settings, stopping: threading.Event, at_turn: Callable[[], None]
) -> bool:
    """Make the topics, however long the broker takes to answer.

    :param at_turn: called before each try.
    :returns: False if stopped before that.
    """
    while not stopping.is_set():
        at_turn()
        try:
            make_topics(settings, REACH_SECONDS)
            return True
        except BrokerUnreachable as error:
            log.warning("Kafka does not answer; it is tried again", error=str(error))
            stopping.wait(RETRY_SECONDS)
    return False
