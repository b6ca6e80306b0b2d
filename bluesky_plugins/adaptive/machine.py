"""A batch as a pure machine over its log.

`step(rules, state, event) -> (state, commands)`: no clock, no I/O. An entry that asks for an
answer (a complete run, an event, a refusal, a resume) stops the reading of the log until that
answer was read back from the `suggestions` topic; entries that come meanwhile are held. So a
state depends on nothing but the log and the suggestions that stand, in whatever order the two
topics arrive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple, assert_never

from bluesky_plugins.adaptive.asking import (
    Calls,
    Failed,
    Ingest,
    NothingMore,
    Pause,
    Point,
    Reject,
    Reply,
    Suggest,
    extended,
)
from bluesky_plugins.adaptive.configuration import Configuration, Rules, configured
from bluesky_plugins.adaptive.log import Cause, LogEntry
from bluesky_plugins.adaptive.model import (
    Action,
    BatchMode,
    Command,
    CommandKind,
    Ended,
    Opened,
    Outcome,
    Refused,
    Suggestion,
    Taken,
    TimedOut,
    derived_uid,
    parse_batch_event,
    suggestion_uid,
)
from bluesky_plugins.adaptive.readings import PRIMARY, Row, Run, Unusable, row_of, rows_of

__all__ = [
    "Ask",
    "Batch",
    "Close",
    "Compute",
    "Computed",
    "Decided",
    "Event",
    "Instruction",
    "Phase",
    "Publish",
    "Published",
    "Tick",
    "Told",
    "Verdict",
    "begin",
    "outstanding",
    "step",
    "story",
    "violations",
]


class Phase(StrEnum):
    """Whether a batch still asks."""

    OPEN = "open"
    ENDED = "ended"


# ---- events: what the shell tells the machine (beside a LogEntry)


@dataclass(frozen=True, slots=True)
class Published:
    """A suggestion was read from the `suggestions` topic."""

    suggestion: Suggestion
    cause: Cause


@dataclass(frozen=True, slots=True)
class Computed:
    """The recommender replied to what it was asked for this count and revision."""

    count: int
    revision: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by; `now` in seconds since the epoch."""

    now: float


Event = LogEntry | Published | Computed | Tick

# ---- commands: what the machine has the shell do


@dataclass(frozen=True, slots=True)
class Compute:
    """Have the recommender make these calls and reply to the last one."""

    batch_id: str
    count: int
    revision: int
    configuration: Configuration
    calls: Calls = field(repr=False)
    length: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish a suggestion. Its `time` is that of the entry it answers: replace it."""

    suggestion: Suggestion


@dataclass(frozen=True, slots=True)
class Close:
    """Put this `ended` into the batch's log."""

    ended: Ended


Instruction = Compute | Publish | Close

# ---- state


class Verdict(NamedTuple):
    """An answer that needs no recommender."""

    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """The one answer that is due. `made` is what we would publish, `sent` when that was."""

    count: int
    revision: int
    inputs: str
    time: float
    verdict: Verdict | None
    made: Suggestion | None = None
    sent: float | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """One line of a batch's story."""

    text: str
    cause: Cause | None
    count: int | None
    time: float | None


@dataclass(frozen=True, slots=True)
class Decided:
    """The answer that was given last."""

    count: int
    revision: int
    action: Action


@dataclass(frozen=True, slots=True)
class Batch:
    """All that is known of a batch after some of its log."""

    batch_id: str
    phase: Phase = Phase.OPEN
    outcome: Outcome | None = None
    reason: str = ""
    mode: BatchMode | None = None
    configuration: Configuration | None = None
    opened: Opened | None = None
    openings: int = 0
    entries: int = 0
    first_time: float = 0.0
    last_time: float = 0.0
    runs: Mapping[str, Run] = field(default_factory=dict)
    measured: int = 0
    asked: Ask | None = None
    held: tuple[LogEntry, ...] = ()
    stands: Mapping[tuple[int, int], Suggestion] = field(default_factory=dict)
    answered: Mapping[int, int] = field(default_factory=dict)
    last: Decided | None = None
    refusals: int = 0
    pause_requested: str | None = None
    stop_requested: str | None = None
    closing: float | None = None
    calls: Calls = field(default=None, repr=False)
    length: int = 0
    told: tuple[Told, Any] | None = field(default=None, repr=False)


