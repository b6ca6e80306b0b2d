"""Which recipes fire, and for every recipe why it does or does not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import Field, ValidationError

from bluesky_plugins.processing.explaining import explain, nearest, shown
from bluesky_plugins.processing.jobs.job import Subject
from bluesky_plugins.processing.model import Name, Noun
from bluesky_plugins.processing.recipes.documents import RunDocuments
from bluesky_plugins.processing.recipes.recipe import After, Parameter, Recipe
from bluesky_plugins.processing.recipes.templates import ArgumentError, lookup

__all__ = ["Decision", "Ending", "Verdict", "evaluate", "with_parameters"]


class Verdict(StrEnum):
    """What came of a recipe for something that is over."""

    FIRES = "fires"
    SKIPPED = "skipped"
    FAULTY = "faulty"  # it was asked for, and cannot be; a person should look at it


class Listed(Noun):
    """A member of the start document's `processing`."""

    name: str
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    target: Name | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """Something that is over, or for viewers begins, with all that is known of it.

    :param afters: what it counts as; a run of a batch is also a point of it.
    :param status: exit status of the run, or outcome of the batch.
    :param run: of a batch as a whole: its last run.
    :param batch: what is known of the batch, for the placeholders `{batch...}`.
    """

    afters: frozenset[After]
    subject: Subject
    status: str
    run: RunDocuments
    batch: Mapping[str, Any] | None = None

    @classmethod
    def of_start(cls, run: RunDocuments, batch: Mapping[str, Any] | None = None) -> Ending:
        """A run that begins."""
        subject, _ = _subject_of(run)
        return cls(frozenset({After.START}), subject, "", run, batch or _batch_of(subject))

    @classmethod
    def of_run(cls, run: RunDocuments, batch: Mapping[str, Any] | None = None) -> Ending:
        """A run that has its stop document.

        :raises ValueError: if it has none.
        """
        if run.stop is None:
            raise ValueError(f"run {run.uid} has no stop document")
        subject, by_run = _subject_of(run)
        afters = {After.RUN, After.POINT} if by_run else {After.RUN}
        status = str(run.stop.get("exit_status", "success"))
        return cls(frozenset(afters), subject, status, run, batch or _batch_of(subject))

    @classmethod
    def of_point(cls, run: RunDocuments, batch: Mapping[str, Any] | None = None) -> Ending:
        """The last event of a run of which each event is a point of its batch.

        :raises ValueError: if it has none.
        """
        event = run.events.get("primary")
        if event is None:
            raise ValueError(f"run {run.uid} has no event")
        count = int(run.start.get("batch_count", 0)) + int(event["seq_num"]) - 1
        subject = Subject(run=run.uid, batch_id=run.start.get("batch_id"), batch_count=count)
        afters = frozenset({After.POINT})
        return cls(afters, subject, "success", run, batch or _batch_of(subject))

    @classmethod
    def of_batch(cls, run: RunDocuments, batch: Mapping[str, Any], outcome: str) -> Ending:
        """A batch, with its last run."""
        subject = Subject(batch_id=str(batch["batch_id"]))
        return cls(frozenset({After.BATCH}), subject, outcome, run, batch)


def _subject_of(run: RunDocuments) -> tuple[Subject, bool]:
    """A run as what is processed, and whether it is a point of a batch as a whole."""
    batch_id = run.start.get("batch_id")
    by_run = batch_id is not None and run.start.get("batch_mode", "run") == "run"
    count = run.start.get("batch_count", 0) if by_run else None
    return Subject(run=run.uid, batch_id=batch_id, batch_count=count), by_run


def _batch_of(subject: Subject) -> dict[str, Any] | None:
    if subject.batch_id is None:
        return None
    return {"batch_id": subject.batch_id, "batch_count": subject.batch_count}


@dataclass(frozen=True, slots=True)
class Decision:
    """About one recipe: whether it fires, for what, with which parameters, and why.

    :param target: the only one of the recipe's that may be taken; None: any of them, in order.
    """

    recipe: str
    version: str
    verdict: Verdict
    reason: str
    subject: Subject
    parameters: Mapping[str, Any] = field(default_factory=dict)
    target: str | None = None

    @property
    def fires(self) -> bool:
        """Whether a job is to be made of it."""
        return self.verdict is Verdict.FIRES


def evaluate(recipes: Sequence[Recipe], ending: Ending) -> list[Decision]:
    """One decision for each recipe, and one for each listed name that is no recipe's.

    At a run's start there is one for each recipe that fires then; the rest is said at its end.
    """
    listed, faults = _listed(ending.run.start)
    if After.START in ending.afters:
        return [_decide(one, ending, listed) for one in recipes if one.when.after is After.START]
    decisions = [_decide(recipe, ending, listed) for recipe in recipes]
    known = {recipe.name for recipe in recipes}
    for name in listed:
        if name not in known:
            reason = f"no recipe is called {shown(name)}{nearest(name, known)}"
            decisions.append(Decision(name, "", Verdict.FAULTY, reason, ending.subject))
    for fault in faults:
        decisions.append(Decision("", "", Verdict.FAULTY, fault, ending.subject))
    return decisions


