"""The next point is the next one of a list."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from bluesky_plugins.adaptive.recommenders.contract import NoRecommendation

__all__ = ["SequenceRecommender"]


class SequenceRecommender:
    """Goes through a list of positions, whatever was measured.

    :param sequence: one entry a point: a number, or a list with one number for each
        independent key; in the motors' units.
    """

    immediate = True

    class Parameters(BaseModel):
        """What a start document may set."""

        model_config = ConfigDict(extra="forbid")
        sequence: list[FiniteFloat] | list[list[FiniteFloat]] = Field(
            min_length=1, description="positions, in the motors' units"
        )

    def __init__(self, sequence: ArrayLike) -> None:
        points = np.asarray(sequence, dtype=float)
        self.sequence = points.reshape(-1, 1) if points.ndim < 2 else points
        self._next = 0

    def ingest(self, x: ArrayLike, y: ArrayLike) -> None:
        """Take in one row; it changes nothing."""

    def ingest_many(self, xs: ArrayLike, ys: ArrayLike) -> None:
        """Take in rows; they change nothing."""

    def suggest(self, n: int = 1) -> NDArray[np.float64]:
        """The next point, shape (independent keys,).

        :raises NotImplementedError: if `n` is not 1.
        :raises NoRecommendation: after the last one.
        """
        if n != 1:
            raise NotImplementedError("only one point at a time")
        if self._next == len(self.sequence):
            raise NoRecommendation(f"all {len(self.sequence)} points were suggested")
        self._next += 1
        point: NDArray[np.float64] = self.sequence[self._next - 1]
        return point
