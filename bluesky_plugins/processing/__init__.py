"""Processing of runs: recipes, jobs and their life, and the targets that carry them out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bluesky_plugins.processing.admission import Admission, admissions
from bluesky_plugins.processing.arguments import trigger_argv
from bluesky_plugins.processing.beamtime import Beamtime, BeamtimeError
from bluesky_plugins.processing.beamtime_files import checked_key, find_beamtime
from bluesky_plugins.processing.command_runner import LocalRunner
from bluesky_plugins.processing.documents import FileRecord, RunDocuments
from bluesky_plugins.processing.job import Attempt, Change, JobRecord, Place, Subject, submission_of
from bluesky_plugins.processing.local import LocalLimits, LocalScheduler
from bluesky_plugins.processing.machine import Rules, accept, outstanding, step, story
from bluesky_plugins.processing.model import (
    EndReason,
    Found,
    JobState,
    Observation,
    OutputFile,
    Resources,
    ResultRecord,
    ResultSpec,
    Submission,
    job_key,
)
from bluesky_plugins.processing.observing import to_poll
from bluesky_plugins.processing.openssh import OpensshRunner
from bluesky_plugins.processing.paths import PathError, PathMapper, PathPolicy, PathRule
from bluesky_plugins.processing.placing import Target, job_of, person_job
from bluesky_plugins.processing.ports import (
    AttemptRef,
    CommandRunner,
    Completed,
    Fault,
    Scheduler,
    SubmitRefused,
    TransportError,
)
from bluesky_plugins.processing.recipe import (
    After,
    Condition,
    Recipe,
    RecipeError,
    RecipeFile,
    When,
    read_recipes,
)
from bluesky_plugins.processing.recipes import Decision, Ending, Verdict, evaluate
from bluesky_plugins.processing.requests import (
    CancelJob,
    ProcessRun,
    RetryJob,
    SubmitJob,
    TriggerMethod,
)
from bluesky_plugins.processing.slurm import SlurmScheduler
from bluesky_plugins.processing.templates import ArgumentError

if TYPE_CHECKING:
    from bluesky_plugins.processing.acceptance import RunSource, expected_key
    from bluesky_plugins.processing.service import Processor, recipes_of
    from bluesky_plugins.processing.ssh import AsyncsshRunner
    from bluesky_plugins.processing.store import JobStore, MongoJobStore, StoreDownError
    from bluesky_plugins.processing.trigger import (
        Job,
        JobTimeoutError,
        Trigger,
        asker,
        send_request,
    )
    from bluesky_plugins.processing.views import explain_run, list_jobs, show_job

# Extras: asyncssh, and what the services need.
_LAZY = {
    "AsyncsshRunner": "ssh",
    "Job": "trigger",
    "JobStore": "store",
    "JobTimeoutError": "trigger",
    "MongoJobStore": "store",
    "Processor": "service",
    "RunSource": "acceptance",
    "StoreDownError": "store",
    "Trigger": "trigger",
    "asker": "trigger",
    "expected_key": "acceptance",
    "explain_run": "views",
    "list_jobs": "views",
    "recipes_of": "service",
    "send_request": "trigger",
    "show_job": "views",
}

__all__ = [
    "Admission",
    "After",
    "ArgumentError",
    "AsyncsshRunner",
    "Attempt",
    "AttemptRef",
    "Beamtime",
    "BeamtimeError",
    "CancelJob",
    "Change",
    "CommandRunner",
    "Completed",
    "Condition",
    "Decision",
    "EndReason",
    "Ending",
    "Fault",
    "FileRecord",
    "Found",
    "Job",
    "JobRecord",
    "JobState",
    "JobStore",
    "JobTimeoutError",
    "LocalLimits",
    "LocalRunner",
    "LocalScheduler",
    "MongoJobStore",
    "Observation",
    "OpensshRunner",
    "OutputFile",
    "PathError",
    "PathMapper",
    "PathPolicy",
    "PathRule",
    "Place",
    "ProcessRun",
    "Processor",
    "Recipe",
    "RecipeError",
    "RecipeFile",
    "Resources",
    "ResultRecord",
    "ResultSpec",
    "RetryJob",
    "Rules",
    "RunDocuments",
    "RunSource",
    "Scheduler",
    "SlurmScheduler",
    "StoreDownError",
    "Subject",
    "Submission",
    "SubmitJob",
    "SubmitRefused",
    "Target",
    "TransportError",
    "Trigger",
    "TriggerMethod",
    "Verdict",
    "When",
    "accept",
    "admissions",
    "asker",
    "checked_key",
    "evaluate",
    "expected_key",
    "explain_run",
    "find_beamtime",
    "job_key",
    "job_of",
    "list_jobs",
    "outstanding",
    "person_job",
    "read_recipes",
    "recipes_of",
    "send_request",
    "show_job",
    "step",
    "story",
    "submission_of",
    "to_poll",
    "trigger_argv",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