Step = tuple[Batch, tuple[Instruction, ...]]
NOTHING: tuple[Instruction, ...] = ()


def begin(batch_id: str) -> Batch:
    """A batch of which nothing is known yet."""
    return Batch(batch_id)


def step(rules: Rules, state: Batch, event: Event) -> Step:
    """What a batch becomes by an event, and what is to be done about it."""
    match event:
        case LogEntry():
            return _advance(rules, replace(state, held=(*state.held, event)))
        case Published():
            return _published(rules, state, event)
        case Computed():
            return _computed(state, event)
        case Tick(now):
            return _tick(rules, state, now)
        case _:
            assert_never(event)


def outstanding(state: Batch) -> tuple[Instruction, ...]:
    """What a service that takes the batch over has to do for it."""
    ask = state.asked
    if ask is None:
        return NOTHING
    if ask.made is not None:
        return (Publish(ask.made),)
    return (_compute(state, ask),)


def story(state: Batch, key: int | None = None, *, latest: int | None = None) -> list[Told]:
    """What happened to a batch, or to one count of it, in order; or the latest lines of it."""
    lines: list[Told] = []
    rest = state.told
    while rest is not None and (latest is None or len(lines) < latest):
        line, rest = rest
        if key is None or line.count == key:
            lines.append(line)
    return lines[::-1]


def _tell(
    state: Batch, text: str, entry: LogEntry | None = None, count: int | None = None
) -> Batch:
    cause, time = (entry.cause, entry.time) if entry else (None, None)
    return replace(state, told=(Told(text, cause, count, time), state.told))


def _advance(rules: Rules, state: Batch) -> Step:
    commands: list[Instruction] = []
    while state.asked is None and state.held:
        entry, rest = state.held[0], state.held[1:]
        state, more = _enter(rules, replace(state, held=rest), entry)
        commands.extend(more)
    return state, tuple(commands)


def _enter(rules: Rules, state: Batch, entry: LogEntry) -> Step:
    silence = entry.time - state.last_time if state.entries else 0.0
    state = replace(
        state,
        entries=entry.n + 1,
        first_time=state.first_time if state.entries else entry.time,
        last_time=max(state.last_time, entry.time),
        closing=None,
    )
    match entry.name:
        case "start":
            return _started(rules, state, entry)
        case "descriptor":
            return _described(state, entry), NOTHING
        case "event":
            return _measured(rules, state, entry)
        case "stop":
            return _stopped(rules, state, entry)
        case "batch_event":
            return _of_the_plan(rules, state, entry)
        case "command":
            return _commanded(rules, state, entry, silence)
        case "result":
            return _tell(state, f"result of job {entry.doc['key']}: kept", entry), NOTHING
        case _:
            # Resources, datums and what else belongs to a run: in the log, no part in it.
            return state, NOTHING


# ---- documents


def _started(rules: Rules, state: Batch, entry: LogEntry) -> Step:
    doc = entry.doc
    mode = BatchMode(doc.get("batch_mode", BatchMode.RUN))
    run = Run(entry.uid, int(doc.get("batch_count", 0)), mode)
    if state.configuration is None:
        asked_for = configured(state.batch_id, doc.get("recommender"), rules)
        state = replace(state, configuration=asked_for)
    # Of the runs of one count the newest is the one that counts.
    others = {
        uid: other
        for uid, other in state.runs.items()
        if mode is not BatchMode.RUN or other.count != run.count
    }
    if state.phase is Phase.ENDED:
        state = replace(state, phase=Phase.OPEN, outcome=None, reason="")
    state = replace(state, mode=mode, runs={**others, run.uid: run})
    return _tell(state, f"run {run.uid} started", entry, run.count), NOTHING


