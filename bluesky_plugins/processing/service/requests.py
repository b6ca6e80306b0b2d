"""What people ask of processing: requests on the `jobs` topic, and posts to a job."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, TypeAdapter

from bluesky_plugins.processing.model import (
    Argv,
    JobKey,
    JobKind,
    Name,
    Noun,
    Resources,
    ResultSpec,
)

__all__ = [
    "CancelJob",
    "Post",
    "PostKind",
    "ProcessRun",
    "Request",
    "RetryJob",
    "SubmitJob",
    "TriggerMethod",
    "parse_request",
]

Text = Annotated[str, StringConstraints(max_length=1000)]
Uid = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]


class TriggerMethod(StrEnum):
    """Where a person's job goes."""

    REMOTE_COMMAND = "remote_command"  # a program, through Slurm
    REMOTE_SBATCH_SCRIPT = "remote_sbatch_script"  # a script, through Slurm
    LOCAL_BASH_SCRIPT = "local_bash_script"  # a program or script on this machine
    AUTO = "auto"  # Slurm where it can be reached, else this machine
    SLURM_REST_API = "slurm_rest_api"  # known by name, not supported


class _Request(Noun):
    uid: Uid = Field(description="of the request; one that comes again is carried out once")
    time: float = Field(description="seconds since the epoch")
    by: Text = ""
    reason: Text = ""


class SubmitJob(_Request):
    """Carry out a program."""

    request: Literal["submit"] = "submit"
    name: Name = "trigger"
    argv: Argv
    method: TriggerMethod = TriggerMethod.REMOTE_SBATCH_SCRIPT
    resources: Resources = Field(default_factory=Resources)
    kind: JobKind = "batch"
    result: ResultSpec | None = None


class ProcessRun(_Request):
    """Process a recorded run by a recipe; the job that did it stands, unless it is `again`."""

    request: Literal["process"] = "process"
    run: Text
    recipe: Name
    again: bool = False


class CancelJob(_Request):
    """Stop a job."""

    request: Literal["cancel"] = "cancel"
    key: JobKey


class RetryJob(_Request):
    """Try a job again that has ended."""

    request: Literal["retry"] = "retry"
    key: JobKey


Request = Annotated[SubmitJob | ProcessRun | CancelJob | RetryJob, Field(discriminator="request")]
_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)


def parse_request(doc: Any) -> Request:
    """A request from its document.

    :raises pydantic.ValidationError: if it is none.
    """
    return _REQUEST.validate_python(doc)


class PostKind(StrEnum):
    """What is asked of a job that is stored."""

    ACCEPTED = "accepted"  # it is new: take it up
    CANCEL = "cancel"
    RETRY = "retry"


class Post(Noun):
    """Something asked of a job, kept until whoever drives the jobs has done it."""

    uid: str
    key: JobKey
    kind: PostKind
    time: float = Field(description="seconds since the epoch")
    by: str = ""
    reason: str = ""
    cause: str = Field("", description="the message that it came by")
