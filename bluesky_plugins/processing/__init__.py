"""Processing of runs: recipes, jobs and their life, and the targets that carry them out."""

from __future__ import annotations

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

__all__ = [
    "EndReason",
    "Found",
    "JobState",
    "Observation",
    "OutputFile",
    "Resources",
    "ResultRecord",
    "ResultSpec",
    "Submission",
    "job_key",
]