def _described(state: Batch, entry: LogEntry) -> Batch:
    run = state.runs.get(entry.doc["run_start"])
    if run is None:
        return state
    run = run.with_stream(entry.uid, entry.doc.get("name", PRIMARY))
    return replace(state, runs={**state.runs, run.uid: run})


def _measured(rules: Rules, state: Batch, entry: LogEntry) -> Step:
    descriptor = entry.doc["descriptor"]
    run = next((run for run in state.runs.values() if descriptor in run.streams), None)
    if run is None or state.configuration is None:
        return state, NOTHING
    config = state.configuration
    stream = run.streams[descriptor]
    row = row_of(stream, entry.doc["data"], config.independent_keys, config.dependent_keys)
    if run.mode is BatchMode.RUN:
        return replace(state, runs={**state.runs, run.uid: run.with_row(row)}), NOTHING
    if stream != PRIMARY:
        return state, NOTHING
    count = run.count + entry.doc["seq_num"] - 1
    return _complete(rules, state, entry, replace(run, count=count, rows=(row, None)))


def _stopped(rules: Rules, state: Batch, entry: LogEntry) -> Step:
    run = state.runs.get(entry.doc["run_start"])
    if run is None:
        return state, NOTHING
    state = replace(state, runs={k: v for k, v in state.runs.items() if k != run.uid})
    if run.mode is BatchMode.EVENT:
        return _tell(state, f"run {run.uid} stopped", entry), NOTHING
    status = entry.doc.get("exit_status", "success")
    if status != "success":
        return _tell(state, f"run {run.uid} does not count: {status}", entry, run.count), NOTHING
    return _complete(rules, state, entry, run)


def _complete(rules: Rules, state: Batch, entry: LogEntry, run: Run) -> Step:
    """A count was measured: take its rows in and ask for its answer."""
    count = run.count
    if count in state.answered:
        stored = state.stands[count, state.answered[count]]
        state = _tell(state, "measured again: no data; the answer is repeated", entry, count)
        return state, (Publish(stored),)
    state = replace(state, measured=state.measured + 1, refusals=0)
    state, verdict = _taken_in(state, run)
    return _ask(state, entry, count, 0, verdict or _requested(state), rules)


def _taken_in(state: Batch, run: Run) -> tuple[Batch, Verdict | None]:
    config = state.configuration
    if config is None or config.error:
        return state, Verdict(Action.STOP, (config and config.error) or "no recommender")
    if run.count > config.max_count:
        return state, Verdict(Action.STOP, f"max_count {config.max_count} is reached")
    try:
        rows: list[Row] = rows_of(run)
    except Unusable as error:
        return state, Verdict(Action.STOP, str(error))
    ingest = Ingest(tuple(row.xs for row in rows), tuple(row.ys for row in rows))
    return replace(state, calls=extended(state.calls, ingest), length=state.length + 1), None


# ---- what a plan did


def _of_the_plan(rules: Rules, state: Batch, entry: LogEntry) -> Step:
    event = parse_batch_event(entry.doc)
    match event:
        case Opened():
            return _opened(rules, state, entry, event), NOTHING
        case Taken(batch_count=count, action=action):
            return _tell(state, f"the plan took the answer: {action}", entry, count), NOTHING
        case TimedOut(batch_count=count, reason=reason):
            return _tell(state, f"the plan waited too long: {reason}", entry, count), NOTHING
        case Refused():
            return _refused(rules, state, entry, event)
        case Ended(outcome=outcome, reason=reason):
            return _ended(state, entry, outcome, reason), NOTHING
        case _:
            assert_never(event)


