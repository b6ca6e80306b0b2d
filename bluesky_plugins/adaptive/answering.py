"""The part of a batch's machine that answers: what is due, what stands, what comes of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from bluesky_plugins.adaptive.asking import Failed, NothingMore, Pause, Point, Suggest, extended
from bluesky_plugins.adaptive.configuration import Rules
from bluesky_plugins.adaptive.log import LogEntry
from bluesky_plugins.adaptive.model import (
    Action,
    Command,
    CommandKind,
    Ended,
    Outcome,
    Suggestion,
    derived_uid,
    suggestion_uid,
)
from bluesky_plugins.adaptive.state import (
    NOTHING,
    Ask,
    Awaited,
    Batch,
    Close,
    Compute,
    Computed,
    Decided,
    Instruction,
    Order,
    Phase,
    Publish,
    Step,
    Verdict,
    Wait,
    missing,
    tell,
)

__all__ = [
    "ask_for",
    "closing",
    "computed",
    "outstanding",
    "requested",
    "settled",
    "stands_paused",
    "tick",
]


def outstanding(state: Batch) -> tuple[Instruction, ...]:
    """What a service that takes the batch over has to do for it."""
    ask = state.asked
    if ask is None:
        return NOTHING
    if ask.made is not None:
        return (Publish(ask.made),)
    return (_compute(state, ask),)


def stands_paused(state: Batch) -> bool:
    """Whether the answer that was given last is a pause."""
    return state.last is not None and state.last.action is Action.PAUSE


def requested(state: Batch) -> Verdict | None:
    """What people want the next answer to be."""
    if state.stop_requested is not None:
        return Verdict(Action.STOP, state.stop_requested)
    if state.pause_requested is not None:
        return Verdict(Action.PAUSE, state.pause_requested)
    return None


def ask_for(
    state: Batch,
    entry: LogEntry,
    count: int,
    revision: int,
    verdict: Verdict | None,
    rules: Rules,
    jobs: tuple[str, ...] = (),
) -> Step:
    """An answer is due: have it computed, or give the one that stands or is decided.

    :param jobs: keys of the jobs whose results it comes from.
    """
    before = state.stands.get((count, revision - 1))
    jobs = before.jobs if before is not None else jobs
    ask = Ask(count, revision, entry.digest, entry.time, verdict, jobs)
    state = tell(state, f"revision {revision} is due", entry, count)
    if verdict is None:
        suggest = Suggest(rules.max_revisions)
        state = replace(state, calls=extended(state.calls, suggest), length=state.length + 1)
    elif verdict.action is Action.PAUSE:
        state = replace(state, pause_requested=None)
    known = state.stands.get((count, revision))
    if known is not None:
        return settled(state, ask, known)
    if verdict is None:
        return replace(state, asked=ask), (_compute(state, ask),)
    made = _suggestion(state, ask, verdict.action, {}, verdict.reason)
    return replace(state, asked=replace(ask, made=made)), (Publish(made),)


def _compute(state: Batch, ask: Ask) -> Compute:
    config = state.configuration
    if config is None:
        raise RuntimeError(f"batch {state.batch_id} asks without a recommender")
    return Compute(state.batch_id, ask.count, ask.revision, config, state.calls, state.length)


def _suggestion(
    state: Batch, ask: Ask, action: Action, point: Mapping[str, float], reason: str
) -> Suggestion:
    config = state.configuration
    if config is None:
        raise RuntimeError(f"batch {state.batch_id} answers without a recommender")
    return Suggestion(
        uid=suggestion_uid(state.batch_id, ask.count, ask.revision),
        batch_id=state.batch_id,
        batch_count=ask.count,
        revision=ask.revision,
        action=action,
        point=dict(point),
        reason=reason,
        recommender=config.recommender,
        inputs=ask.inputs,
        jobs=ask.jobs,
        time=ask.time,
    )


def computed(state: Batch, event: Computed) -> Step:
    """The recommender's reply becomes a suggestion."""
    ask = state.asked
    due = ask is not None and (ask.count, ask.revision) == (event.count, event.revision)
    if ask is None or not due or ask.made is not None:
        return state, NOTHING
    match event.reply:
        case Point(values, reason):
            made = _suggestion(state, ask, Action.MOVE, values, reason)
        case NothingMore(reason) | Failed(reason):
            made = _suggestion(state, ask, Action.STOP, {}, reason)
        case Pause(reason):
            made = _suggestion(state, ask, Action.PAUSE, {}, reason)
        case _:
            assert_never(event.reply)
    return replace(state, asked=replace(ask, made=made)), (Publish(made),)


