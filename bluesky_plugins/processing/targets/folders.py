"""The folder of an attempt on a target: where it is, what goes in, what comes out."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

from pydantic import ValidationError

from bluesky_plugins.processing.model import Found, Observation, ResultRecord, Submission
from bluesky_plugins.processing.targets import job_report

__all__ = [
    "HEARTBEAT_S",
    "LOG_MB",
    "checked_work_dir",
    "folder_of",
    "observation",
    "specification",
]

HEARTBEAT_S = 5.0
GRACE_S = 5.0
LOG_MB = 100
# Slurm reads % and \ in the names of files; the rest is no text that a path should hold.
WORK_DIR = re.compile(r"/[^\x00-\x1f\x7f%\\]{0,1023}")
LOG = logging.getLogger(__name__)


def checked_work_dir(path: str) -> str:
    """A target's working folder, without what Slurm would read something into.

    :raises ValueError: if it is not absolute, holds `..`, control characters, % or a backslash.
    """
    if not WORK_DIR.fullmatch(path) or ".." in path.split("/"):
        raise ValueError(
            f"working folder {path!r}: an absolute path is expected, without .., %, \\ "
            "and control characters"
        )
    return path.rstrip("/") or "/"


def folder_of(work_dir: str, key: str, attempt: int) -> str:
    """Where an attempt lives below a target's working folder."""
    return str(job_report.folder_of(work_dir, key, attempt))


def specification(
    submission: Submission, heartbeat_s: float = HEARTBEAT_S, log_mb: int = LOG_MB
) -> bytes:
    """What the job wrapper is told to do, as the text of its `spec.json`.

    :param heartbeat_s: how often the wrapper gives a sign, s.
    :param log_mb: of each of stdout and stderr this much is kept, MB.
    """
    batch, result = submission.kind == "batch", submission.result
    spec: dict[str, Any] = {
        "key": submission.key,
        "attempt": submission.attempt,
        "argv": list(submission.argv),
        "environment": submission.environment,
        "directory": submission.directory,
        "time_limit_s": submission.resources.time_limit_s if batch else None,
        "memory_mb": submission.resources.memory_mb,
        "outputs": list(submission.outputs),
        "result": {"file": result.file, "numbers": list(result.numbers)} if result else None,
        "heartbeat_s": heartbeat_s,
        "grace_s": GRACE_S,
        "log_mb": log_mb,
    }
    return json.dumps(spec).encode()


def _record(text: str, key: str, attempt: int) -> ResultRecord | None:
    try:
        record = ResultRecord.model_validate_json(text)
    except ValidationError as error:
        LOG.warning("the record of job %s attempt %d cannot be read: %s", key, attempt, error)
        return None
    if (record.key, record.attempt) != (key, attempt):
        LOG.warning("the record of job %s attempt %d is of another one", key, attempt)
        return None
    return record


def observation(key: str, attempt: int, found: Found | None, seen: dict[str, Any]) -> Observation:
    """What a queue and a folder say of one attempt.

    :param found: what the queue said, before the folder was looked at.
    :param seen: what `job_report.look` says of it.
    """
    text, beat = seen["record"], seen["heartbeat"]
    record = None if text is None else _record(text, key, attempt)
    gone = found is None and record is None and not seen["later"]
    return Observation(found=found, heartbeat=beat, record=record, gone=gone)