def _opened(rules: Rules, state: Batch, entry: LogEntry, event: Opened) -> Batch:
    if state.configuration is None and event.recommender is not None:
        state = replace(state, configuration=configured(state.batch_id, event.recommender, rules))
    state = replace(
        state,
        phase=Phase.OPEN,
        outcome=None,
        reason="",
        mode=event.batch_mode,
        opened=event,
        openings=state.openings + 1,
        pause_requested=None,
        stop_requested=None,
    )
    return _tell(state, "taken up again" if event.resume else "opened", entry)


def _ended(state: Batch, entry: LogEntry, outcome: Outcome, reason: str) -> Batch:
    if state.phase is Phase.ENDED:
        return _tell(state, f"had ended before; now again: {outcome}", entry)
    state = replace(state, phase=Phase.ENDED, outcome=outcome, reason=reason, runs={})
    return _tell(state, f"ended: {outcome}{f', {reason}' if reason else ''}", entry)


def _refused(rules: Rules, state: Batch, entry: LogEntry, event: Refused) -> Step:
    count, revision = event.batch_count, event.revision
    answer = state.stands.get((count, revision))
    current = state.answered.get(count) == revision and state.phase is Phase.OPEN
    if answer is None or not current or answer.action is not Action.MOVE:
        return _tell(state, "a refusal of what does not stand: no effect", entry, count), NOTHING
    refusals = state.refusals + 1
    reject = Reject(answer.point, event.reason)
    state = replace(
        state,
        refusals=refusals,
        calls=extended(state.calls, reject),
        length=state.length + 1,
    )
    state = _tell(state, f"the plan refused revision {revision}: {event.reason}", entry, count)
    verdict = _requested(state)
    if verdict is None and refusals > rules.max_revisions:
        told = f"refused {refusals} times, the last time because {event.reason}"
        verdict = Verdict(Action.STOP, told)
    return _ask(state, entry, count, revision + 1, verdict, rules)


# ---- what people want


def _commanded(rules: Rules, state: Batch, entry: LogEntry, silence: float) -> Step:
    command = Command.model_validate(entry.doc)
    state = _tell(state, _wording(command), entry, command.batch_count)
    if state.phase is Phase.ENDED:
        return _tell(state, "the batch has ended: no effect", entry), NOTHING
    match command.command:
        case CommandKind.PAUSE:
            return _pause(state, command), NOTHING
        case CommandKind.RESUME:
            return _revise_pause(rules, replace(state, pause_requested=None), entry)
        case CommandKind.STOP:
            return _stop(rules, state, entry, command, silence)
        case CommandKind.VETO | CommandKind.POINT:
            return _tell(state, "kept, no effect", entry, command.batch_count), NOTHING
        case _:
            assert_never(command.command)


def _wording(command: Command) -> str:
    by = f" by {command.by}" if command.by else ""
    because = f": {command.reason}" if command.reason else ""
    return f"{command.command}{by}{because}"


def _stands_paused(state: Batch) -> bool:
    return state.last is not None and state.last.action is Action.PAUSE


def _pause(state: Batch, command: Command) -> Batch:
    return state if _stands_paused(state) else replace(state, pause_requested=_wording(command))


def _revise_pause(rules: Rules, state: Batch, entry: LogEntry) -> Step:
    if state.last is None or not _stands_paused(state):
        return state, NOTHING
    count, revision = state.last.count, state.last.revision
    return _ask(state, entry, count, revision + 1, _requested(state), rules)


def _stop(rules: Rules, state: Batch, entry: LogEntry, command: Command, silence: float) -> Step:
    state = replace(state, stop_requested=_wording(command))
    if _stands_paused(state):
        return _revise_pause(rules, state, entry)
    if silence > rules.silent_after:
        return state, (_close(state, Outcome.CLOSED, _wording(command)),)
    return state, NOTHING


