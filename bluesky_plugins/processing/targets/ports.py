"""What the service asks of a target, and what may go wrong there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from bluesky_plugins.processing.model import Found, Observation, Submission

__all__ = [
    "AttemptRef",
    "CommandRunner",
    "Completed",
    "Fault",
    "Scheduler",
    "SubmitRefused",
    "TransportError",
]

# Job key, attempt, and the scheduler's id of it as far as it is known.
AttemptRef = tuple[str, int, str | None]


class Fault(StrEnum):
    """Why a target could not be talked to."""

    UNKNOWN_HOST = "unknown_host"  # no address for its name
    REFUSED = "refused"  # nobody listens there
    UNREACHABLE = "unreachable"  # no answer, no route
    HOST_KEY = "host_key"  # not the host that is known, or none is known
    AUTHENTICATION = "authentication"  # wrong account, or its key is not taken
    CUT = "cut"  # the connection ended before the command did
    TIMED_OUT = "timed_out"  # the command did
    NO_PROGRAM = "no_program"  # a program that is needed is not there
    SCHEDULER = "scheduler"  # the host answers, its scheduler does not
    FOLDER = "folder"  # the working folder cannot be written or read
    ANSWER = "answer"  # what came back makes no sense


class TransportError(Exception):
    """A target could not be asked; nothing is known about the job by this.

    :param reason: one sentence for people, the other side's own words in it.
    :param doubtful: whether the command may have had its effect all the same.
    """

    def __init__(self, reason: str, *, doubtful: bool, fault: Fault) -> None:
        super().__init__(reason)
        self.reason = reason
        self.doubtful = doubtful
        self.fault = fault


class SubmitRefused(Exception):  # noqa: N818 - an answer, not a failure
    """The scheduler did not take an attempt, for certain.

    :param reason: the scheduler's own sentence.
    :param permanent: the same submission will never be taken there.
    :param pressure: it will be, when there is less to do.
    """

    def __init__(self, reason: str, *, permanent: bool, pressure: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.permanent = permanent
        self.pressure = pressure


@dataclass(frozen=True)
class Completed:
    """A command that came to its end."""

    exit_status: int  # negative: the number of the signal that ended it
    stdout: bytes
    stderr: bytes


class CommandRunner(Protocol):
    """Runs commands on one host. No word of a command is read by a shell."""

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", within: float) -> Completed:
        """Run a command to its end.

        :param within: it is given up after this time, s.
        :raises TransportError: if it did not run, or its end is not known.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection; the runner may be used again."""
        ...


class Scheduler(Protocol):
    """A target: takes attempts of jobs and says how they stand."""

    async def submit(self, submission: Submission) -> str:
        """Hand over one attempt; the scheduler's id of it.

        The same attempt may be handed over again: it is carried out once.

        :raises SubmitRefused: if it is not taken.
        :raises TransportError: if that is not known, or the target was not reached.
        """
        ...

    async def find(self, keys: Sequence[str]) -> dict[str, list[Found]]:
        """What the scheduler knows of these jobs, whatever their state, in submission order.

        Of a job that is missing in the answer nothing is known.

        :raises TransportError: if it cannot be asked.
        """
        ...

    async def poll(self, attempts: Sequence[AttemptRef]) -> dict[tuple[str, int], Observation]:
        """How each of these attempts stands, by one query for all.

        Of an attempt that is missing in the answer nothing is known.

        :raises TransportError: if that cannot be known; nothing has changed then.
        """
        ...

    async def cancel(self, key: str, attempt: int) -> None:
        """Ask for the end of one attempt, waiting or running, and of its duplicates.

        Never a proof that it came. An attempt that is not there yet will not start.

        :raises TransportError: if the target was not reached.
        """
        ...

    async def logs(self, key: str, attempt: int, limit: int) -> tuple[str, str]:
        """The ends of stdout and stderr, each at most `limit` characters.

        :raises TransportError: if the target was not reached.
        """
        ...

    async def expected_start(self, submission: Submission) -> float | None:
        """When it would start if it were submitted now, s since the epoch; None: not known.

        :raises SubmitRefused: if it would not be taken.
        :raises TransportError: if the target was not reached.
        """
        ...

    async def close(self) -> None:
        """Let go of connections. Jobs go on."""
        ...
