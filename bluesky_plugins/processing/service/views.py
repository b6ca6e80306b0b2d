"""What people see of jobs, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bluesky_plugins.processing.jobs.job import JobRecord
from bluesky_plugins.processing.jobs.machine import story
from bluesky_plugins.processing.recipes.evaluation import Decision, Ending, evaluate
from bluesky_plugins.processing.recipes.recipe import Recipe
from bluesky_plugins.processing.service.acceptance import RunSource, documents_of
from bluesky_plugins.processing.service.store import JobStore

__all__ = ["explain_run", "list_jobs", "show_job"]

# Jobs of one run that are looked at.
OF_RUN = 1000


def list_jobs(
    store: JobStore, query: Mapping[str, str | None], *, limit: int = 50, skip: int = 0
) -> dict[str, Any]:
    """One page of jobs, the newest first.

    :param query: of `state`, `recipe`, `run`, `batch_id`: value; None: any.
    :returns: `total` and `jobs`.
    :raises StoreDownError: if the store does not answer.
    """
    given = {name: value for name, value in query.items() if value is not None}
    total, jobs = store.find(given, limit=limit, skip=skip)
    return {"total": total, "jobs": [_summary(job) for job in jobs]}


def _summary(job: JobRecord) -> dict[str, Any]:
    return {
        "key": job.key,
        "recipe": job.recipe,
        "run": job.subject.run,
        "batch_id": job.subject.batch_id,
        "batch_count": job.subject.batch_count,
        "state": job.state.value,
        "reason": job.reason,
        "target": job.place.target,
        "attempt": job.attempt.number,
        "accepted": job.accepted,
        "since": job.attempt.since,
        "numbers": job.numbers,
    }


def show_job(store: JobStore, key: str) -> dict[str, Any] | None:
    """All about a job: why it ran, where, with which words, how often, and what came back.

    :param key: its key, or the beginning of it, 6 digits or more.
    :returns: None if there is none.
    :raises ValueError: if several begin so.
    :raises StoreDownError: if the store does not answer.
    """
    job = store.job(key)
    if job is None:
        return None
    return {
        **_summary(job),
        "because": job.because,
        "version": job.version,
        "parameters": job.parameters,
        "kind": job.kind,
        "argv": list(job.place.argv),
        "places": [
            place.model_dump(mode="json", exclude_defaults=True, exclude={"login": {"key"}})
            for place in job.places
        ],
        "submissions": sum(attempt.submissions for attempt in job.attempts),
        "attempts": [_attempt(job, number) for number in range(len(job.attempts))],
        "outputs": _outputs(job),
        "published": job.published,
        "story": [line.model_dump(mode="json") for line in story(job)],
    }


def _outputs(job: JobRecord) -> list[dict[str, Any]]:
    """The files of the newest attempt: where its target has them, and where this host does."""
    record = job.attempt.record or job.attempt.late_record
    return [
        {**file.model_dump(mode="json"), "here": job.place.seen_here(file.path)}
        for file in (record.outputs if record is not None else ())
    ]


def _attempt(job: JobRecord, index: int) -> dict[str, Any]:
    attempt = job.attempts[index]
    shown = {"number", "state", "reason", "native_id", "submissions", "created", "started", "since"}
    return {
        **attempt.model_dump(mode="json", include=shown),
        "target": job.places[attempt.place].target,
        "record": None if attempt.record is None else attempt.record.model_dump(mode="json"),
        "late_record": (
            None if attempt.late_record is None else attempt.late_record.model_dump(mode="json")
        ),
    }


def explain_run(
    store: JobStore, recipes: Sequence[Recipe], source: RunSource, uid: str
) -> dict[str, Any] | None:
    """For every recipe why it did or did not fire for a run, and what came of it.

    :param recipes: as they are now; what is said of jobs that exist is as it was then.
    :returns: None if there is no such run, or it is not over.
    :raises StoreDownError: if the store does not answer.
    """
    run = documents_of(source, uid)
    if run is None:
        return None
    _, jobs = store.find({"run": run.uid}, limit=OF_RUN)
    begun = {one.recipe: one for one in evaluate(recipes, Ending.of_start(run))}
    decisions = [begun.get(one.recipe, one) for one in evaluate(recipes, Ending.of_run(run))]
    named = {decision.recipe for decision in decisions}
    return {
        "run": run.uid,
        "exit_status": (run.stop or {}).get("exit_status"),
        "recipes": [_explained(decision, jobs) for decision in decisions],
        "other_jobs": [_reasoned(job) for job in jobs if job.recipe not in named],
    }


def _explained(decision: Decision, jobs: Sequence[JobRecord]) -> dict[str, Any]:
    return {
        "recipe": decision.recipe,
        "version": decision.version,
        "verdict": decision.verdict.value,
        "reason": decision.reason,
        "jobs": [_reasoned(job) for job in jobs if job.recipe == decision.recipe],
    }


def _reasoned(job: JobRecord) -> dict[str, Any]:
    return {**_summary(job), "because": job.because}
