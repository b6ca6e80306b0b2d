"""Jobs of processing: which there are, why they ran, what came back; stop and repeat them."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from bluesky_plugins.cli.views import (
    as_text,
    as_time,
    fail,
    json_option,
    limit_option,
    show_json,
    show_table,
)
from bluesky_plugins.settings import Settings, load_settings

__all__ = ["jobs"]

TAKEN_S = 20.0
HTTP_S = 30.0
UNENDED = ("accepted", "deferred", "submitting", "queued", "running")
STATES = (*UNENDED, "succeeded", "failed", "timed_out", "cancelled", "lost")
reason_option = click.option("--reason", default="", help="Why, for the job's story.")


@contextmanager
def _store_answers() -> Iterator[None]:
    from bluesky_plugins.messaging import MessagingError
    from bluesky_plugins.processing import StoreDownError

    try:
        yield
    except StoreDownError as error:
        fail(f"MongoDB does not answer ({error}); is the stack up? `bluesky-plugins doctor`")
    except MessagingError as error:
        fail(f"Kafka does not take it ({error}); is the stack up? `bluesky-plugins doctor`")


def _store(settings: Settings) -> Any:
    from bluesky_plugins.processing import MongoJobStore

    return MongoJobStore.from_settings(settings)


@click.group()
def jobs() -> None:
    """Jobs of processing: which there are, why, what came back; cancel, retry, submit."""


@jobs.command("list")
@json_option
@limit_option
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@click.option("--run", help="Only of this run, by its uid.")
@click.option("--batch", "batch_id", help="Only of this batch.")
@click.option("--recipe", help="Only of this recipe.")
def list_command(as_json: bool, limit: int, **query: str) -> None:
    """Jobs, the newest first."""
    from bluesky_plugins.processing import list_jobs

    with _store_answers():
        found = list_jobs(_store(load_settings()), query, limit=limit)
    if as_json:
        show_json(found["jobs"])
        return
    columns = {
        "key": _short,
        "recipe": as_text,
        "state": as_text,
        "target": as_text,
        "run": as_text,
    }
    show_table(found["jobs"], {**columns, "reason": as_text, "accepted": as_time})
    click.echo(f"{len(found['jobs'])} of {found['total']}")


def _short(value: Any) -> str:
    return str(value)[:16]


@jobs.command("show")
@click.argument("key")
@json_option
def show_command(key: str, as_json: bool) -> None:
    """A job by its key or the beginning of it: why, where, what came back, what it decided."""
    found = _shown(key)
    found = {**found, "decided": _decided(found)}
    if as_json:
        show_json(found)
        return
    click.echo(f"{found['key']}: {found['state']}, {found['reason']}")
    click.echo(f"recipe {found['recipe']}, for run {found['run']}: {found['because']}")
    click.echo(f"on {found['target']}, submitted {found['submissions']} times: {found['argv']}")
    if found["numbers"]:
        click.echo(f"found {found['numbers']}")
    if (decided := found["decided"]) is not None:
        about = f"count {decided['batch_count']} of batch {found['batch_id']}"
        click.echo(f"decided the answer to {about}: {decided['action']} {decided['point']}")
    for file in found["outputs"]:
        click.echo(f"left {file['here'] or file['path']}, {file['size']} bytes")
    click.echo("\nStory:")
    for line in found["story"]:
        about = f"  {as_time(line['time']):19}  {line['attempt']!s:>3}  {line['state']:10}"
        click.echo(f"{about}  {line['text']}")


def _decided(found: dict[str, Any]) -> dict[str, Any] | None:
    """The answer of a batch that came from it, if any did."""
    from pymongo.errors import PyMongoError

    from bluesky_plugins.adaptive import BatchStore, decided_point

    store = BatchStore.from_settings(load_settings())
    try:
        return decided_point(store, found["batch_id"], found["key"])
    except PyMongoError as error:
        fail(f"MongoDB does not answer ({error}); is the stack up? `bluesky-plugins doctor`")
    finally:
        store.close()
    return None


def _shown(key: str) -> dict[str, Any]:
    from bluesky_plugins.processing import show_job

    try:
        with _store_answers():
            found = show_job(_store(load_settings()), key)
    except ValueError as error:
        fail(str(error), status=2)
    if found is None:
        fail(f"there is no job {key}; `bluesky-plugins jobs list` shows those there are")
    return found or {}


@jobs.command("logs")
@click.argument("key")
@json_option
def logs_command(key: str, as_json: bool) -> None:
    """What a job said: the ends of its stdout and stderr."""
    found = _shown(key)
    newest = found["attempts"][-1]
    record = newest["record"] or newest["late_record"]
    said = record if record is not None else _logs_over_http(load_settings(), found["key"])
    if as_json:
        show_json({"key": found["key"], "stdout": said["stdout"], "stderr": said["stderr"]})
        return
    click.echo(said["stdout"], nl=False)
    click.echo(said["stderr"], nl=False, err=True)


def _logs_over_http(settings: Settings, key: str) -> dict[str, str]:
    """Of a job that has not ended: the service asks its target."""
    http = settings.http
    request = urllib.request.Request(
        f"http://{http.host}:{http.recommender_port}/api/jobs/{key}/logs"
    )
    if (secret := http.key()) is not None:
        request.add_header("Authorization", f"ApiKey {secret}")
    try:
        with urllib.request.urlopen(request, timeout=HTTP_S) as answer:  # noqa: S310
            return dict(json.load(answer))
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        fail(f"the recommender does not answer ({reason}); a job that ended needs none")
    return {"stdout": "", "stderr": ""}


@jobs.command("cancel")
@click.argument("key")
@reason_option
@json_option
def cancel_command(key: str, reason: str, as_json: bool) -> None:
    """Stop a job."""
    _asked_of("cancel", key, reason, as_json)


@jobs.command("retry")
@click.argument("key")
@reason_option
@json_option
def retry_command(key: str, reason: str, as_json: bool) -> None:
    """Try a job again that has ended."""
    _asked_of("retry", key, reason, as_json)


def _asked_of(what: str, key: str, reason: str, as_json: bool) -> None:
    from bluesky_plugins.processing import CancelJob, RetryJob, asker, send_request

    found = _shown(key)
    about = {"uid": str(uuid.uuid4()), "by": asker(), "reason": reason, "key": found["key"]}
    if (why := _in_vain(what, found)) is not None:
        fail(why)
    kind = CancelJob if what == "cancel" else RetryJob
    with _store_answers():
        send_request(load_settings(), kind.model_validate({**about, "time": time.time()}))
    if as_json:
        show_json({"key": found["key"], "request": about["uid"], "asked": what})
    else:
        click.echo(f"asked to {what} {found['key']}; `jobs show` says what came of it")


def _in_vain(what: str, found: dict[str, Any]) -> str | None:
    """Why nothing would come of it; None: something will."""
    state, key = found["state"], found["key"][:16]
    if what == "cancel":
        # One that is lost may be about to be tried again.
        over = state not in UNENDED and state != "lost"
        return f"job {key} has ended: it is {state}" if over else None
    if state in UNENDED:
        return (
            f"job {key} has not ended: it is {state}; `bluesky-plugins jobs cancel {key}` stops it"
        )
    if state == "succeeded":
        return f"job {key} has succeeded; `bluesky-plugins jobs submit --again` makes a new one"
    return None


@jobs.command("explain")
@click.argument("run")
@json_option
def explain_command(run: str, as_json: bool) -> None:
    """For every recipe why it did or did not fire for a run, and what came of it."""
    from bluesky_plugins.cli.recorded_runs import RecordedRuns
    from bluesky_plugins.processing import explain_run, recipes_of

    settings = load_settings()
    with _store_answers():
        source = RecordedRuns(settings)
        found = explain_run(_store(settings), recipes_of(settings), source, run)
    if found is None:
        fail(f"run {run} is not recorded, or not over; `bluesky-plugins runs list` shows runs")
    elif as_json:
        show_json(found)
    else:
        _print_explained(found)


def _print_explained(found: dict[str, Any]) -> None:
    for one in found["recipes"]:
        click.echo(f"{one['recipe'] or '(none)'}: {one['verdict']}, {one['reason']}")
        for job in one["jobs"]:
            click.echo(f"  job {job['key'][:16]}: {job['state']}, {job['reason']}")
    if not found["recipes"]:
        click.echo("there is no recipe (processing.recipes)")
    for job in found["other_jobs"]:
        click.echo(f"{job['recipe']}, which is no recipe now: {job['because']}")
        click.echo(f"  job {job['key'][:16]}: {job['state']}, {job['reason']}")


@jobs.command("submit")
@click.option("--recipe", required=True, help="Its name.")
@click.option("--run", required=True, help="Uid of the recorded run.")
@click.option("--again", is_flag=True, help="A new job, although there is one; needs --reason.")
@reason_option
@json_option
def submit_command(recipe: str, run: str, again: bool, reason: str, as_json: bool) -> None:
    """Process a recorded run by a recipe: the same job, unless --again."""
    from bluesky_plugins.processing import ProcessRun, asker, send_request

    if again and not reason:
        fail("--again needs --reason", status=2)
    settings = load_settings()
    request = ProcessRun(
        uid=str(uuid.uuid4()),
        time=time.time(),
        by=asker(),
        reason=reason,
        run=run,
        recipe=recipe,
        again=again,
    )
    job = _expected_job(settings, request)
    with _store_answers():
        send_request(settings, request)
    if as_json:
        show_json({"key": job, "request": request.uid})
    else:
        click.echo(f"job {job}; `bluesky-plugins jobs show {job[:16]}` says what comes of it")


def _expected_job(settings: Settings, request: Any) -> str:
    """The key of the job that the request makes; ends the command if it cannot make one."""
    from bluesky_plugins.cli.recorded_runs import RecordedRuns
    from bluesky_plugins.processing import expected_key, recipes_of

    with _store_answers():
        key, why = expected_key(recipes_of(settings), RecordedRuns(settings), request)
    if key is None:
        fail(why)
    return key or ""
