"""The part of a batch's machine that awaits processed values.

A count whose recommender takes `processing.<recipe>.<number>` as a dependent key is answered when
the results of its run (or event) are in the batch's log; they may be there before its stop.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bluesky_plugins.adaptive.answering import ask_for, requested
from bluesky_plugins.adaptive.asking import Ingest, extended
from bluesky_plugins.adaptive.configuration import PROCESSED, Configuration, Rules
from bluesky_plugins.adaptive.log import LogEntry
from bluesky_plugins.adaptive.model import Action, BatchMode, Result
from bluesky_plugins.adaptive.readings import Row, Run
from bluesky_plugins.adaptive.state import (
    NOTHING,
    Awaited,
    Batch,
    Phase,
    Step,
    Verdict,
    missing,
    tell,
)

__all__ = ["await_results", "given_up", "heard"]

SUCCEEDED = "succeeded"


def await_results(rules: Rules, state: Batch, entry: LogEntry, run: Run, row: Row) -> Step:
    """A count was measured: keep its last row until the results are there."""
    part = run.count if run.mode == BatchMode.EVENT else None
    state = replace(state, awaited=Awaited(run.count, run.uid, part, row, entry.time))
    if names := missing(state):
        told = f"results of {', '.join(names)} for run {run.uid} are awaited"
        state = tell(state, told, entry, run.count)
    return _looked_at(rules, state, entry)


def heard(rules: Rules, state: Batch, entry: LogEntry) -> Step:
    """A result: the first one of a run (or event) and recipe counts."""
    result = Result.model_validate(entry.doc)
    part = result.batch_count if state.mode is BatchMode.EVENT else None
    key = (result.run, part, result.recipe)
    about = f"result of job {result.key[:16]}, {result.recipe} for run {result.run}"
    state = tell(state, f"{about}: {result.state}{_because(result)}", entry, result.batch_count)
    config = state.configuration
    # Before the first start document nobody has said whose results are wanted.
    wanted = config is None or result.recipe in config.recipes
    if not wanted or state.phase is Phase.ENDED:
        return state, NOTHING
    if key in state.results or result.batch_count in state.answered:
        return tell(state, "it comes too late: no effect", entry, result.batch_count), NOTHING
    return _looked_at(rules, replace(state, results={**state.results, key: result}), entry)


def given_up(rules: Rules, state: Batch, entry: LogEntry) -> Step:
    """The count that is awaited is answered by what people want."""
    awaited = state.awaited
    if awaited is None:
        return state, NOTHING
    verdict = requested(state)
    return ask_for(_forgotten(state, awaited), entry, awaited.count, 0, verdict, rules)


def _looked_at(rules: Rules, state: Batch, entry: LogEntry) -> Step:
    """Answer the awaited count, if what is there decides it."""
    awaited, config = state.awaited, state.configuration
    if awaited is None or config is None:
        return state, NOTHING
    here = [(awaited.run, awaited.part, name) for name in config.recipes]
    results = {key[2]: state.results[key] for key in here if key in state.results}
    faults = [fault for one in results.values() if (fault := _fault(config, one))]
    if not faults and missing(state):
        return state, NOTHING
    state = _forgotten(state, awaited)
    if faults:
        verdict: Verdict | None = Verdict(Action.STOP, faults[0])
    else:
        state, verdict = _ingested(state, config, awaited, results), requested(state)
    jobs = tuple(one.key for one in results.values() if one.key)
    return ask_for(state, entry, awaited.count, 0, verdict, rules, jobs)


def _forgotten(state: Batch, awaited: Awaited) -> Batch:
    run = (awaited.run, awaited.part)
    results = {key: one for key, one in state.results.items() if key[:2] != run}
    return replace(state, awaited=None, results=results)


def _because(result: Result) -> str:
    return f", {result.reason}" if result.reason else ""


def _fault(config: Configuration, result: Result) -> str | None:
    """Why a result cannot be used."""
    about = f"recipe {result.recipe} for run {result.run}"
    if result.key:
        about = f"{about}: job {result.key[:16]}"
    if result.state != SUCCEEDED:
        return f"{about} {result.state}{_because(result)}"
    for key in config.dependent_keys:
        if key.startswith(f"{PROCESSED}{result.recipe}."):
            value = result.values.get(key)
            if value is None:
                return f"{about} succeeded without {key}"
            if not math.isfinite(value):
                return f"{about}: {key} is {value}"
    return None


def _ingested(
    state: Batch, config: Configuration, awaited: Awaited, results: dict[str, Result]
) -> Batch:
    measured = dict(zip(config.measured_keys, awaited.row.ys, strict=True))
    found = {key: value for one in results.values() for key, value in one.values.items()}
    ys = tuple({**found, **measured}[key] for key in config.dependent_keys)
    calls = extended(state.calls, Ingest((awaited.row.xs,), (ys,)))
    return replace(state, calls=calls, length=state.length + 1)
