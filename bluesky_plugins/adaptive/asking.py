"""Carries out what a batch calls its recommender for, and reads its answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

import numpy as np

from bluesky_plugins.adaptive.recommenders import NoRecommendation, RequestPause

__all__ = [
    "Asked",
    "Call",
    "Calls",
    "Failed",
    "Ingest",
    "NothingMore",
    "Pause",
    "Point",
    "Reject",
    "Reply",
    "Suggest",
    "extended",
    "unrolled",
    "values_of",
]


@dataclass(frozen=True, slots=True)
class Ingest:
    """Rows that were measured: `xs` (rows, independent keys), `ys` (rows, dependent keys)."""

    xs: tuple[tuple[float, ...], ...]
    ys: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Reject:
    """A suggested point was refused."""

    point: Mapping[str, Any]
    reason: str


@dataclass(frozen=True, slots=True)
class Suggest:
    """The next point is asked for; one that is not finite is rejected up to `retries` times."""

    retries: int = 0


Call = Ingest | Reject | Suggest
# All calls so far, newest first, in linked pairs: growing it leaves older states as they are.
Calls = tuple[Call, "Calls"] | None


def extended(calls: Calls, *more: Call) -> Calls:
    """`calls` and then `more`."""
    for call in more:
        calls = (call, calls)
    return calls


def unrolled(calls: Calls) -> list[Call]:
    """The calls in their order."""
    out: list[Call] = []
    while calls is not None:
        call, calls = calls
        out.append(call)
    return out[::-1]


@dataclass(frozen=True, slots=True)
class Point:
    """A point to measure: data key -> position."""

    values: Mapping[str, float]
    reason: str = "recommended"


@dataclass(frozen=True, slots=True)
class NothingMore:
    """The recommender has no further recommendation."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pause:
    """The recommender wants the batch paused."""

    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The recommender raised, or gave what is no point."""

    reason: str


Reply = Point | NothingMore | Pause | Failed


def _method(recommender: Any, *names: str) -> Callable[..., Any]:
    for name in names:
        method = getattr(recommender, name, None)
        if callable(method):
            return method  # type: ignore[no-any-return]
    raise TypeError(f"{type(recommender).__name__} has no method {' or '.join(names)}")


def values_of(answer: Any, keys: Sequence[str]) -> dict[str, float]:
    """A recommender's answer, zipped on the keys; they may be NaN or infinite.

    :param answer: a number, one number for each key in any shape of one point, or a mapping.
    :raises ValueError: if it is no number, or not one for each key.
    """
    given = [answer.get(key) for key in keys] if isinstance(answer, Mapping) else answer
    try:
        found = np.asarray(given)
    except (TypeError, ValueError):
        found = np.array("")
    # Texts, booleans and complex numbers would become floats without a word.
    if found.dtype.kind not in "iuf":
        raise ValueError(f"suggested {answer!r:.80}, which is no point")
    values = found.astype(float)
    # suggest(1) may give one point, or a list with one point in it.
    if values.ndim > 2 or (values.ndim == 2 and values.shape[0] != 1) or values.size != len(keys):
        raise ValueError(
            f"suggested an array of shape {values.shape} for the {len(keys)} keys {list(keys)}"
        )
    return dict(zip(keys, map(float, values.ravel()), strict=True))


def _explained(error: BaseException, otherwise: str) -> str:
    return str(error) or otherwise


@dataclass
class Asked:
    """A recommender with the number of calls that it has had; one for each batch.

    :param make: makes the recommender anew; it may raise.
    """

    name: str
    make: Callable[[], Any]
    independent_keys: Sequence[str]
    immediate: bool = False
    done: int = 0
    _recommender: Any = field(default=None, repr=False)
    _fault: Failed | None = None

    def reply(self, calls: Calls, length: int) -> Reply:
        """Make the calls that were not made yet; the reply to the last one.

        After a restart all calls of the batch are made again in their order, what it
        answered then is dropped, and it stands where it stood.
        """
        reply: Reply = Failed(f"recommender {self.name}: was not asked")
        for call in _newest(calls, length - self.done):
            reply = self._call(call)
            self.done += 1
            if isinstance(call, Suggest):
                reply, self._fault = self._fault or reply, None
            elif isinstance(reply, Failed):
                self._fault = self._fault or reply
        return reply

    def _call(self, call: Call) -> Reply:
        try:
            if self._recommender is None:
                self._recommender = self.make()
            return self._carry_out(call)
        except NoRecommendation as error:
            return NothingMore(_explained(error, "the recommender has no further recommendation"))
        except RequestPause as error:
            return Pause(_explained(error, "the recommender asks for a pause"))
        # Whatever a plugged-in recommender raises ends its batch with a reason, no more.
        except Exception as error:  # noqa: BLE001
            return Failed(f"recommender {self.name}: {type(error).__name__}: {error}")

    def _carry_out(self, call: Call) -> Reply:
        match call:
            case Ingest(xs, ys):
                _method(self._recommender, "ingest_many", "tell_many")(np.array(xs), np.array(ys))
                return NothingMore("rows were taken in")
            case Reject(point, reason):
                self._reject(point, reason)
                return NothingMore("a point was rejected")
            case Suggest(retries):
                return self._suggest(retries)
            case _:
                assert_never(call)

    def _reject(self, point: Mapping[str, Any], reason: str) -> None:
        reject = getattr(self._recommender, "reject", None)
        if callable(reject):
            reject(dict(point), reason)

    def _suggest(self, retries: int) -> Reply:
        bad: list[str] = []
        for attempt in range(retries + 1):
            answer = _method(self._recommender, "suggest", "ask")(1)
            try:
                values = values_of(answer, self.independent_keys)
            except ValueError as error:
                return Failed(f"recommender {self.name} {error}")
            bad = [f"{key} is {value}" for key, value in values.items() if not math.isfinite(value)]
            if not bad:
                also = f" after {attempt} that were not finite" if attempt else ""
                return Point(values, f"recommended{also}")
            self._reject(values, f"not finite: {', '.join(bad)}")
        return Failed(
            f"recommender {self.name} suggested no finite point in {retries + 1} attempts: "
            + ", ".join(bad)
        )


def _newest(calls: Calls, count: int) -> Iterator[Call]:
    newest: list[Call] = []
    while calls is not None and len(newest) < count:
        call, calls = calls
        newest.append(call)
    return reversed(newest)
