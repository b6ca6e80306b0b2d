"""The next point lies a fixed step after the last one."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from bluesky_plugins.adaptive.recommenders.contract import NoRecommendation

__all__ = ["StepRecommender"]


class StepRecommender:
    """Goes on from the last measured point by `step`.

    :param step: in the motors' units; one number for all independent keys, or one for each.
    """

    immediate = True

    class Parameters(BaseModel):
        """What a start document may set."""

        model_config = ConfigDict(extra="forbid")
        step: FiniteFloat | list[FiniteFloat] = Field(description="step, in the motors' units")

    def __init__(self, step: ArrayLike) -> None:
        self.step = np.asarray(step, dtype=float)
        self._last: NDArray[np.float64] | None = None

    def ingest(self, x: ArrayLike, y: ArrayLike) -> None:
        """Take in one row: shapes (independent keys,) and (dependent keys,)."""
        self.ingest_many(np.atleast_2d(x), np.atleast_2d(y))

    def ingest_many(self, xs: ArrayLike, ys: ArrayLike) -> None:
        """Take in rows; only the last one counts."""
        self._last = np.atleast_2d(np.asarray(xs, dtype=float))[-1]

    def suggest(self, n: int = 1) -> NDArray[np.float64]:
        """The next point, shape (independent keys,).

        :raises NotImplementedError: if `n` is not 1.
        :raises NoRecommendation: if nothing was measured yet.
        """
        if n != 1:
            raise NotImplementedError("only one point at a time")
        if self._last is None:
            raise NoRecommendation("nothing was measured yet")
        point: NDArray[np.float64] = self._last + self.step
        return point
