"""What becomes of something that is over, and of what a person asks: jobs, stored."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import structlog

from bluesky_plugins.processing.jobs.job import JobRecord, key_of
from bluesky_plugins.processing.jobs.machine import accept
from bluesky_plugins.processing.model import Resources
from bluesky_plugins.processing.recipes.documents import RunDocuments
from bluesky_plugins.processing.recipes.evaluation import Decision, Ending, Verdict, evaluate
from bluesky_plugins.processing.recipes.placing import Target, job_of, person_job
from bluesky_plugins.processing.recipes.recipe import After, Recipe
from bluesky_plugins.processing.service.requests import (
    CancelJob,
    Post,
    PostKind,
    ProcessRun,
    Request,
    RetryJob,
    SubmitJob,
    TriggerMethod,
)
from bluesky_plugins.processing.service.results import (
    Outgoing,
    alert_of,
    unfired_result,
    wanted_recipes,
)
from bluesky_plugins.processing.service.store import JobStore, UnstorableError

__all__ = ["Acceptance", "RunSource", "documents_of", "expected_key"]

log = structlog.get_logger(__name__)
Documents = Iterable[tuple[str, Mapping[str, Any]]]
# A viewer of a run that began longer ago is not started, s.
FRESH_S = 60.0
NO_SLURM = "no target of kind slurm is set (processing.targets)"
NO_LOCAL = "no target of kind local is set (processing.targets)"


class RunSource(Protocol):
    """Recorded runs."""

    def documents(self, uid: str) -> Documents | None:
        """The documents of a run in their order, of events at least each stream's last one.

        :returns: None if there is no such run, or it has no stop document yet.
        :raises StoreDownError: if the database does not answer.
        """
        ...

    def last_of_batch(self, batch_id: str) -> str | None:
        """Uid of the last run of a batch.

        :raises StoreDownError: if the database does not answer.
        """
        ...


def documents_of(source: RunSource, uid: str) -> RunDocuments | None:
    """A recorded run; None if there is none, or it is not over."""
    run: RunDocuments | None = None
    for name, doc in source.documents(uid) or ():
        run = RunDocuments(start=doc) if run is None else run.with_document(name, doc)
    return run if run is not None and run.stop is not None else None


def _over_since(run: RunDocuments) -> float:
    """When a run was over, or the last event of one that is not; seconds since the epoch."""
    last = run.stop or run.events.get("primary") or run.start
    return float(last["time"])


def asked_of(
    recipes: Sequence[Recipe], source: RunSource, request: ProcessRun
) -> tuple[Decision, Ending] | str:
    """What a person asks to be processed, or why that cannot be.

    A person may ask for what would not have fired by itself.
    """
    recipe = next((one for one in recipes if one.name == request.recipe), None)
    if recipe is None:
        return f"no recipe is called {request.recipe}"
    run = documents_of(source, request.run)
    if run is None:
        return f"run {request.run} is not recorded, or not over"
    ending = Ending.of_run(run)
    decision = next(one for one in evaluate([recipe], ending) if one.recipe == recipe.name)
    by = f" by {request.by}" if request.by else ""
    because = f"asked for{by}: {request.reason}" if request.reason else f"asked for{by}"
    parameters = decision.parameters if decision.fires else dict(recipe.parameters)
    asked = replace(decision, verdict=Verdict.FIRES, reason=because, parameters=parameters)
    return asked, ending


def fresh_of(request: ProcessRun) -> str:
    """What makes its job a new one; empty: it is the one of the recipe and run."""
    return request.uid if request.again else ""


def expected_key(
    recipes: Sequence[Recipe], source: RunSource, request: ProcessRun
) -> tuple[str | None, str]:
    """The key of the job that a request makes, or None and why it cannot make one.

    :raises StoreDownError: if the database does not answer.
    """
    asked = asked_of(recipes, source, request)
    if isinstance(asked, str):
        return None, asked
    one, ending = asked
    fresh = fresh_of(request)
    return key_of(ending.subject, one.recipe, one.version, one.parameters, fresh), ""


class Acceptance:
    """Makes jobs and stores them, with a post for whoever drives them.

    :param targets: by name, with their kinds.
    :param placed: the target of a name for a job on these files, which may depend on them.
    :param reachable: whether a target answers, and if not, why; for `AUTO`.
    :param alert: sends what a person should look at.
    :param tell: sends what a batch should know.
    :param wanted: recipes that a batch wants whose start documents do not say which.
    """

    def __init__(
        self,
        store: JobStore,
        recipes: Sequence[Recipe],
        targets: Mapping[str, tuple[str, Target]],
        *,
        reachable: Callable[[Target], str | None],
        alert: Callable[[Outgoing], None],
        tell: Callable[[Outgoing], None] = lambda message: None,
        wanted: Collection[str] = (),
        placed: Callable[[str, Sequence[str]], Target] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._recipes = recipes
        self._kinds = {name: kind for name, (kind, _) in targets.items()}
        self._placed = placed or (lambda name, paths: targets[name][1])
        self._reachable = reachable
        self._alert = alert
        self._tell = tell
        self._wanted = frozenset(wanted)
        self._clock = clock

    def ending(self, ending: Ending, cause: str) -> list[JobRecord]:
        """Store the jobs of the recipes that fire; those that are new."""
        now, made = self._clock(), []
        if After.START in ending.afters and now - ending.run.began > FRESH_S:
            return []  # nobody looks at a run that began while this service was away
        for decision in evaluate(self._recipes, ending):
            if decision.verdict is Verdict.FAULTY:
                self._alert(alert_of(decision, now))
            if decision.fires:
                job = self._recipe_job(decision, ending, now)
                made += [job] if self._take(job, cause) else []
            elif self._is_waited_for(decision, ending):
                self._tell(unfired_result(decision, _over_since(ending.run)))
        return made

    def _is_waited_for(self, decision: Decision, ending: Ending) -> bool:
        """Whether a batch may wait for a job of this recipe for this point."""
        of_a_point = After.POINT in ending.afters and ending.subject.batch_id is not None
        if not of_a_point or ending.status != "success":
            return False
        recipe = next((one for one in self._recipes if one.name == decision.recipe), None)
        if recipe is not None and recipe.when.after not in ending.afters:
            return False
        asked = ending.run.start.get("recommender")
        keys = asked.get("dependent_keys") if isinstance(asked, Mapping) else None
        wanted = wanted_recipes(keys) if keys else self._wanted
        return decision.recipe in wanted

    def unforeseen(self, ending: Ending, reason: str) -> None:
        """Something that is over cannot be processed, for a reason that nobody foresaw."""
        fault = Decision("", "", Verdict.FAULTY, f"cannot be processed: {reason}", ending.subject)
        self._alert(alert_of(fault, self._clock()))

    def _recipe_job(self, decision: Decision, ending: Ending, now: float, **more: str) -> JobRecord:
        recipe = next(one for one in self._recipes if one.name == decision.recipe)
        files = [file.path for file in ending.run.files]
        known = (name for name in recipe.targets if name in self._kinds)
        targets = {name: self._placed(name, files) for name in known}
        real = os.path.realpath
        return job_of(recipe, decision, ending, targets, time=now, real=real, **more)

    def _take(self, job: JobRecord, cause: str) -> bool:
        try:
            new = self._store.accept(accept(job, cause))
        except UnstorableError as error:
            log.error("a job cannot be stored", recipe=job.recipe, reason=str(error))
            return False
        uid = f"accepted-{job.key}"
        self._store.post(
            Post(uid=uid, key=job.key, kind=PostKind.ACCEPTED, time=job.accepted, cause=cause)
        )
        if new:
            log.info("accepted", key=job.key, recipe=job.recipe, run=job.subject.run)
        return new

    # ---- people

    def request(self, request: Request, cause: str, source: RunSource) -> str | None:
        """Do what a person asks; None, or why that cannot be."""
        match request:
            case SubmitJob():
                self._take(self._person_job(request), cause)
                return None
            case ProcessRun():
                return self._process(request, cause, source)
            case CancelJob():
                return self._post(request, PostKind.CANCEL, cause)
            case RetryJob():
                return self._post(request, PostKind.RETRY, cause)

    def _post(self, request: CancelJob | RetryJob, kind: PostKind, cause: str) -> str | None:
        if self._store.job(request.key) is None:
            return f"there is no job {request.key}"
        self._store.post(
            Post(
                uid=request.uid,
                key=request.key,
                kind=kind,
                time=request.time,
                by=request.by,
                reason=request.reason,
                cause=cause,
            )
        )
        return None

    def _process(self, request: ProcessRun, cause: str, source: RunSource) -> str | None:
        asked = asked_of(self._recipes, source, request)
        if isinstance(asked, str):
            return asked
        decision, ending = asked
        more = {"fresh": fresh_of(request), "because": decision.reason}
        self._take(self._recipe_job(decision, ending, self._clock(), **more), cause)
        return None

    def _person_job(self, request: SubmitJob) -> JobRecord:
        files = [word for word in request.argv[1:] if word.startswith("/")]
        names, why = self._where(request.method, files)
        by = f" by {request.by}" if request.by else ""
        return person_job(
            request.argv,
            names,
            name=request.name,
            fresh=request.uid,
            time=request.time,
            because=f"asked for{by}: {request.reason or why}",
            resources=request.resources if request.resources != Resources() else None,
            kind=request.kind,
            result=request.result,
            real=os.path.realpath,
        )

    def _where(self, method: TriggerMethod, files: Sequence[str]) -> tuple[list[Target], str]:
        """The targets of a method, in order, and why these."""
        kinds = self._kinds.items()
        slurm = [self._placed(name, files) for name, kind in kinds if kind == "slurm"]
        local = [self._placed(name, files) for name, kind in kinds if kind == "local"]
        match method:
            case TriggerMethod.LOCAL_BASH_SCRIPT:
                return local or [Target(name="local", fault=NO_LOCAL)], "on this machine"
            case TriggerMethod.AUTO:
                return self._auto(slurm, local)
            case _:
                return slurm or [Target(name="slurm", fault=NO_SLURM)], "through Slurm"

    def _auto(self, slurm: list[Target], local: list[Target]) -> tuple[list[Target], str]:
        reasons = {one.name: one.fault or self._reachable(one) for one in slurm}
        reached = [target for target in slurm if reasons[target.name] is None]
        if reached:
            why = f"auto: {reached[0].name} can be reached"
            found = [*reached, *local]
        else:
            said = "; ".join(f"{name} cannot be reached: {why}" for name, why in reasons.items())
            why = f"auto: {said or 'no cluster is set'}"
            found = local or [Target(name="local", fault=NO_LOCAL)]
        log.info("method chosen", targets=[target.name for target in found], reason=why)
        return found, why
