"""Processing of runs: recipes, jobs and their life, and the targets that carry them out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bluesky_plugins.processing.jobs.admission import Admission, admissions
from bluesky_plugins.processing.jobs.job import (
    Attempt,
    Change,
    JobRecord,
    Place,
    Subject,
    submission_of,
)
from bluesky_plugins.processing.jobs.machine import Rules, accept, outstanding, step, story
from bluesky_plugins.processing.jobs.observing import to_poll
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
from bluesky_plugins.processing.recipes.arguments import trigger_argv
from bluesky_plugins.processing.recipes.beamtime import Beamtime, BeamtimeError
from bluesky_plugins.processing.recipes.documents import FileRecord, RunDocuments
from bluesky_plugins.processing.recipes.evaluation import Decision, Ending, Verdict, evaluate
from bluesky_plugins.processing.recipes.paths import PathError, PathMapper, PathPolicy, PathRule
from bluesky_plugins.processing.recipes.placing import Target, job_of, person_job
from bluesky_plugins.processing.recipes.recipe import (
    After,
    Condition,
    Recipe,
    RecipeError,
    RecipeFile,
    When,
    read_recipes,
)
from bluesky_plugins.processing.recipes.templates import ArgumentError
from bluesky_plugins.processing.service.requests import (
    CancelJob,
    ProcessRun,
    RetryJob,
    SubmitJob,
    TriggerMethod,
)
from bluesky_plugins.processing.targets.beamtime_files import checked_key, find_beamtime
from bluesky_plugins.processing.targets.command_runner import LocalRunner
from bluesky_plugins.processing.targets.local import LocalLimits, LocalScheduler
from bluesky_plugins.processing.targets.openssh import OpensshRunner
from bluesky_plugins.processing.targets.ports import (
    AttemptRef,
    CommandRunner,
    Completed,
    Fault,
    Scheduler,
    SubmitRefused,
    TransportError,
)
from bluesky_plugins.processing.targets.slurm import SlurmScheduler

if TYPE_CHECKING:
    from bluesky_plugins.processing.service.acceptance import RunSource, expected_key
    from bluesky_plugins.processing.service.processor import Processor, recipes_of
    from bluesky_plugins.processing.service.store import JobStore, MongoJobStore, StoreDownError
    from bluesky_plugins.processing.service.tally import Tally
    from bluesky_plugins.processing.service.views import explain_run, list_jobs, show_job
    from bluesky_plugins.processing.targets.ssh import AsyncsshRunner
    from bluesky_plugins.processing.trigger import (
        Job,
        JobTimeoutError,
        Trigger,
        asker,
        send_request,
    )

# Extras: asyncssh, and what the services need.
_LAZY = {
    "AsyncsshRunner": "targets.ssh",
    "Job": "trigger",
    "JobStore": "service.store",
    "JobTimeoutError": "trigger",
    "MongoJobStore": "service.store",
    "Processor": "service.processor",
    "RunSource": "service.acceptance",
    "StoreDownError": "service.store",
    "Tally": "service.tally",
    "Trigger": "trigger",
    "asker": "trigger",
    "expected_key": "service.acceptance",
    "explain_run": "service.views",
    "list_jobs": "service.views",
    "recipes_of": "service.processor",
    "send_request": "trigger",
    "show_job": "service.views",
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
    "Tally",
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
