"""What a facility writes down about a beamtime: who computes where, and until when.

DESY's IT puts one JSON file into the folder of each user beamtime and each commissioning run.
If nodes are reserved for it, the file names the account, its ssh key, the nodes, the partition
and the reservation. It has many more keys, which are not ours and are passed over.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bluesky_plugins.processing.explaining import explain
from bluesky_plugins.processing.model import Login, Noun, Resources, Word
from bluesky_plugins.processing.recipes.paths import PathRule
from bluesky_plugins.processing.recipes.placing import Target, merged

__all__ = [
    "Beamtime",
    "BeamtimeError",
    "BeamtimeKind",
    "Online",
    "at_beamtime",
    "chosen_file",
    "key_fault",
    "read_beamtime",
    "session_folders",
]

ARCHIVE = re.compile(r"/asap3/[^/]+/gpfs/[^/]+/\d{4}/(?:data|commissioning)/[^/]+(?=/|$)")


class BeamtimeError(ValueError):
    """The beamtime's metadata is not there, not usable, or reserves nothing."""


class BeamtimeKind(StrEnum):
    """Whose beamtime it is; the name of its folder at the beamline."""

    USER = "current"
    COMMISSIONING = "commissioning"


HOW_TO_RESERVE = {
    BeamtimeKind.USER: "reserve some with: startBeamtime ... --online",
    BeamtimeKind.COMMISSIONING: "reserve some with: startComissioning ... --online",
}


class Online(Noun):
    """What is reserved for the time of the beamtime."""

    account: str = Field(min_length=1, description="user account, valid for the beamtime only")
    key: str = Field(min_length=1, description="absolute path of the account's ssh key")
    nodes: tuple[str, ...] = Field(min_length=1, description="host names, the first to log in")
    partition: Word
    reservation: Word
    gpus: int | None = Field(None, ge=1, description="GPUs per node")
    features: tuple[Word, ...] = Field((), description="features a node must have")


class Beamtime(Noun):
    """One beamtime."""

    kind: BeamtimeKind
    beamline: str
    beamtime: str = Field(description="its id, or that of the commissioning run")
    folder: str = Field(description="where its metadata file lies, absolute")
    core_path: str = Field(description="its folder in the core file system, absolute")
    online: Online | None = None

    def reserved(self) -> Online:
        """What is reserved.

        :raises BeamtimeError: if nothing is; the text says how to change that.
        """
        if self.online is None:
            what = "beamtime" if self.kind is BeamtimeKind.USER else "commissioning run"
            raise BeamtimeError(
                f"no online nodes are reserved for {what} {self.beamtime} at {self.beamline}; "
                f"{HOW_TO_RESERVE[self.kind]}"
            )
        return self.online

    def path_rules(self) -> tuple[PathRule, ...]:
        """How the reserved nodes see its folder.

        Data are read from the core file system. What is below `processed` is written through
        the mount of the beamline, unless a recipe asks for the view `core`.
        """
        mount = f"/beamline/{self.beamline}/{self.kind.value}"
        return (
            PathRule(view="core", local=self.folder, remote=self.core_path),
            PathRule(
                view="beamline", local=f"{self.folder}/processed", remote=f"{mount}/processed"
            ),
            PathRule(
                view="core", local=f"{self.folder}/processed", remote=f"{self.core_path}/processed"
            ),
        )


# ---- the file


class _Facility(BaseModel):
    # The rest of the file is the facility's own.
    model_config = ConfigDict(extra="ignore", frozen=True)


class _OnlineAnalysis(_Facility):
    userAccount: str = Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")  # noqa: N815 - the file's name
    sshPrivateKeyPath: str = Field(min_length=1)  # noqa: N815
    reservedNodes: tuple[str, ...] = ()  # noqa: N815
    slurmPartition: Word  # noqa: N815
    slurmReservation: str = ""  # noqa: N815
    # Hints that a facility may add.
    slurmGpus: int | None = Field(None, ge=1, le=1000)  # noqa: N815
    slurmFeatures: tuple[Word, ...] = ()  # noqa: N815

    @field_validator("reservedNodes", "slurmFeatures", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        return [one for one in names if one] if isinstance(names, list | tuple) else names

    @field_validator("reservedNodes")
    @classmethod
    def _host_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            # Never to be taken for an option of ssh.
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}", name):
                raise ValueError(f"{name!r} is no host name")
        return value


class _File(_Facility):
    beamline: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    beamtimeId: str | None = Field(None, coerce_numbers_to_str=True)  # noqa: N815
    id: str | None = Field(None, coerce_numbers_to_str=True)
    corePath: str = Field(pattern=r"^/")  # noqa: N815
    onlineAnalysis: _OnlineAnalysis | None = None  # noqa: N815