def _listed(start: Mapping[str, Any]) -> tuple[dict[str, Listed], list[str]]:
    """What the start document's `processing` lists, and what is wrong with that."""
    asked = start.get("processing")
    if asked is None:
        return {}, []
    members = asked if isinstance(asked, list | tuple) else [asked]
    listed: dict[str, Listed] = {}
    faults: list[str] = []
    for member in members:
        named = {"name": member} if isinstance(member, str) else member
        try:
            one = Listed.model_validate(named)
        except ValidationError as error:
            lines = explain(error, Listed)
            faults.append(f"processing of the start document: {shown(member)}: {lines[0]}")
        else:
            listed[one.name] = one
    return listed, faults


def _decide(recipe: Recipe, ending: Ending, listed: Mapping[str, Listed]) -> Decision:
    asked = listed.get(recipe.name)

    target = asked.target if asked else None

    def decision(verdict: Verdict, reason: str, parameters: Any = None) -> Decision:
        about = (recipe.name, recipe.version, verdict, reason, ending.subject)
        return Decision(*about, parameters or {}, target)

    skipped = _other_occasion(recipe, ending) or _own_result(recipe, ending)
    if skipped is None and asked is None:
        skipped = _unmet(recipe, ending.run.start)
    skipped = skipped or _wrong_status(recipe, ending)
    if skipped is not None:
        return decision(Verdict.SKIPPED, skipped)
    try:
        parameters = with_parameters(recipe, asked.parameters if asked else {})
    except ArgumentError as error:
        return decision(Verdict.FAULTY, str(error))
    if target is not None and target not in recipe.targets:
        return decision(Verdict.FAULTY, _no_target(recipe, target))
    if asked is not None:
        where = f", for {target}" if target else ""
        reason = f"the start document lists it in processing{where}"
        return decision(Verdict.FIRES, reason, parameters)
    return decision(Verdict.FIRES, _met(recipe), parameters)


def _no_target(recipe: Recipe, target: str) -> str:
    near = nearest(target, recipe.targets) or f"; it has {', '.join(recipe.targets)}"
    return f"recipe {recipe.name} has no target {target}{near}"


def _other_occasion(recipe: Recipe, ending: Ending) -> str | None:
    after = recipe.when.after
    if after in ending.afters:
        return None
    is_over = " and a ".join(sorted(ending.afters, reverse=True))
    at = "at the start of a run" if after is After.START else f"after a {after}"
    return f"fires {at}; this is a {is_over}"


def _own_result(recipe: Recipe, ending: Ending) -> str | None:
    made_by = ending.run.start.get("processing_of")
    if made_by is None:
        return None
    if not recipe.when.analysis:
        return "the run is a result of processing, and the recipe does not ask for these"
    made_by = made_by if isinstance(made_by, Mapping) else {}
    chain = made_by.get("chain") or [made_by.get("recipe")]
    if isinstance(chain, list | tuple) and recipe.name in chain:
        return "the run is a result of this very recipe"
    return None


def _unmet(recipe: Recipe, start: Mapping[str, Any]) -> str | None:
    """The first condition on the start document that does not hold."""
    conditions = recipe.when.start
    if conditions is None:
        return "the start document does not list it in processing"
    for key, condition in conditions.items():
        try:
            value, present = lookup(start, key.split("."), "the start document"), True
        except ArgumentError:
            value, present = None, False
        why = condition.unmet(value, present=present)
        if why is not None:
            return f"{key} of the start document {why}"
    return None


def _met(recipe: Recipe) -> str:
    keys = list(recipe.when.start or {})
    if not keys:
        return f"it fires after every {recipe.when.after}"
    return f"the start document has what it asks of {', '.join(keys)}"


def _wrong_status(recipe: Recipe, ending: Ending) -> str | None:
    if After.START in ending.afters:
        return None
    whole_batch = After.BATCH in ending.afters
    wanted: Iterable[str] = recipe.when.outcome if whole_batch else recipe.when.exit_status
    if ending.status in wanted:
        return None
    what = "the batch ended as" if whole_batch else "the run's exit status is"
    return f"{what} {ending.status}, and the recipe takes {', '.join(wanted)}"


def with_parameters(recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a job: the recipe's defaults, and what is given instead.

    :raises ArgumentError: if the recipe has no parameter of a name, or a value is of another
        kind than the default.
    """
    parameters: dict[str, Any] = dict(recipe.parameters)
    for name, value in given.items():
        if name not in parameters:
            near = nearest(name, parameters)
            raise ArgumentError(f"recipe {recipe.name} has no parameter {name}{near}")
        default = parameters[name]
        if _kind(value) != _kind(default):
            kinds = f"{_kind(default)} is expected"
            raise ArgumentError(f"parameter {name}: {shown(value)}: {kinds}")
        parameters[name] = float(value) if isinstance(default, float) else value
    return parameters


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, int | float):
        return "a number"
    return "a text" if isinstance(value, str) else "a list"
