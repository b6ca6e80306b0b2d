"""The nouns between what decides about jobs and what carries them out.

A job has one key for ever and is tried in attempts 1, 2...; of an attempt a scheduler gets a
`Submission`, and says what it sees of it as an `Observation`. What ended an attempt is its
`ResultRecord`, written by the job wrapper on the target. All of this is data and does nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
)

__all__ = [
    "FINAL",
    "MAX_ARGUMENT_BYTES",
    "MAX_ARGV_BYTES",
    "MAX_TAIL",
    "Argv",
    "EndReason",
    "Environment",
    "Found",
    "JobKey",
    "JobKind",
    "JobState",
    "Login",
    "Name",
    "Noun",
    "NumberName",
    "Observation",
    "OutputFile",
    "RelativePath",
    "Resources",
    "ResultRecord",
    "ResultSpec",
    "SafeText",
    "Submission",
    "VariableName",
    "Word",
    "job_key",
    "job_name",
    "unsafe",
]

# Linux refuses a longer single argument (MAX_ARG_STRLEN, the final NUL counted).
MAX_ARGUMENT_BYTES = 131_071
# Half of what Linux takes for arguments and environment together at its default stack limit.
MAX_ARGV_BYTES = 1_048_576
# Characters kept of the end of each of a job's two streams.
MAX_TAIL = 16_384


class Noun(BaseModel):
    """Base of all: an unknown field is an error, an instance does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# ---- text that reaches another machine


def unsafe(text: str) -> str | None:
    """Why no program can be given this text as an argument; None if it can.

    Spaces, quotes, `$()`, newlines and whatever else a shell would read are fine: there is none.
    """
    if "\0" in text:
        return "it holds a NUL"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "it cannot be written as UTF-8"
    if size > MAX_ARGUMENT_BYTES:
        return f"it is longer than {MAX_ARGUMENT_BYTES} bytes"
    return None


def _safe(text: str) -> str:
    why = unsafe(text)
    if why:
        raise ValueError(why)
    return text


SafeText = Annotated[str, AfterValidator(_safe)]


def _program_and_arguments(argv: tuple[str, ...]) -> tuple[str, ...]:
    if not argv or not argv[0]:
        raise ValueError("the first word is the program and must not be empty")
    if sum(len(word.encode()) + 1 for word in argv) > MAX_ARGV_BYTES:
        raise ValueError(f"all words together are longer than {MAX_ARGV_BYTES} bytes")
    return argv


Argv = Annotated[tuple[SafeText, ...], AfterValidator(_program_and_arguments)]


def _below(path: str) -> str:
    if not path or path.startswith("/") or ".." in path.split("/"):
        raise ValueError("a path below the working directory is expected: relative, without ..")
    return path


RelativePath = Annotated[str, AfterValidator(_safe), AfterValidator(_below)]
VariableName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=255)
]
Environment = dict[VariableName, SafeText]
# Of recipes and targets. Without a dot, so that processing.<recipe>.<number> can be taken apart.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
NumberName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
# Of what a scheduler knows by name: never taken for an option, nothing to be quoted.
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,@:+-]{0,254}$")]
JobKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


# ---- identity


def job_key(
    subject: str, recipe: str, version: str, parameters: Mapping[str, Any], fresh: str = ""
) -> str:
    """The key of a job: sha256, 64 hexadecimal digits, of all that makes it this job.

    :param subject: uid of the run, or of the batch, that is processed.
    :param parameters: JSON values; their order does not count.
    :param fresh: an id of its own for a job that shall be a new one each time.
    :raises ValueError: if a parameter is no JSON value or not finite.
    """
    try:
        text = json.dumps(
            ["bluesky-plugins job", subject, recipe, version, dict(parameters), fresh],
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        )
    except TypeError as error:
        raise ValueError(f"a parameter is no JSON value: {error}") from None
    return hashlib.sha256(text.encode()).hexdigest()


def job_name(key: str) -> str:
    """The name by which a scheduler knows all attempts of a job."""
    return f"bp-{key[:16]}"


# ---- states


class JobState(StrEnum):
    """Where a job, or an attempt of it, is."""

    ACCEPTED = "accepted"  # known and stored
    DEFERRED = "deferred"  # its target takes no more for now; waits in order, never dropped
    SUBMITTING = "submitting"  # written down before it is done; its outcome may be doubtful
    QUEUED = "queued"  # the scheduler has it
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"  # neither in the queue nor recorded; stays, whatever comes later

    @property
    def final(self) -> bool:
        """Whether an attempt in this state has come to its end."""
        return self in FINAL


FINAL = frozenset(
    {
        JobState.SUCCEEDED,
        JobState.FAILED,
        JobState.TIMED_OUT,
        JobState.CANCELLED,
        JobState.LOST,
    }
)