def settled(state: Batch, ask: Ask, answer: Suggestion) -> Step:
    """The answer that was due stands."""
    decided = Decided(ask.count, ask.revision, answer.action)
    state = replace(state, last=decided, answered={**state.answered, ask.count: ask.revision})
    where = f" {answer.point}" if answer.point else ""
    state = tell(state, f"answered: {answer.action}{where}, {answer.reason}", None, ask.count)
    # Plans that send no events of their own never say that they have ended.
    if answer.action is Action.STOP and state.opened is None:
        return state, (closing(state, Outcome.DONE, answer.reason),)
    return state, NOTHING


# ---- time


def closing(state: Batch, outcome: Outcome, reason: str) -> Close:
    """Have the batch closed by the service."""
    uid = derived_uid("ended", state.batch_id, outcome, state.entries)
    return Close(
        Ended(
            uid=uid, batch_id=state.batch_id, time=state.last_time, outcome=outcome, reason=reason
        )
    )


def tick(rules: Rules, state: Batch, now: float) -> Step:
    """What comes of time: answers sent again, batches closed."""
    ask = state.asked
    if ask is not None:
        return _unread(rules, state, ask, now)
    if state.awaited is not None:
        return _waited(rules, state, state.awaited, now)
    silence = now - state.last_time
    if state.phase is Phase.ENDED or not _again(state.closing, now, rules):
        return state, NOTHING
    if silence > rules.close_after:
        close = closing(state, Outcome.SILENT, f"no news for {rules.close_after:g} s")
    elif state.stop_requested and silence > rules.silent_after and not stands_paused(state):
        close = closing(state, Outcome.CLOSED, state.stop_requested)
    else:
        return state, NOTHING
    return replace(state, closing=now), (close,)


def _waited(rules: Rules, state: Batch, awaited: Awaited, now: float) -> Step:
    """Results of processing are awaited: the plan is told; not for ever."""
    if (awaited.count, 0) in state.stands:
        return state, NOTHING  # what decides it stands in the rest of the log
    if now - awaited.since <= rules.processing_wait:
        return state, (Wait(state.batch_id, awaited, missing(state)),)
    if not _again(state.closing, now, rules):
        return state, NOTHING
    return replace(state, closing=now), (_no_longer(rules, state, awaited),)


def _no_longer(rules: Rules, state: Batch, awaited: Awaited) -> Order:
    names = missing(state)
    told = f"no result of recipe {', '.join(names)} for run {awaited.run}"
    command = Command(
        uid=derived_uid("no longer awaited", state.batch_id, awaited.count, awaited.run, *names),
        batch_id=state.batch_id,
        command=CommandKind.STOP,
        time=awaited.since + rules.processing_wait,
        by="recommender",
        reason=f"{told} after {rules.processing_wait:g} s",
        batch_count=awaited.count,
    )
    return Order(command)


def _again(sent: float | None, now: float, rules: Rules) -> bool:
    return sent is None or now - sent > rules.reread_after


def _unread(rules: Rules, state: Batch, ask: Ask, now: float) -> Step:
    """What was published but never read back is published again."""
    if ask.made is None:
        return state, NOTHING
    if ask.sent is None:
        return replace(state, asked=replace(ask, sent=now)), NOTHING
    if not _again(ask.sent, now, rules):
        return state, NOTHING
    return replace(state, asked=replace(ask, sent=now)), (Publish(ask.made),)
