"""The targets that the settings name, each with its scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from bluesky_plugins.processing.model import Login, Resources
from bluesky_plugins.processing.recipes.paths import PathRule
from bluesky_plugins.processing.recipes.placing import Target
from bluesky_plugins.processing.targets.beamtime_files import target_at_beamtime
from bluesky_plugins.processing.targets.command_runner import LocalRunner
from bluesky_plugins.processing.targets.local import LocalLimits, LocalScheduler
from bluesky_plugins.processing.targets.logins import LoginOf, LoginScheduler
from bluesky_plugins.processing.targets.openssh import OpensshRunner
from bluesky_plugins.processing.targets.ports import CommandRunner, Scheduler
from bluesky_plugins.processing.targets.slurm import SlurmScheduler
from bluesky_plugins.settings import (
    BeamtimeSettings,
    ConfigurationError,
    LocalTargetSettings,
    Settings,
    SlurmTargetSettings,
    state_dir,
)

__all__ = ["Site", "sites_of"]


@dataclass(frozen=True)
class Site:
    """A target and how it is reached.

    :param open: makes its scheduler; called on the event loop that uses it, with what tells the
        account of a job.
    :param limits: line of it -> largest number of its jobs under way; of one that is not named
        the target itself says when it is full.
    :param beamtime: where it is written as whom and on what its jobs run; None: it does not
        depend on a beamtime.
    """

    target: Target
    kind: str
    open: Callable[[LoginOf], Scheduler]
    limits: Mapping[str, int] = field(default_factory=dict)
    beamtime: BeamtimeSettings | None = None

    def target_for(self, paths: Sequence[str]) -> Target:
        """The target for a job on these files; their beamtime's metadata is read now."""
        if self.beamtime is None:
            return self.target
        about = self.beamtime
        return target_at_beamtime(self.target, about.root, about.work_dir, paths)


def sites_of(settings: Settings) -> dict[str, Site]:
    """The targets of the settings by their names.

    :raises ConfigurationError: if one of them cannot be.
    """
    found = settings.processing.all_targets
    return {name: _site(name, about) for name, about in found.items()}


def _site(name: str, about: LocalTargetSettings | SlurmTargetSettings) -> Site:
    try:
        rules = tuple(PathRule.model_validate(rule.model_dump()) for rule in about.paths)
        if isinstance(about, LocalTargetSettings):
            target = Target(name=name, paths=rules, programs=about.programs, here=True)
            target.mapper()
            limits = {name: about.jobs, f"{name} (viewers)": about.viewers}
            return Site(target, "local", lambda _: _local(name, about), limits)
        resources = Resources.model_validate(about.resources)
        target = Target(name=name, paths=rules, programs=about.programs, resources=resources)
        target.mapper()
        cluster = {} if about.limit is None else {name: about.limit}
        return Site(target, "slurm", lambda who: _cluster(about, who), cluster, about.beamtime)
    except (ValidationError, ValueError) as error:
        raise ConfigurationError(f"setting processing.targets.{name}: {error}") from None


def _local(name: str, about: LocalTargetSettings) -> Scheduler:
    folder = about.work_dir or state_dir() / "jobs" / name
    limits = LocalLimits(jobs=about.jobs, viewers=about.viewers, memory_mb=about.memory_mb)
    return LocalScheduler(Path(folder).absolute(), limits=limits, log_mb=about.log_mb)


def _cluster(about: SlurmTargetSettings, login_of: LoginOf) -> Scheduler:
    if about.beamtime is None:
        return _slurm(about, about.work_dir or "")
    return LoginScheduler(login_of, lambda login: _slurm(_as(about, login), login.work_dir))


def _as(about: SlurmTargetSettings, login: Login) -> SlurmTargetSettings:
    """The settings with the account of a beamtime."""
    update = {"host": login.host, "user": login.user, "keys": (Path(login.key),)}
    return about.model_copy(update=update)


def _slurm(about: SlurmTargetSettings, work_dir: str) -> Scheduler:
    return SlurmScheduler(
        _runner(about),
        work_dir,
        python=about.python,
        cluster=about.cluster,
        patience_s=about.patience_seconds,
        log_mb=about.log_mb,
    )


def _runner(about: SlurmTargetSettings) -> CommandRunner:
    if about.via == "here" or about.host is None:
        return LocalRunner()
    if about.via == "openssh":
        destination = about.host if about.user is None else f"{about.user}@{about.host}"
        return OpensshRunner(
            destination,
            port=about.port,
            keys=about.keys,
            known_hosts=about.known_hosts,
            config=about.ssh_config,
        )
    from bluesky_plugins.processing.targets.ssh import AsyncsshRunner

    return AsyncsshRunner(
        about.host,
        port=about.port,
        username=about.user,
        keys=about.keys,
        known_hosts=about.known_hosts,
        config=None if about.ssh_config is None else [about.ssh_config],
    )
