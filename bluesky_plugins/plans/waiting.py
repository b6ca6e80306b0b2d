"""Waiting for an answer without stopping the RunEngine.

A background thread reads; the plan loops over a checkpoint and a short `wait_for`, so that
pauses, suspenders, aborts and a single Ctrl-C are served. An answer wakes it at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Literal, TypeVar

import bluesky.plan_stubs as bps
from bluesky.utils import Msg

from bluesky_plugins.adaptive import SuggestionReader
from bluesky_plugins.plans.mailbox import Mailbox

__all__ = ["SLICE", "AdaptiveTimeout", "News", "Patience", "Plan", "Post", "wait_until"]

logger = logging.getLogger(__name__)
T = TypeVar("T")
Plan = Generator[Msg, Any, T]

SLICE = 0.5  # s; a single Ctrl-C is served after this at the latest
READ = 0.2  # s; a reader that shall close does so after this at the latest


class AdaptiveTimeout(TimeoutError):  # noqa: N818 - as in asyncio, the short name is the field's
    """Nothing came in time; the text says what was awaited, how long, and what was heard."""


class News:
    """What a background thread finds out, for a plan that waits for it.

    :param about: what has failed when the thread ends by an exception, as the subject of "cannot".
    """

    def __init__(self, about: str) -> None:
        self.news = 0  # rises with all that changes
        self.lock = threading.Condition()
        self._about = about
        self._failure: Exception | None = None
        self._closed = False
        self._wake: set[Callable[[], None]] = set()

    def check(self) -> None:
        """Raise what ended the thread, if anything did.

        :raises RuntimeError: from the thread's own error.
        """
        if self._failure is not None:
            raise RuntimeError(f"{self._about}: {self._failure}") from self._failure

    def next_news(self, seen: int, seconds: float) -> Callable[[], Awaitable[None]]:
        """For `wait_for`: done when there is news after `seen`, or after `seconds`."""

        async def wait() -> None:
            loop = asyncio.get_running_loop()
            came = asyncio.Event()

            def wake() -> None:
                loop.call_soon_threadsafe(came.set)

            with self.lock:
                if self.news != seen:
                    return
                self._wake.add(wake)
            try:
                await asyncio.wait_for(came.wait(), seconds)
            except TimeoutError:
                pass
            finally:
                with self.lock:
                    self._wake.discard(wake)

        return wait

    def _tell(self) -> None:
        with self.lock:
            self.news += 1
            wake = list(self._wake)
        for call in wake:
            try:
                call()
            except RuntimeError:  # the RunEngine's loop is closed: nobody waits any more
                logger.debug("nobody waits for news any more")


class Post(News):
    """A batch's reader in its thread, and the mailbox that it fills.

    :param reader: opened for this batch; used and closed by the thread only.
    :param batch_id: of the batch.
    :param history: also read what was published before.
    """

    def __init__(self, reader: SuggestionReader, batch_id: str, *, history: bool = False) -> None:
        super().__init__("suggestions cannot be read")
        self.mailbox = Mailbox(batch_id)
        self.history: list[tuple[str, Any]] = []
        self.positioned = False
        self._reader = reader
        self._with_history = history
        self._work: Literal["none", "discard", "read"] = "none"
        self._thread = threading.Thread(
            target=self._run, name=f"suggestions-{batch_id[:8]}", daemon=True
        )
        self._thread.start()

    # -- the plan's side

    def ask(self, count: int, revision: int = 0) -> None:
        """From now on the answer to `count` is wanted, at `revision` or higher."""
        with self.lock:
            self.mailbox.ask(count, revision)
            self._work = "read"
            self.lock.notify_all()

    def discard(self) -> None:
        """Throw away answers without identity that are there now (lockstep readers only)."""
        with self.lock:
            if self._reader.lockstep:
                self._work = "discard"
                self.lock.notify_all()

    @property
    def discarding(self) -> bool:
        """True until `discard` is done."""
        return self._work == "discard"

    @property
    def dropped(self) -> str:
        """What came and was of no use, as the end of a sentence; empty if nothing was."""
        counts = sorted(self.mailbox.dropped.items())
        dropped = ", ".join(f"{n} {kind}" for kind, n in counts if n)
        return f"; dropped: {dropped}" if dropped else ""

    def report(self) -> None:
        """Say what was dropped, if anything was."""
        if dropped := self.dropped:
            reasons = "; ".join(self.mailbox.reasons)
            about = reasons and f" ({reasons})"
            logger.warning("suggestions for batch %s%s%s", self.mailbox.batch_id, dropped, about)

    def close(self) -> None:
        """End the thread. A lockstep reader is waited for: it could take the next plan's answer."""
        with self.lock:
            self._closed = True
            self.lock.notify_all()
        self._tell()  # what an interrupted `wait_for` left behind ends now
        if self._reader.lockstep:
            self._thread.join(timeout=5 * READ)

    # -- the thread's side

    def _run(self) -> None:
        try:
            if self._take_position():
                while self._turn():
                    pass
        except Exception as error:
            logger.debug("the reader of suggestions ended", exc_info=error)
            self._failure = error
        finally:
            self._tell()
            self._reader.close()

    def _take_position(self) -> bool:
        while not self._reader.start(READ):
            if self._closed:
                return False
        history: list[tuple[str, Any]] | None = None if self._with_history else []
        while history is None:
            if self._closed:
                return False
            history = self._reader.history(READ)
        self.history = history
        self.positioned = True
        self._tell()
        return True

    def _turn(self) -> bool:
        """One step; False when closed."""
        with self.lock:
            self.lock.wait_for(lambda: self._closed or self._work != "none")
            work = self._work
            if self._closed:
                return False
        if work == "discard":
            self._discard()
        else:
            self._take(self._reader.read(READ))
        return True

    def _discard(self) -> None:
        old = self._reader.read(0)
        with self.lock:
            self.mailbox.dropped["stale"] += len(old)
            if self._work == "discard":
                self._work = "none"
        self._tell()

    def _take(self, read: list[tuple[str, Any]]) -> None:
        if not read:
            return
        with self.lock:
            for kind, raw in read:
                self.mailbox.put(kind, raw)
            if self._reader.lockstep:
                self._work = "none"  # what comes later is read when the next one is asked for
        self._tell()


