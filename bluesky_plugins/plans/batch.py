"""The plan's side of an adaptive batch: points are asked for, gated, measured."""

from __future__ import annotations

import json
import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
from bluesky.utils import RunEngineControlException

from bluesky_plugins.adaptive import (
    Action,
    BatchMode,
    Outcome,
    QueueSuggestions,
    RecommenderRequest,
    RequestPause,
    Suggestion,
    SuggestionChannel,
)
from bluesky_plugins.plans.batch_log import PlanLog
from bluesky_plugins.plans.devices import Motors
from bluesky_plugins.plans.gate import Range, Refusal, checked_bounds
from bluesky_plugins.plans.mailbox import Answer, last_suggestion
from bluesky_plugins.plans.waiting import AdaptiveTimeout, Patience, Plan, Post, wait_until

__all__ = ["Batch", "End", "Start"]

logger = logging.getLogger(__name__)

ON_TIMEOUT = ("fail", "stop", "pause")
LONGEST_ID = 256  # of a batch, characters
LONGEST_RENEWAL = 86400.0  # s from now on, whatever a `waiting` says


@dataclass(frozen=True)
class End:
    """Why there is no further point."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Start:
    """Where a batch begins or goes on."""

    point: dict[str, float]
    count: int


@dataclass
class Batch:
    """All that one plan knows of its batch. Nothing is done before its plans are run."""

    mode: BatchMode
    dets: Sequence[Any]
    first_point: Mapping[Any, Any]
    to_recommender: Callable[[str, dict[str, Any]], Any]
    from_recommender: Any
    md: Mapping[str, Any] | None = None
    recommender: str | Mapping[str, Any] | None = None
    bounds: Any = None
    timeout: float = 60.0
    on_timeout: str = "fail"
    resume: str | None = None
    uids: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.first_point, Mapping):
            raise TypeError(f"first_point: a mapping of motors, not {self.first_point!r}")
        self.motors = Motors(list(self.first_point))
        self.channel = suggestion_channel(self.from_recommender)
        self.batch_id = _batch_id(self.md, self.resume)
        self.request = _request(self.recommender, self.md)
        named = self.bounds
        if isinstance(named, Mapping):
            named = {getattr(key, "name", key): pair for key, pair in named.items()}
        self.ranges: dict[str, Range] = checked_bounds(named, self.motors.names)
        if not callable(self.to_recommender):
            raise TypeError(f"to_recommender: a callback, not {self.to_recommender!r}")
        if self.on_timeout not in ON_TIMEOUT:
            raise ValueError(f"on_timeout: one of {ON_TIMEOUT}, not {self.on_timeout!r}")
        if not (isinstance(self.timeout, int | float) and 0 < self.timeout < math.inf):
            raise ValueError(f"timeout: seconds above 0, not {self.timeout!r}")
        self.log = PlanLog(self.to_recommender, self.batch_id)

    @property
    def devices(self) -> list[Any]:
        """What is read at each point."""
        return [*self.dets, *(m for m in self.motors.devices if m not in self.dets)]

    def start_md(self, count: int) -> dict[str, Any]:
        """Metadata of a run of the batch."""
        md = dict(self.md or {})
        if self.request is not None:
            md["recommender"] = self.request.model_dump(mode="json", exclude_none=True)
        return {
            **md,
            "batch_id": self.batch_id,
            "batch_count": count,
            "batch_mode": self.mode.value,
        }

    def run(self, measure_all: Callable[[BatchPlan, Start], Plan[End]]) -> Plan[list[str]]:
        """The whole plan.

        :param measure_all: measures from the start on; returns why it ended.
        :return: uids of the runs, in their order.
        :raises Refusal: if `first_point` is not good, before anything is opened.
        :raises AdaptiveTimeout: no answer in time.
        """
        first = {device.name: value for device, value in self.first_point.items()}
        try:
            point = yield from self.motors.gate(first, self.ranges)
        except Refusal as refusal:
            raise Refusal(f"first_point: {refusal}") from None
        resumed = self.resume is not None
        post = Post(
            self.channel.open(self.batch_id, from_beginning=resumed),
            self.batch_id,
            history=resumed,
        )
        plan = BatchPlan(self, post)
        subscriptions = {"all": [self.to_recommender], "start": [self._note]}
        try:
            yield from bpp.subs_wrapper(plan.run(point, measure_all), subscriptions)
        finally:
            post.close()
            post.report()
        return self.uids

    def _note(self, name: str, doc: Mapping[str, Any]) -> None:
        if doc.get("batch_id") == self.batch_id:
            self.uids.append(doc["uid"])


class BatchPlan:
    """One execution of a batch: its post, and the plan stubs that use it."""

    def __init__(self, batch: Batch, post: Post) -> None:
        self.batch = batch
        self._told = ""  # what the user was told last that is waited for
        self.log = batch.log
        self.post = post
        self.mailbox = post.mailbox

    def run(
        self, first: dict[str, float], measure_all: Callable[[BatchPlan, Start], Plan[End]]
    ) -> Plan[None]:
        """Open the batch, measure, and say how it ended."""
        yield from self._positioned()
        last = last_suggestion(self.batch.batch_id, self.post.history)
        if last is not None and last.action is Action.STOP:
            logger.warning(
                "batch %s is finished, there is nothing to resume: %s",
                self.batch.batch_id,
                last.reason,
            )
            return
        if last is None and self.batch.resume is not None:
            logger.warning(
                "batch %s is not known, nothing was ever suggested for it: it begins at its "
                "first point",
                self.batch.batch_id,
            )
        self._open(first, 0 if last is None else last.batch_count + 1)
        try:
            end = yield from self._measure(first, last, measure_all)
        except BaseException as error:
            self.log.ended(*_failure(error))
            raise
        self.log.ended(end.outcome, end.reason)
        logger.info("batch %s ended, %s: %s", self.batch.batch_id, end.outcome, end.reason)

    def _positioned(self) -> Plan[None]:
        patience = Patience(self.batch.timeout)
        ready = yield from wait_until(
            self.post, lambda: True if self.post.positioned else None, patience
        )
        if ready is None:
            raise AdaptiveTimeout(
                f"the suggestions for batch {self.batch.batch_id} could not be reached within "
                f"{self.batch.timeout:g} s; nothing was measured"
            )

    def _open(self, first: dict[str, float], count: int) -> None:
        self.log.opened(
            batch_mode=self.batch.mode,
            batch_count=count,
            resume=self.batch.resume is not None,
            motors=self.batch.motors.names,
            limits=self.batch.motors.limits(),
            bounds=self.batch.ranges,
            first_point=first,
            recommender=self.batch.request,
        )

    def _measure(
        self,
        first: dict[str, float],
        last: Suggestion | None,
        measure_all: Callable[[BatchPlan, Start], Plan[End]],
    ) -> Plan[End]:
        if last is None:
            return (yield from measure_all(self, Start(first, 0)))
        with self.post.lock:
            self.post.ask(last.batch_count)
            for kind, raw in self.post.history:
                if kind == "suggestion":
                    self.mailbox.put(kind, raw)
        point = yield from self._answer_to(last.batch_count)
        if isinstance(point, End):
            return point
        return (yield from measure_all(self, Start(point, last.batch_count + 1)))

    def prepare(self) -> Plan[None]:
        """Before a count is measured: answers without identity that came before it are void."""
        self.post.discard()
        if not self.post.discarding:
            return
        done = yield from wait_until(
            self.post,
            lambda: None if self.post.discarding else True,
            Patience(self.batch.timeout),
        )
        if done is None:
            raise AdaptiveTimeout(
                f"old answers could not be removed within {self.batch.timeout:g} s"
            )

    def next_point(self, count: int) -> Plan[dict[str, float] | End]:
        """After `count` was measured: where to measure next, or why not."""
        self.post.ask(count)
        return (yield from self._answer_to(count))

    def _answer_to(self, count: int) -> Plan[dict[str, float] | End]:
        while True:
            answer = yield from self._wait(count)
            if isinstance(answer, End):
                return answer
            if isinstance(answer, Answer):
                point = yield from self._old_answer(count, answer)
            else:
                point = yield from self._suggestion(answer)
            if point is not None:
                return point

    def _suggestion(self, suggestion: Suggestion) -> Plan[dict[str, float] | End | None]:
        """Act on it; None if another revision is needed."""
        count, revision = suggestion.batch_count, suggestion.revision
        if suggestion.action is Action.STOP:
            self.log.taken(suggestion)
            return End(Outcome.DONE, suggestion.reason)
        if suggestion.action is Action.PAUSE:
            self.log.taken(suggestion)
            self.post.ask(count, revision + 1)
            yield from self._pause(suggestion.reason)
            return None
        try:
            point = yield from self.batch.motors.gate(suggestion.point, self.batch.ranges)
        except Refusal as refusal:
            logger.warning("suggestion %s is refused: %s", suggestion.uid, refusal)
            self.post.ask(count, revision + 1)
            self.log.refused(suggestion, str(refusal))
            return None
        self.log.taken(suggestion)
        return point

    def _old_answer(self, count: int, answer: Answer) -> Plan[dict[str, float] | End | None]:
        value = answer.value
        if value is None:
            return End(Outcome.DONE, "the recommender has no more points")
        if isinstance(value, RequestPause):
            self.post.ask(count)
            yield from self._pause(str(value) or "the recommender asks for a pause")
            return None
        if isinstance(value, Exception):
            raise value
        try:
            return (yield from self.batch.motors.gate(value, self.batch.ranges))
        except Refusal as refusal:
            # A queue without revisions cannot be asked again.
            raise Refusal(f"the answer to count {count} is refused: {refusal}") from None

    def _pause(self, reason: str) -> Plan[None]:
        logger.warning("paused by the recommender: %s; RE.resume() goes on", reason)
        yield from bps.checkpoint()
        yield from bps.pause()
        with self.post.lock:
            answered = self.mailbox.suggestion() is not None
        if not answered:
            self.log.resume(f"resumed after: {reason}")

    def _wait(self, count: int) -> Plan[Suggestion | Answer | End]:
        while True:
            patience = Patience(self.batch.timeout)
            waiting: Plan[Suggestion | Answer | None] = wait_until(
                self.post, self._answer, patience, renewal=self._renewal
            )
            found = yield from waiting
            if found is not None:
                return found
            reason = self._what_was_awaited(count, patience)
            self.log.timed_out(count, f"{reason}; {self.batch.on_timeout}")
            if self.batch.on_timeout == "fail":
                raise AdaptiveTimeout(reason)
            if self.batch.on_timeout == "stop":
                return End(Outcome.STOPPED, reason)
            logger.warning("paused: %s; RE.resume() waits again", reason)
            yield from bps.checkpoint()
            yield from bps.pause()

    def _answer(self) -> Suggestion | Answer | None:
        return self.mailbox.answer or self.mailbox.suggestion()

    def _renewal(self) -> float:
        with self.post.lock:
            waiting = self.mailbox.waiting
        if waiting is None:
            return 0.0
        if waiting.reason != self._told:
            self._told = waiting.reason
            logger.warning("count %d waits for %s", waiting.batch_count, waiting.reason)
        return min(waiting.until - time.time(), LONGEST_RENEWAL)

    def _what_was_awaited(self, count: int, patience: Patience) -> str:
        waiting = self.mailbox.waiting
        heard = f"; it was waiting for: {waiting.reason}" if waiting else ""
        return (
            f"no suggestion for count {count} of batch {self.batch.batch_id} "
            f"after {patience.waited:.1f} s{heard}{self.post.dropped}"
        )


def suggestion_channel(given: Any) -> SuggestionChannel:
    """`from_recommender` as a channel: it is one, or a queue.

    :raises TypeError: if it is neither.
    """
    if isinstance(given, SuggestionChannel):
        return given
    if callable(getattr(given, "get", None)) and not isinstance(given, Mapping):
        return QueueSuggestions(given)
    raise TypeError(f"from_recommender: a channel or a queue with get(timeout=), not {given!r}")


def _batch_id(md: Mapping[str, Any] | None, resume: str | None) -> str:
    named = (md or {}).get("batch_id")
    if resume is not None and named not in (None, resume):
        raise ValueError(f"md names batch {named!r}, resume names {resume!r}")
    batch_id = resume if resume is not None else named
    if batch_id is None:
        return str(uuid.uuid4())
    # What the recommender would not take is better refused here than waited for.
    if not isinstance(batch_id, str) or not 0 < len(batch_id) <= LONGEST_ID:
        raise ValueError(f"batch_id: a text of 1 to {LONGEST_ID} characters, not {batch_id!r:.80}")
    if not batch_id.isprintable():
        raise ValueError(f"batch_id: a text of printable characters, not {batch_id!r}")
    return batch_id


def _request(
    recommender: str | Mapping[str, Any] | None, md: Mapping[str, Any] | None
) -> RecommenderRequest | None:
    asked = (md or {}).get("recommender") if recommender is None else recommender
    if asked is None:
        return None
    values = {"name": asked} if isinstance(asked, str) else asked
    # It travels in a start document: a positions array of numpy is as good as a list.
    plain = json.loads(json.dumps(values, default=_plain))
    return RecommenderRequest.model_validate(plain)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"recommender: {value!r:.80} cannot travel")


def _failure(error: BaseException) -> tuple[Outcome, str]:
    by_person = isinstance(error, RunEngineControlException) or not isinstance(error, Exception)
    outcome = Outcome.ABORTED if by_person else Outcome.FAILED
    return outcome, str(error) or type(error).__name__
