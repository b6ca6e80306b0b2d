"""The recommender service as a process."""

from __future__ import annotations

import signal
import sys

import structlog

from bluesky_plugins.adaptive.service import RecommenderService
from bluesky_plugins.messaging import Fenced
from bluesky_plugins.processing import Processor
from bluesky_plugins.settings import Settings, load_settings

__all__ = ["serve_recommender"]

log = structlog.get_logger(__name__)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def serve_recommender(
    settings: Settings | None = None, *, processor: Processor | None = None
) -> int:
    """Run the service until SIGTERM or SIGINT.

    :param processor: processes runs in the same process.
    :return: the exit status: 0, or 1 if another service took this one's place in the group.
    """
    # The loop that answers must not wait 5 ms for the thread that stores.
    sys.setswitchinterval(0.0005)
    service = RecommenderService(settings or load_settings(), ready=_say, processor=processor)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    try:
        service.run()
    except Fenced as error:
        log.error("another service runs as this instance", reason=str(error))
        return 1
    return 0
