"""The jobs of processing over HTTP, in the recommender's API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from bluesky_plugins.adaptive.store import BatchStore
from bluesky_plugins.adaptive.views import decided_point
from bluesky_plugins.processing import (
    JobState,
    Processor,
    StoreDownError,
    TransportError,
    list_jobs,
    show_job,
)

__all__ = ["add_jobs"]


class JobPage(BaseModel):
    """One page of jobs, newest first."""

    total: int = Field(description="jobs on all pages")
    jobs: list[dict[str, Any]]


class JobLogs(BaseModel):
    """What the newest attempt of a job said."""

    stdout: str = Field(description="its end")
    stderr: str = Field(description="its end")


def add_jobs(
    app: FastAPI,
    processor_of: Callable[..., Processor],
    batches_of: Callable[..., BatchStore],
) -> None:
    """Add the routes.

    :param processor_of: the dependency that gives the processor to those who may have it.
    :param batches_of: that which gives the batches.
    """
    app.add_exception_handler(StoreDownError, _no_store)
    app.add_exception_handler(TransportError, _no_target)
    _add_list(app, processor_of)
    _add_one(app, processor_of, batches_of)
    _add_logs(app, processor_of)


def _no_store(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": f"MongoDB does not answer: {error}"}, 503)


def _no_target(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": f"the target was not reached: {error}"}, 504)


def _add_list(app: FastAPI, processor_of: Callable[..., Processor]) -> None:
    @app.get("/api/jobs", summary="Jobs, newest first")
    def jobs(
        processor: Processor = Depends(processor_of),
        state: JobState | None = None,
        recipe: str | None = None,
        run: str | None = None,
        batch_id: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        skip: Annotated[int, Query(ge=0, le=10**9)] = 0,
    ) -> JobPage:
        query = {"state": state, "recipe": recipe, "run": run, "batch_id": batch_id}
        found = list_jobs(processor.store, query, limit=limit, skip=skip)
        return JobPage.model_validate(found)


def _add_one(
    app: FastAPI,
    processor_of: Callable[..., Processor],
    batches_of: Callable[..., BatchStore],
) -> None:
    @app.get(
        "/api/jobs/{key}",
        summary="A job: why it ran, where, how, what came back, and which point it decided",
    )
    def job(
        key: str,
        processor: Processor = Depends(processor_of),
        batches: BatchStore = Depends(batches_of),
    ) -> dict[str, Any]:
        try:
            found = show_job(processor.store, key)
        except ValueError as error:
            raise HTTPException(409, str(error)) from None
        if found is None:
            raise HTTPException(404, f"there is no job {key}")
        return {**found, "decided": decided_point(batches, found["batch_id"], found["key"])}


def _add_logs(app: FastAPI, processor_of: Callable[..., Processor]) -> None:
    @app.get("/api/jobs/{key}/logs", summary="The ends of a job's stdout and stderr")
    def logs(key: str, processor: Processor = Depends(processor_of)) -> JobLogs:
        try:
            stdout, stderr = processor.logs(key)
        except ValueError as error:
            raise HTTPException(409, str(error)) from None
        except KeyError:
            raise HTTPException(404, f"there is no job {key}") from None
        return JobLogs(stdout=stdout, stderr=stderr)
