"""What goes out about a job: its changes, its numbers as an analysis run, and for its batch.

All uids are derived from the job's key, so that what goes out again is the same.
"""

from __future__ import annotations

import uuid
from typing import Any

from bluesky_plugins.processing.jobs.job import Change, JobRecord
from bluesky_plugins.processing.model import JobState, ResultRecord
from bluesky_plugins.processing.recipes.evaluation import Decision

__all__ = [
    "Outgoing",
    "alert_of",
    "changes_of",
    "dependent_key",
    "derived_uid",
    "result_documents",
    "result_of",
    "unfired_result",
    "wanted_recipes",
]

# Short name of the topic, key, name of the document, document.
Outgoing = tuple[str, str, str, dict[str, Any]]
# Fixed for ever, as all derived ids are.
NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")


def derived_uid(*parts: str | int) -> str:
    """A uuid5 that depends on nothing but `parts`."""
    text = "\x1f".join(map(str, ("bluesky-plugins", "processing", *parts)))
    return str(uuid.uuid5(NAMESPACE, text))


def dependent_key(recipe: str, number: str) -> str:
    """What a number of a recipe is called as a dependent key of a recommender."""
    return f"processing.{recipe}.{number}"


# ---- changes


def changes_of(job: JobRecord) -> list[Outgoing]:
    """The lines of its story that have not gone out."""
    return [_change(job, line) for line in job.history[job.announced :]]


def _change(job: JobRecord, line: Change) -> Outgoing:
    attempt = job.attempts[line.attempt - 1]
    doc = {
        "uid": derived_uid("change", job.key, line.number),
        "key": job.key,
        "recipe": job.recipe,
        "run": job.subject.run,
        "batch_id": job.subject.batch_id,
        "target": job.places[attempt.place].target,
        "native_id": attempt.native_id,
        **line.model_dump(mode="json"),
    }
    return "jobs", job.key, "change", doc


# ---- results


def result_documents(job: JobRecord) -> list[Outgoing]:
    """The analysis run with the numbers of a job that succeeded.

    :raises ValueError: if it has none.
    """
    record = job.attempt.record
    if record is None or not job.numbers:
        raise ValueError(f"job {job.key} has no numbers")
    start = _start(job, record)
    run = start["uid"]
    descriptor = {
        "uid": derived_uid("descriptor", job.key),
        "run_start": run,
        "time": record.ended,
        "name": "primary",
        "data_keys": {name: _data_key(job) for name in job.numbers},
        "configuration": {},
        "object_keys": {job.recipe: list(job.numbers)},
        "hints": {job.recipe: {"fields": list(job.numbers)}},
    }
    event = {
        "uid": derived_uid("event", job.key),
        "descriptor": descriptor["uid"],
        "seq_num": 1,
        "time": record.ended,
        "data": dict(job.numbers),
        "timestamps": dict.fromkeys(job.numbers, record.ended),
        "filled": {},
    }
    stop = {
        "uid": derived_uid("stop", job.key),
        "run_start": run,
        "time": record.ended,
        "exit_status": "success",
        "reason": "",
        "num_events": {"primary": 1},
    }
    documents = {"start": start, "descriptor": descriptor, "event": event, "stop": stop}
    return [("analysis", run, name, doc) for name, doc in documents.items()]


def _start(job: JobRecord, record: ResultRecord) -> dict[str, Any]:
    return {
        "uid": derived_uid("start", job.key),
        "time": record.started,
        # No series of their own: the scan numbers are of measured runs.
        "plan_name": "processing",
        "recipe": {"name": job.recipe, "version": job.version, "parameters": job.parameters},
        "processing_of": {
            "run": job.subject.run,
            "batch_id": job.subject.batch_id,
            "batch_count": job.subject.batch_count,
            "key": job.key,
            "recipe": job.recipe,
            "chain": [*job.chain, job.recipe],
        },
        "processed_on": {"target": job.place.target, "host": record.host},
        "outputs": [output.path for output in record.outputs],
    }


def _data_key(job: JobRecord) -> dict[str, Any]:
    return {
        "dtype": "number",
        "shape": [],
        "source": f"processing:{job.recipe}:{job.key}",
        "object_name": job.recipe,
    }


def result_of(job: JobRecord) -> list[Outgoing]:
    """What the log of a job's batch gets when the job has ended; nothing without a batch.

    A batch may wait for the numbers, so it is told of other ends as well: without values, and
    with the reason.
    """
    batch_id, run = job.subject.batch_id, job.subject.run
    if batch_id is None or run is None or job.result is None or not job.state.final:
        return []
    numbers = job.numbers.items()
    record = job.attempt.record
    doc = {
        "uid": derived_uid("result", job.key, *_end(job)),
        "batch_id": batch_id,
        "run": run,
        "batch_count": job.subject.batch_count,
        "key": job.key,
        "recipe": job.recipe,
        "state": job.state.value,
        "reason": job.reason,
        "values": {dependent_key(job.recipe, name): value for name, value in numbers},
        "time": record.ended if record is not None else job.attempt.since,
    }
    return [("adaptive", batch_id, "result", doc)]


def wanted_recipes(dependent_keys: Any) -> set[str]:
    """The recipes that a recommender's dependent keys name."""
    keys = dependent_keys if isinstance(dependent_keys, list | tuple) else ()
    parts = [str(key).split(".") for key in keys]
    return {part[1] for part in parts if len(part) == 3 and part[0] == "processing"}


def unfired_result(decision: Decision, time: float) -> Outgoing:
    """What the log of a batch gets when a recipe that it wants does not fire: it has no job.

    :param time: of what is over, seconds since the epoch.
    :raises ValueError: if the decision is about no batch.
    """
    subject = decision.subject
    if subject.batch_id is None:
        raise ValueError(f"{subject.uid} belongs to no batch")
    count = "" if subject.batch_count is None else subject.batch_count
    doc: dict[str, Any] = {
        "uid": derived_uid("unfired", subject.uid, count, decision.recipe),
        "batch_id": subject.batch_id,
        "run": subject.run,
        "batch_count": subject.batch_count,
        "key": "",
        "recipe": decision.recipe,
        "state": JobState.FAILED.value,
        "reason": f"it did not fire: {decision.reason}",
        "values": {},
        "time": time,
    }
    return "adaptive", subject.batch_id, "result", doc


def _end(job: JobRecord) -> tuple[int, ...]:
    """What tells one end of a job from another: success there is only one."""
    return () if job.state is JobState.SUCCEEDED else (job.attempt.number,)


# ---- what a person should look at


def alert_of(decision: Decision, time: float) -> Outgoing:
    """A recipe was asked for and cannot be."""
    subject = decision.subject
    doc = {
        "uid": derived_uid(
            "alert", subject.uid, subject.batch_count or 0, decision.recipe, decision.reason
        ),
        "source": "processing",
        "time": time,
        "run": subject.run,
        "batch_id": subject.batch_id,
        "recipe": decision.recipe,
        "reason": decision.reason,
    }
    return "alerts", subject.uid, "alert", doc