class EndReason(StrEnum):
    """What ended the program of an attempt, as its wrapper saw it."""

    EXITED = "exited"  # by itself; the exit code says how
    SIGNALLED = "signalled"  # by a signal that the wrapper did not send
    TIMED_OUT = "timed_out"
    MEMORY = "memory"  # over its memory limit
    CANCELLED = "cancelled"
    NOT_STARTED = "not_started"  # no such program, or it may not be executed
    NO_RESULT = "no_result"  # exited with 0, but its result file lacks what the recipe names


# ---- what a scheduler is given


JobKind = Literal["batch", "viewer"]


class Resources(Noun):
    """What an attempt needs of its target; None leaves it to the target."""

    partition: Word | None = None
    reservation: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    nodes: int | None = Field(None, ge=1, le=10_000, description="number of nodes")
    tasks: int | None = Field(None, ge=1, le=1_000_000, description="number of tasks")
    cpus: int | None = Field(None, ge=1, le=10_000, description="CPUs per task")
    memory_mb: int | None = Field(None, ge=1, description="memory per node, MB; a hard limit")
    gpus: int | None = Field(None, ge=1, le=1_000, description="GPUs per node")
    features: tuple[Word, ...] = Field((), description="features a node must have, all of them")
    time_limit_s: float | None = Field(
        None, gt=0, le=31_536_000, allow_inf_nan=False, description="time the program may take, s"
    )


class Login(Noun):
    """Where and as whom a job is submitted, if not as its target's own account."""

    host: Word = Field(description="its name")
    user: Word
    key: SafeText = Field(description="absolute path of the account's ssh key, on this host")
    work_dir: SafeText = Field(description="folder of its jobs there, absolute")


class ResultSpec(Noun):
    """How the numbers of a job come back."""

    file: RelativePath = Field(
        "numbers.json",
        description="JSON object, written by the program; below its working directory",
    )
    numbers: tuple[NumberName, ...] = Field(
        min_length=1, description="keys of that object; a job without one of them has failed"
    )


class Submission(Noun):
    """One attempt of one job, as a scheduler gets it."""

    key: JobKey
    attempt: int = Field(ge=1)
    argv: Argv
    environment: Environment = Field(default_factory=dict)
    directory: SafeText | None = Field(
        None, description="working directory on the target; None: the attempt's own folder"
    )
    resources: Resources = Field(default_factory=Resources)
    kind: JobKind = Field("batch", description="a viewer has no time limit and gets the display")
    outputs: tuple[RelativePath, ...] = Field(
        (), description="paths or glob patterns below the working directory, for the manifest"
    )
    result: ResultSpec | None = None

    @property
    def job_name(self) -> str:
        """The name by which the scheduler knows all attempts of this job."""
        return job_name(self.key)


# ---- what a scheduler says


class Found(Noun):
    """What the scheduler's own queue says of one of its jobs."""

    native_id: str = Field(max_length=255, description="the scheduler's id of it")
    state: JobState
    reason: str = Field("", max_length=4096, description="in the scheduler's own words")
    expected: FiniteFloat | None = Field(
        None, description="when it is to start, of one that waits; seconds since the epoch"
    )
    suspended: bool = Field(False, description="it stands still, and so does its wrapper")
    attempt: int | None = Field(None, ge=1, description="which one it is, where that can be told")


class OutputFile(Noun):
    """A file that the program left below its working directory."""

    path: str = Field(max_length=4096, description="absolute, as the target sees it")
    size: int = Field(ge=0, description="bytes")
    mtime: FiniteFloat = Field(description="seconds since the epoch")


class ResultRecord(Noun):
    """How an attempt ended: written once by its wrapper, and decisive."""

    key: JobKey
    attempt: int = Field(ge=1)
    reason: EndReason
    exit_code: int | None = Field(None, description="of the program, if it exited")
    signal: int | None = Field(None, description="that ended the program, if one did")
    detail: str = Field("", max_length=4096, description="one sentence on what went wrong")
    host: str = Field("", max_length=255)
    native_id: str = Field("", max_length=255, description="the scheduler's id, seen from inside")
    started: FiniteFloat = Field(description="seconds since the epoch")
    ended: FiniteFloat = Field(description="seconds since the epoch")
    numbers: dict[NumberName, FiniteFloat] = Field(default_factory=dict)
    outputs: tuple[OutputFile, ...] = Field((), max_length=10_000)
    stdout: str = Field("", max_length=MAX_TAIL, description="its end")
    stderr: str = Field("", max_length=MAX_TAIL, description="its end")

    @property
    def state(self) -> JobState:
        """The final state that this record means."""
        match self.reason:
            case EndReason.TIMED_OUT:
                return JobState.TIMED_OUT
            case EndReason.CANCELLED:
                return JobState.CANCELLED
            case EndReason.EXITED if self.exit_code == 0:
                return JobState.SUCCEEDED
            case _:
                return JobState.FAILED


class Observation(Noun):
    """What one poll of a target saw of one attempt."""

    found: Found | None = Field(None, description="what the queue says, if it knows the attempt")
    heartbeat: float | None = Field(None, ge=0, description="age of the wrapper's last sign, s")
    record: ResultRecord | None = None
    gone: bool = Field(False, description="the scheduler answered, and does not know the attempt")