def _requested(state: Batch) -> Verdict | None:
    if state.stop_requested is not None:
        return Verdict(Action.STOP, state.stop_requested)
    if state.pause_requested is not None:
        return Verdict(Action.PAUSE, state.pause_requested)
    return None


# ---- answers


def _ask(
    state: Batch,
    entry: LogEntry,
    count: int,
    revision: int,
    verdict: Verdict | None,
    rules: Rules,
) -> Step:
    ask = Ask(count, revision, entry.digest, entry.time, verdict)
    state = _tell(state, f"revision {revision} is due", entry, count)
    if verdict is None:
        suggest = Suggest(rules.max_revisions)
        state = replace(state, calls=extended(state.calls, suggest), length=state.length + 1)
    elif verdict.action is Action.PAUSE:
        state = replace(state, pause_requested=None)
    known = state.stands.get((count, revision))
    if known is not None:
        return _settled(state, ask, known)
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
        time=ask.time,
    )


def _computed(state: Batch, event: Computed) -> Step:
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


def _published(rules: Rules, state: Batch, event: Published) -> Step:
    suggestion = event.suggestion
    key = (suggestion.batch_count, suggestion.revision)
    if key in state.stands:
        return state, NOTHING
    state = replace(state, stands={**state.stands, key: suggestion})
    ask = state.asked
    if ask is None or key != (ask.count, ask.revision):
        return state, NOTHING
    state, first = _settled(replace(state, asked=None), ask, suggestion)
    state, more = _advance(rules, state)
    return state, (*first, *more)


def _settled(state: Batch, ask: Ask, answer: Suggestion) -> Step:
    decided = Decided(ask.count, ask.revision, answer.action)
    state = replace(state, last=decided, answered={**state.answered, ask.count: ask.revision})
    where = f" {answer.point}" if answer.point else ""
    state = _tell(state, f"answered: {answer.action}{where}, {answer.reason}", None, ask.count)
    # Plans that send no events of their own never say that they have ended.
    if answer.action is Action.STOP and state.opened is None:
        return state, (_close(state, Outcome.DONE, answer.reason),)
    return state, NOTHING


# ---- time


def _close(state: Batch, outcome: Outcome, reason: str) -> Close:
    uid = derived_uid("ended", state.batch_id, outcome, state.entries)
    return Close(
        Ended(
            uid=uid, batch_id=state.batch_id, time=state.last_time, outcome=outcome, reason=reason
        )
    )


def _tick(rules: Rules, state: Batch, now: float) -> Step:
    ask = state.asked
    if ask is not None:
        return _unread(rules, state, ask, now)
    silence = now - state.last_time
    if state.phase is Phase.ENDED or not _again(state.closing, now, rules):
        return state, NOTHING
    if silence > rules.close_after:
        close = _close(state, Outcome.SILENT, f"no news for {rules.close_after:g} s")
    elif state.stop_requested and silence > rules.silent_after and not _stands_paused(state):
        close = _close(state, Outcome.CLOSED, state.stop_requested)
    else:
        return state, NOTHING
    return replace(state, closing=now), (close,)


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


# ---- invariants


def violations(state: Batch) -> list[str]:
    """What must never be; for tests."""
    wrong: list[str] = []
    if state.asked is None and state.held:
        wrong.append("entries are held although no answer is due")
    if state.asked and (state.asked.count, state.asked.revision) in state.stands:
        wrong.append("an answer is due that stands already")
    for (count, revision), suggestion in state.stands.items():
        if (suggestion.batch_count, suggestion.revision) != (count, revision):
            wrong.append(f"{suggestion.uid} stands for another count")
    for count, revision in state.answered.items():
        if any((count, older) not in state.stands for older in range(revision + 1)):
            wrong.append(f"count {count} has an answer without its earlier revisions")
    if state.last and state.answered.get(state.last.count) != state.last.revision:
        wrong.append("the last answer is not one of the answers")
    if state.phase is Phase.ENDED and state.runs:
        wrong.append("an ended batch has open runs")
    return wrong