def read_beamtime(text: str, folder: str) -> Beamtime:
    """A beamtime from its metadata file.

    :param text: what the file holds.
    :param folder: where it lies; relative paths in it start there.
    :raises BeamtimeError: if it is no such file.
    """
    try:
        data = json.loads(text)
        file = _File.model_validate(data)
        beamtime, kind = _identity(file)
        return Beamtime(
            kind=kind,
            beamline=file.beamline,
            beamtime=beamtime,
            folder=folder,
            core_path=file.corePath,
            online=_online(file.onlineAnalysis, folder),
        )
    except ValidationError as error:
        lines = "; ".join(explain(error, _File, data))
        raise BeamtimeError(f"the beamtime's metadata in {folder}: {lines}") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise BeamtimeError(f"the beamtime's metadata in {folder} is no JSON: {error}") from None


def _identity(file: _File) -> tuple[str, BeamtimeKind]:
    if file.beamtimeId:
        return file.beamtimeId, BeamtimeKind.USER
    if file.id:
        return file.id, BeamtimeKind.COMMISSIONING
    raise BeamtimeError("the beamtime's metadata has neither a beamtimeId nor an id")


def _online(file: _OnlineAnalysis | None, folder: str) -> Online | None:
    if file is None or not file.reservedNodes or not file.slurmReservation:
        return None
    key = file.sshPrivateKeyPath
    return Online(
        account=file.userAccount,
        key=key if key.startswith("/") else f"{folder.rstrip('/')}/{key}",
        nodes=file.reservedNodes,
        partition=file.slurmPartition,
        reservation=file.slurmReservation,
        gpus=file.slurmGpus,
        features=file.slurmFeatures,
    )


# ---- where it is


def session_folders(data_path: str | None = None, root: str = "/gpfs") -> tuple[str, ...]:
    """Folders in which the metadata file may lie, in the order to look.

    :param data_path: a file of the beamtime; None: the beamtime that is active.
    :param root: folder of the beamline's file system.
    :raises BeamtimeError: if the path belongs to no beamtime.
    """
    active = tuple(f"{root.rstrip('/')}/{kind.value}" for kind in BeamtimeKind)
    if data_path is None:
        return active
    if not data_path.startswith("/") or ".." in data_path.split("/"):
        raise BeamtimeError(f"{data_path} is no absolute path without ..")
    path = re.sub("/+", "/", data_path)
    for folder in active:
        if path == folder or path.startswith(f"{folder}/"):
            return (folder,)
    matched = ARCHIVE.match(path)
    if matched is None:
        raise BeamtimeError(
            f"{data_path} belongs to no beamtime: it is below none of {', '.join(active)}"
        )
    return (matched[0],)


def chosen_file(folder: str, names: Sequence[str]) -> str:
    """The metadata file of a folder, of the names of the files in it.

    :raises BeamtimeError: if there is none, or more than one.
    """
    found = sorted(name for name in names if "metadata" in name and name.endswith(".json"))
    if not found:
        how = f"{HOW_TO_RESERVE[BeamtimeKind.USER]} (or startComissioning ... --online)"
        raise BeamtimeError(f"{folder} has no metadata file of a beamtime; {how}")
    if len(found) > 1:
        raise BeamtimeError(f"{folder} has more than one metadata file: {', '.join(found)}")
    return f"{folder}/{found[0]}"


def key_fault(mode: int, owner: int, me: int) -> str | None:
    """Why an ssh key must not be used; None if it may.

    :param mode: of the file, as `os.stat` gives it.
    :param owner: uid of its owner.
    :param me: uid of this process.
    """
    if not stat.S_ISREG(mode):
        return "it is no file"
    if owner not in (me, 0):
        return f"it belongs to another user ({owner})"
    permissions = stat.S_IMODE(mode)
    if permissions & 0o077:
        return f"others may read or write it ({permissions:04o}); chmod it to 0600"
    return None


# ---- what it means for a job


def at_beamtime(target: Target, beamtime: Beamtime, work_dir: str) -> Target:
    """A target for the jobs of a beamtime: as its account, on what is reserved for it.

    What the file says stands before the target's own resources, and behind the recipe's.

    :param work_dir: folder of the jobs, below the beamtime's folder in the core file system.
    :raises BeamtimeError: if it has reserved nothing, or its folders and the target's paths
        cannot be told apart.
    """
    online = beamtime.reserved()
    needs = Resources(
        partition=online.partition,
        reservation=online.reservation,
        gpus=online.gpus,
        features=online.features,
    )
    login = Login(
        host=online.nodes[0],
        user=online.account,
        key=online.key,
        work_dir=f"{beamtime.core_path.rstrip('/')}/{work_dir}",
    )
    placed = target.model_copy(
        update={
            "paths": (*target.paths, *beamtime.path_rules()),
            "resources": merged(needs, target.resources),
            "login": login,
            "note": _note(beamtime, needs, login),
        }
    )
    try:
        placed.mapper()
    except ValueError as error:
        raise BeamtimeError(f"the paths of target {target.name}: {error}") from None
    return placed


def _note(beamtime: Beamtime, needs: Resources, login: Login) -> str:
    found = {
        "account": login.user,
        "node": login.host,
        **needs.model_dump(exclude_defaults=True),
    }
    said = ", ".join(f"{name} {_words(value)}" for name, value in found.items())
    return f"beamtime {beamtime.beamtime} at {beamtime.beamline} ({beamtime.folder}) gives {said}"


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
