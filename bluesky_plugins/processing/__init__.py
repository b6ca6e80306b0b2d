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
from bluesky_plugins.processing.slurm import SlurmScheduler
from bluesky_plugins.processing.templates import ArgumentError

if TYPE_CHECKING:
    from bluesky_plugins.processing.ssh import AsyncsshRunner
    from bluesky_plugins.processing.store import JobStore, MongoJobStore, StoreDownError

# Extras: asyncssh, and what the services need.
_LAZY = {
    "AsyncsshRunner": "ssh",
    "JobStore": "store",
    "MongoJobStore": "store",
    "StoreDownError": "store",
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
    "JobRecord",
    "JobState",
    "JobStore",
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
    "Recipe",
    "RecipeError",
    "RecipeFile",
    "Resources",
    "ResultRecord",
    "ResultSpec",
    "Rules",
    "RunDocuments",
    "Scheduler",
    "SlurmScheduler",
    "StoreDownError",
    "Subject",
    "Submission",
    "SubmitRefused",
    "Target",
    "TransportError",
    "Verdict",
    "When",
    "accept",
    "admissions",
    "checked_key",
    "evaluate",
    "find_beamtime",
    "job_key",
    "job_of",
    "outstanding",
    "person_job",
    "read_recipes",
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
