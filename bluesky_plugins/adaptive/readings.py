"""What a run of a batch measured, as rows of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

__all__ = ["Row", "Run", "Unusable", "row_of", "rows_of"]

PRIMARY = "primary"


class Unusable(ValueError):  # noqa: N818 - a state of a run
    """A run or event has no rows that a recommender could take in; the text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One event's readings of the batch's keys, or what is wrong with them."""

    stream: str
    xs: tuple[float, ...] = ()
    ys: tuple[float, ...] = ()
    fault: str | None = None
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Run:
    """An open run of a batch. `rows` are linked pairs, newest first."""

    uid: str
    count: int
    mode: str
    streams: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Row, Any] | None = None

    def with_stream(self, descriptor: str, name: str) -> Run:
        """The run with one more descriptor."""
        return replace(self, streams={**self.streams, descriptor: name})

    def with_row(self, row: Row) -> Run:
        """The run with one more row."""
        return replace(self, rows=(row, self.rows))


def _number(key: str, value: Any) -> float:
    if isinstance(value, Real) or (
        getattr(value, "shape", None) == () and value.dtype.kind in "iufb"
    ):
        number = float(value)
        if math.isfinite(number):
            return number
        raise Unusable(f"the reading of {key} is {number}")
    raise Unusable(f"the reading of {key} is no number but {value!r:.60}")


def row_of(stream: str, data: Mapping[str, Any], xs: Iterable[str], ys: Iterable[str]) -> Row:
    """The row of one event: its readings of the keys `xs` and `ys`."""
    xs, ys = tuple(xs), tuple(ys)
    missing = frozenset(key for key in (*xs, *ys) if key not in data)
    if missing:
        return Row(stream, missing=missing)
    try:
        return Row(
            stream,
            tuple(_number(key, data[key]) for key in xs),
            tuple(_number(key, data[key]) for key in ys),
        )
    except Unusable as error:
        return Row(stream, fault=str(error))


def rows_of(run: Run) -> list[Row]:
    """The rows of a complete run, in order: of its primary stream, if that has the keys.

    :raises Unusable: if there is none, or one is not all numbers.
    """
    rows: list[Row] = []
    rest = run.rows
    while rest is not None:
        row, rest = rest
        rows.append(row)
    rows.reverse()
    if not rows:
        raise Unusable("the run has no events")
    whole = [row for row in rows if not row.missing]
    if not whole:
        fewest = min(rows, key=lambda row: len(row.missing)).missing
        raise Unusable(f"no event of the run has a reading of {', '.join(sorted(fewest))}")
    chosen = [row for row in whole if row.stream == PRIMARY] or whole
    for row in chosen:
        if row.fault:
            raise Unusable(row.fault)
    return chosen