class Patience:
    """Counts down while the plan waits; paused and suspended time does not count.

    :param seconds: to wait in all.
    """

    def __init__(self, seconds: float) -> None:
        self.waited = 0.0
        self.deadline = seconds  # on the scale of `waited`

    @property
    def left(self) -> float:
        """Seconds left; 0 or less when over."""
        return self.deadline - self.waited

    def spent(self, elapsed: float, asked: float) -> None:
        """A wait of `asked` s took `elapsed`: what is longer was a pause."""
        self.waited += min(elapsed, asked)

    def renew(self, seconds: float) -> None:
        """At least `seconds` from now on; never fewer than before."""
        self.deadline = max(self.deadline, self.waited + seconds)


def wait_until(
    post: News,
    found: Callable[[], T | None],
    patience: Patience,
    *,
    renewal: Callable[[], float] = lambda: 0.0,
) -> Plan[T | None]:
    """Plan stub: wait until `found()` is not None; None when patience is over.

    :param post: tells of news.
    :param found: looks at what came; called with the post's lock held.
    :param renewal: how many seconds from now on the deadline is at least.
    :raises RuntimeError: if the thread has ended with an error.
    """
    while True:
        yield from bps.checkpoint()
        with post.lock:
            seen, result = post.news, found()
        if result is not None:
            return result
        post.check()
        patience.renew(renewal())
        seconds = min(SLICE, patience.left)
        if seconds <= 0:
            return None
        before = time.monotonic()
        yield from bps.wait_for([post.next_news(seen, seconds)])
        patience.spent(time.monotonic() - before, seconds)
