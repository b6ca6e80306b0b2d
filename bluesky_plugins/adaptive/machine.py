"""A batch as a pure machine over its log.

`step(rules, state, event) -> (state, commands)`: no clock, no I/O. An entry that asks for an
answer (a complete run, an event, a refusal, a resume) stops the reading of the log until that
answer was read back from the `suggestions` topic; entries that come meanwhile are held. So a
state depends on nothing but the log and the suggestions that stand, in whatever order the two
topics arrive.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from bluesky_plugins.adaptive.answering import (
    ask_for,
    closing,
    computed,
    outstanding,
    requested,
    settled,
    stands_paused,
    tick,
)
from bluesky_plugins.adaptive.asking import Ingest, Reject, extended
from bluesky_plugins.adaptive.awaiting import await_results, given_up, heard
from bluesky_plugins.adaptive.configuration import Rules, configured
from bluesky_plugins.adaptive.log import LogEntry
from bluesky_plugins.adaptive.model import (
    Action,
    BatchMode,
    Command,
    CommandKind,
    Ended,
    Opened,
    Outcome,
    Refused,
    Taken,
    TimedOut,
    parse_batch_event,
)
from bluesky_plugins.adaptive.readings import PRIMARY, Row, Run, Unusable, row_of, rows_of
from bluesky_plugins.adaptive.state import (
    NOTHING,
    Batch,
    Computed,
    Event,
    Instruction,
    Phase,
    Publish,
    Published,
    Step,
    Tick,
    Verdict,
    tell,
)

__all__ = ["outstanding", "step"]


def step(rules: Rules, state: Batch, event: Event) -> Step:
    """What a batch becomes by an event, and what is to be done about it."""
    match event:
        case LogEntry():
            return _advance(rules, replace(state, held=(*state.held, event)))
        case Published():
            return _published(rules, state, event)
        case Computed():
            return computed(state, event)
        case Tick(now):
            return tick(rules, state, now)
        case _:
            assert_never(event)


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
            return heard(rules, state, entry)
        case _:
            # Resources, datums and what else belongs to a run: in the log, no part in it.
            return state, NOTHING


# ---- documents


def _started(rules: Rules, state: Batch, entry: LogEntry) -> Step:
    doc = entry.doc
    mode = BatchMode(doc.get("batch_mode", BatchMode.RUN))
    run = Run(entry.uid, int(doc.get("batch_count", 0)), mode)
    if state.configuration is None:
        asked_for = configured(state.batch_id, doc.get("recommender"), rules, mode)
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
    return tell(state, f"run {run.uid} started", entry, run.count), NOTHING


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
    row = row_of(stream, entry.doc["data"], config.independent_keys, config.measured_keys)
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
        return tell(state, f"run {run.uid} stopped", entry), NOTHING
    status = entry.doc.get("exit_status", "success")
    if status != "success":
        return tell(state, f"run {run.uid} does not count: {status}", entry, run.count), NOTHING
    return _complete(rules, state, entry, run)


def _complete(rules: Rules, state: Batch, entry: LogEntry, run: Run) -> Step:
    """A count was measured: take its rows in and ask for its answer."""
    count = run.count
    if count in state.answered:
        stored = state.stands[count, state.answered[count]]
        state = tell(state, "measured again: no data; the answer is repeated", entry, count)
        return state, (Publish(stored),)
    if state.awaited is not None and state.awaited.count == count:
        told = "measured again: no data; the results of the first run are awaited"
        return tell(state, told, entry, count), NOTHING
    if state.awaited is not None:
        left = state.awaited.count
        state = tell(state, f"count {count} was measured: no longer awaited", entry, left)
    state = replace(state, measured=state.measured + 1, refusals=0, awaited=None)
    rows = _rows_or_verdict(state, run)
    if isinstance(rows, Verdict):
        return ask_for(state, entry, count, 0, rows, rules)
    if state.configuration and state.configuration.recipes and state.stop_requested is None:
        # A processed value is one for the run: it goes with the last row.
        return await_results(rules, state, entry, run, rows[-1])
    ingest = Ingest(tuple(row.xs for row in rows), tuple(row.ys for row in rows))
    state = replace(state, calls=extended(state.calls, ingest), length=state.length + 1)
    return ask_for(state, entry, count, 0, requested(state), rules)


def _rows_or_verdict(state: Batch, run: Run) -> list[Row] | Verdict:
    config = state.configuration
    if config is None or config.error:
        return Verdict(Action.STOP, (config and config.error) or "no recommender")
    if run.count > config.max_count:
        return Verdict(Action.STOP, f"max_count {config.max_count} is reached")
    try:
        return rows_of(run)
    except Unusable as error:
        return Verdict(Action.STOP, str(error))


# ---- what a plan did


def _of_the_plan(rules: Rules, state: Batch, entry: LogEntry) -> Step:
    event = parse_batch_event(entry.doc)
    match event:
        case Opened():
            return _opened(rules, state, entry, event), NOTHING
        case Taken(batch_count=count, action=action):
            return tell(state, f"the plan took the answer: {action}", entry, count), NOTHING
        case TimedOut(batch_count=count, reason=reason):
            return tell(state, f"the plan waited too long: {reason}", entry, count), NOTHING
        case Refused():
            return _refused(rules, state, entry, event)
        case Ended(outcome=outcome, reason=reason):
            return _ended(state, entry, outcome, reason), NOTHING
        case _:
            assert_never(event)


def _opened(rules: Rules, state: Batch, entry: LogEntry, event: Opened) -> Batch:
    if state.configuration is None and event.recommender is not None:
        given = configured(state.batch_id, event.recommender, rules, event.batch_mode)
        state = replace(state, configuration=given)
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
    return tell(state, "taken up again" if event.resume else "opened", entry)


def _ended(state: Batch, entry: LogEntry, outcome: Outcome, reason: str) -> Batch:
    if state.phase is Phase.ENDED:
        return tell(state, f"had ended before; now again: {outcome}", entry)
    state = replace(
        state,
        phase=Phase.ENDED,
        outcome=outcome,
        reason=reason,
        runs={},
        awaited=None,
        results={},
    )
    return tell(state, f"ended: {outcome}{f', {reason}' if reason else ''}", entry)


def _refused(rules: Rules, state: Batch, entry: LogEntry, event: Refused) -> Step:
    count, revision = event.batch_count, event.revision
    answer = state.stands.get((count, revision))
    current = state.answered.get(count) == revision and state.phase is Phase.OPEN
    if answer is None or not current or answer.action is not Action.MOVE:
        return tell(state, "a refusal of what does not stand: no effect", entry, count), NOTHING
    refusals = state.refusals + 1
    reject = Reject(answer.point, event.reason)
    state = replace(
        state,
        refusals=refusals,
        calls=extended(state.calls, reject),
        length=state.length + 1,
    )
    state = tell(state, f"the plan refused revision {revision}: {event.reason}", entry, count)
    verdict = requested(state)
    if verdict is None and refusals > rules.max_revisions:
        told = f"refused {refusals} times, the last time because {event.reason}"
        verdict = Verdict(Action.STOP, told)
    return ask_for(state, entry, count, revision + 1, verdict, rules)


# ---- what people want


def _commanded(rules: Rules, state: Batch, entry: LogEntry, silence: float) -> Step:
    command = Command.model_validate(entry.doc)
    state = tell(state, _wording(command), entry, command.batch_count)
    if state.phase is Phase.ENDED:
        return tell(state, "the batch has ended: no effect", entry), NOTHING
    match command.command:
        case CommandKind.PAUSE:
            return _pause(state, command), NOTHING
        case CommandKind.RESUME:
            return _revise_pause(rules, replace(state, pause_requested=None), entry)
        case CommandKind.STOP:
            return _stop(rules, state, entry, command, silence)
        case CommandKind.VETO | CommandKind.POINT:
            return tell(state, "kept, no effect", entry, command.batch_count), NOTHING
        case _:
            assert_never(command.command)


def _wording(command: Command) -> str:
    by = f" by {command.by or 'a person'}"
    because = f": {command.reason}" if command.reason else ""
    return f"{command.command}{by}{because}"


def _pause(state: Batch, command: Command) -> Batch:
    return state if stands_paused(state) else replace(state, pause_requested=_wording(command))


def _revise_pause(rules: Rules, state: Batch, entry: LogEntry) -> Step:
    if state.last is None or not stands_paused(state):
        return state, NOTHING
    count, revision = state.last.count, state.last.revision
    return ask_for(state, entry, count, revision + 1, requested(state), rules)


def _stop(rules: Rules, state: Batch, entry: LogEntry, command: Command, silence: float) -> Step:
    count = state.awaited.count if state.awaited else None
    if command.batch_count not in (None, count):
        return tell(state, "that count is not awaited: no effect", entry, count), NOTHING
    state = replace(state, stop_requested=_wording(command))
    if state.awaited is not None:
        return given_up(rules, state, entry)
    if stands_paused(state):
        return _revise_pause(rules, state, entry)
    if silence > rules.silent_after:
        return state, (closing(state, Outcome.CLOSED, _wording(command)),)
    return state, NOTHING


def _published(rules: Rules, state: Batch, event: Published) -> Step:
    suggestion = event.suggestion
    key = (suggestion.batch_count, suggestion.revision)
    if key in state.stands:
        return state, NOTHING
    state = replace(state, stands={**state.stands, key: suggestion})
    ask = state.asked
    if ask is None or key != (ask.count, ask.revision):
        return state, NOTHING
    state, first = settled(replace(state, asked=None), ask, suggestion)
    state, more = _advance(rules, state)
    return state, (*first, *more)
