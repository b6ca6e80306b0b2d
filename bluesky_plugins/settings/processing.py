"""The section `processing`: recipes, and the targets that carry jobs out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bluesky_plugins.settings.section import Section

__all__ = [
    "BeamtimeSettings",
    "LocalTargetSettings",
    "PathSettings",
    "ProcessingSettings",
    "SlurmTargetSettings",
    "TargetSettings",
]


class PathSettings(Section):
    """What lies here under `local` lies under `remote` on a target."""

    view: str = Field("core", description="core, beamline, or any other name")
    local: str = Field(description="absolute path at the beamline")
    remote: str = Field(description="absolute path of the same folder on the target")


def _programs(given: dict[str, str]) -> dict[str, str]:
    for name, path in given.items():
        if not name or "/" in name:
            raise ValueError(f"{name!r} is not the name of a program: it is empty or has a slash")
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"{name}: {path!r} is not an absolute path")
    return given


Programs = Annotated[dict[str, str], AfterValidator(_programs)]
LOG_MB = "of each of stdout and stderr of a job this much is kept, MB; what is more is dropped"
PROGRAMS = "name -> absolute path there, of a job whose program is called by that name"


class BeamtimeSettings(Section):
    """Where a facility writes down what it has reserved for a beamtime.

    The metadata file of the beamtime that a run's files belong to names the account, its ssh key,
    the nodes, the partition and the reservation of a job.
    """

    root: str = Field(
        "/gpfs",
        pattern=r"^/",
        description="folder of the beamline's file system; below it `current` (of users) and "
        "`commissioning`",
    )
    work_dir: str = Field(
        "scratch_cc/bluesky-plugins",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_/-]*$",
        description="folder of the jobs, below the beamtime's folder in the core file system; the "
        "folder above it must be there",
    )


class LocalTargetSettings(Section):
    """A target that is this machine."""

    kind: Literal["local"] = Field("local", description="this machine")
    work_dir: Path | None = Field(
        None, description="folder of the jobs; unset: <state-dir>/jobs/<name of the target>"
    )
    jobs: int = Field(2, ge=1, description="jobs that run at a time, at most")
    viewers: int = Field(4, ge=1, description="viewers that run at a time, at most")
    memory_mb: int | None = Field(None, ge=1, description="of all jobs together, MB")
    log_mb: int = Field(100, ge=1, description=LOG_MB)
    paths: tuple[PathSettings, ...] = Field((), description="how it sees files of this host")
    programs: Programs = Field(default_factory=dict, description=PROGRAMS)


class SlurmTargetSettings(Section):
    """A target that is a cluster."""

    kind: Literal["slurm"] = Field(description="a cluster")
    via: Literal["here", "asyncssh", "openssh"] = Field(
        "here", description="where Slurm's commands are run: on this host, or by SSH"
    )
    host: str | None = Field(None, description="login host; for openssh as `ssh` takes it")
    port: int | None = Field(None, ge=1, le=65535, description="of its sshd")
    user: str | None = Field(None, description="account there")
    keys: tuple[Path, ...] = Field((), description="files of private keys")
    known_hosts: Path | None = Field(None, description="unset: the user's own file")
    ssh_config: Path | None = Field(None, description="unset: the user's own ~/.ssh/config")
    work_dir: str | None = Field(
        None,
        description="folder of the jobs, on a file system that all nodes share; needed unless "
        "`beamtime` is set",
    )
    beamtime: BeamtimeSettings | None = Field(
        None, description="set: account and nodes come from the metadata of the run's beamtime"
    )
    python: str = Field("python3", description="Python 3.6 or later, there")
    cluster: str | None = Field(None, description="name of one of several clusters")
    limit: int | None = Field(None, ge=1, description="jobs under way at a time, at most")
    patience_seconds: float = Field(
        60.0, gt=0, description="a command that is not done after this is given up, s"
    )
    resources: dict[str, Any] = Field(
        default_factory=dict,
        description="partition, account...; of jobs that do not name their own",
    )
    log_mb: int = Field(100, ge=1, description=LOG_MB)
    paths: tuple[PathSettings, ...] = Field((), description="how it sees files of this host")
    programs: Programs = Field(default_factory=dict, description=PROGRAMS)

    @model_validator(mode="after")
    def _has_host(self) -> Self:
        if self.beamtime is not None:
            return self._of_a_beamtime()
        if self.via != "here" and self.host is None:
            raise ValueError(f"via {self.via} needs a host")
        if self.work_dir is None:
            raise ValueError("work_dir is missing")
        return self

    def _of_a_beamtime(self) -> Self:
        if self.via == "here":
            raise ValueError("beamtime needs via: asyncssh or openssh")
        for name in ("host", "user", "keys", "work_dir"):
            if getattr(self, name):
                raise ValueError(f"{name} comes from the beamtime's metadata: it is not set here")
        return self


TargetSettings = Annotated[LocalTargetSettings | SlurmTargetSettings, Field(discriminator="kind")]


class ProcessingSettings(Section):
    """Processing of runs: which recipes there are, and where their jobs are carried out."""

    recipes: Path | None = Field(None, description="YAML file of recipes; unset: none")
    targets: dict[str, TargetSettings] = Field(
        default_factory=dict,
        description="name -> `{kind: local|slurm, ...}`; without one of kind local, `local` is "
        "this machine",
    )
    group_id: str = Field("processing", description="consumer group, prefixed by the beamline")
    poll_seconds: float = Field(1.0, gt=0, description="between two polls of a target, s")
    lease_seconds: float = Field(
        15.0, gt=0, description="another instance takes the jobs over after this silence, s"
    )
    stored_seconds: float = Field(
        30.0, gt=0, description="how long documents of a run are awaited in the database, s"
    )
    submit_seconds: float = Field(
        120.0, gt=0, description="a submission without an answer for this long is doubtful, s"
    )
    doubt_seconds: float = Field(
        20.0,
        gt=0,
        description="a submission of which nobody knows is searched for this long before it is "
        "repeated, s",
    )
    heartbeat_seconds: float = Field(
        300.0, gt=0, description="a job that is silent for this long is stopped, s"
    )
    gone_seconds: float = Field(
        30.0, gt=0, description="a job of which there is no sign for this long is at its end, s"
    )

    @property
    def all_targets(self) -> dict[str, LocalTargetSettings | SlurmTargetSettings]:
        """`targets`, and this machine as `local` where none of them is of that kind."""
        if "local" in self.targets or any(t.kind == "local" for t in self.targets.values()):
            return dict(self.targets)
        return {**self.targets, "local": LocalTargetSettings()}
