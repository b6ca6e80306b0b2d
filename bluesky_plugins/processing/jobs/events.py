"""What the machine of a job is told, and what it has the shell do.

All times are in seconds since the epoch and come from the shell. `cause` says for the job's
story where an event came from: a message's topic, partition and offset, a poll's number, a
person. An event that is about an attempt names it, because it may come when that is over.
The time of `Observed` and `Searched` is when the scheduler was asked, so that an old answer is
known as one; that of the answers to a submission is when they came.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bluesky_plugins.processing.model import Found, Observation

__all__ = [
    "Admitted",
    "Announce",
    "Announced",
    "Cancel",
    "CancelRequested",
    "Command",
    "Doubtful",
    "Event",
    "Expected",
    "Find",
    "Held",
    "NotSent",
    "Observed",
    "PollFailed",
    "Publish",
    "Published",
    "Recovered",
    "Refused",
    "RetryRequested",
    "Searched",
    "Submit",
    "Submitted",
    "Tick",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    time: float
    cause: str = ""


# ---- on the way to the scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted(_Event):
    """Its target has room for it now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(_Event):
    """Its target has no room for it; it keeps its place in the line."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted(_Event):
    """The scheduler took it and gave it an id."""

    attempt: int
    native_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(_Event):
    """The scheduler answered that it does not take it.

    `permanent`: it never will. Otherwise it is full (pressure), or it failed in a way that
    may pass.
    """

    attempt: int
    submission: int
    reason: str
    permanent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSent(_Event):
    """The scheduler could not be asked: it certainly did not take it."""

    attempt: int
    submission: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubtful(_Event):
    """The scheduler was asked, and nobody knows what came of it."""

    attempt: int
    submission: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched(_Event):
    """All that the scheduler of this attempt knows under the job's name."""

    attempt: int
    found: tuple[Found, ...] = ()


# ---- what is seen of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed(_Event):
    """What a poll saw of an attempt."""

    attempt: int
    observation: Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class PollFailed(_Event):
    """A poll or a search of its target failed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected(_Event):
    """The scheduler expects to start it so many seconds from now."""

    attempt: int
    seconds: float


# ---- time, people, and this side


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick(_Event):
    """Time went by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(_Event):
    """Another process takes the job up: what was under way has an unknown outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested(_Event):
    """A person wants it stopped."""

    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRequested(_Event):
    """A person wants it tried again."""

    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published(_Event):
    """Its result went out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced(_Event):
    """The first `changes` lines of its story went out."""

    changes: int


Event = (
    Admitted
    | Held
    | Submitted
    | Refused
    | NotSent
    | Doubtful
    | Searched
    | Observed
    | PollFailed
    | Expected
    | Tick
    | Recovered
    | CancelRequested
    | RetryRequested
    | Published
    | Announced
)

# ---- commands: carried out after the job that asks for them is stored


@dataclass(frozen=True, slots=True)
class Submit:
    """Give the attempt to its scheduler; tell Submitted, Refused, NotSent or Doubtful.

    `submission` counts from 1 within the attempt; what is told carries it back.
    """

    attempt: int
    submission: int
    target: str


@dataclass(frozen=True, slots=True)
class Find:
    """Look the job up by its name; tell Searched, or PollFailed."""

    attempt: int
    target: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop it, all that there is of it, and keep it from starting if it comes later.

    What comes of that is seen by polls.
    """

    attempt: int
    target: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish the numbers, under uids derived from the job's key; tell Published."""

    attempt: int
    numbers: dict[str, float] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Announce:
    """Publish the changes from this one on, under uids derived from key and number."""

    first: int


Command = Submit | Find | Cancel | Publish | Announce
