"""The best focus: where a spot, of which the width is measured, is narrowest.

Of a focused beam the square of the width is a parabola in the position along it, so that three
points give the focus and every further one makes it surer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from bluesky_plugins.adaptive.recommenders.contract import NoRecommendation

__all__ = ["FocusFit", "FocusRecommender", "fit_focus"]

Array = NDArray[np.float64]
# Points that deviate by more than this many standard deviations pull less on the fit.
HUBER = 1.5
ROUNDS = 20


@dataclass(frozen=True)
class FocusFit:
    """width**2 = narrowest**2 + slope**2 * (z - best)**2.

    :ivar best: the best focus, in the motor's units.
    :ivar error: one standard deviation of it; infinite with fewer than four points.
    :ivar narrowest: the width there, in the detector's units.
    :ivar slope: width gained for each unit of the motor, far from focus.
    """

    best: float
    error: float
    narrowest: float
    slope: float

    def width(self, zs: ArrayLike) -> Array:
        """The widths at some positions."""
        away = np.asarray(zs, dtype=float) - self.best
        width: Array = np.hypot(self.narrowest, self.slope * away)
        return width


def fit_focus(zs: ArrayLike, widths: ArrayLike) -> FocusFit | None:
    """The fit to what was measured; points that are no numbers do not count.

    :param zs: positions, in the motor's units.
    :param widths: in any unit; all of them positive.
    :returns: None where there is no focus to be seen: fewer than three positions, or widths that
        do not grow to both sides.
    """
    z, w = np.asarray(zs, dtype=float).ravel(), np.asarray(widths, dtype=float).ravel()
    good = np.isfinite(z) & np.isfinite(w) & (w > 0)
    z, w = z[good], w[good]
    if len(np.unique(z)) < 3:
        return None
    centre, scale = float(z.mean()), float(np.ptp(z)) / 2.0
    matrix = np.vander((z - centre) / scale, 3)
    # A deviation of the width by d is one of its square by 2 w d.
    parts, spread = _robust(matrix, w**2, 1.0 / (2.0 * w))
    a, b, c = map(float, parts)
    if not a > 0:
        return None
    best = -b / (2.0 * a)
    # How the position follows the parts of the parabola.
    gradient = np.array([b / (2.0 * a**2), -1.0 / (2.0 * a), 0.0])
    variance = float(gradient @ spread @ gradient)
    return FocusFit(
        best=centre + scale * best,
        error=scale * float(np.sqrt(variance)) if len(z) > 3 else float("inf"),
        narrowest=float(np.sqrt(max(c - a * best**2, 0.0))),
        slope=float(np.sqrt(a)) / scale,
    )


def _robust(matrix: Array, values: Array, weights: Array) -> tuple[Array, Array]:
    """Least squares that a single outlier does not carry away; with the covariance."""
    pull = np.ones_like(values)
    free = max(1, len(values) - matrix.shape[1])
    for _ in range(ROUNDS):
        factor = weights * np.sqrt(pull)
        parts = np.linalg.lstsq(matrix * factor[:, None], values * factor, rcond=None)[0]
        deviations = np.abs(values - matrix @ parts) * weights
        # As many parts as were fitted deviate by almost nothing, and say nothing of the rest.
        typical = 1.4826 * float(np.median(np.sort(deviations)[-free:]))
        if typical <= 1e-12 * float(np.max(np.abs(values) * weights)):
            break
        pull = np.minimum(1.0, HUBER * typical / np.maximum(deviations, 1e-300))
    squares = float(np.sum(pull * deviations**2)) / free
    inverse = np.linalg.pinv((matrix * factor[:, None]).T @ (matrix * factor[:, None]))
    return np.asarray(parts, dtype=float), np.asarray(squares * inverse, dtype=float)


class FocusRecommender:
    """A coarse scan, then where the fit sees the focus, until that no longer moves.

    It stops with the best focus in its reason. It never leaves `low` to `high`.

    :param low: least position, in the motor's units.
    :param high: largest position.
    :param points: of the coarse scan, both ends included.
    :param tolerance: the focus is found when a new point moves it by less, in the motor's units.
    :param refinements: points after the coarse scan, at most.
    """

    immediate = True

    class Parameters(BaseModel):
        """What a start document may set."""

        model_config = ConfigDict(extra="forbid")
        low: FiniteFloat = Field(description="least position, in the motor's units")
        high: FiniteFloat = Field(description="largest position, in the motor's units")
        points: int = Field(5, ge=3, le=100, description="of the coarse scan")
        tolerance: FiniteFloat = Field(0.05, gt=0, description="in the motor's units")
        refinements: int = Field(6, ge=1, le=100, description="points after it, at most")

        @model_validator(mode="after")
        def _is_a_range(self) -> Self:
            if not self.low < self.high:
                raise ValueError("low has to be less than high")
            if self.tolerance > (self.high - self.low) / 10:
                raise ValueError("the tolerance is larger than a tenth of the range")
            return self

    def __init__(
        self,
        low: float,
        high: float,
        points: int = 5,
        tolerance: float = 0.05,
        refinements: int = 6,
    ) -> None:
        checked = self.Parameters(
            low=low, high=high, points=points, tolerance=tolerance, refinements=refinements
        )
        self._range = (checked.low, checked.high)
        self._tolerance = checked.tolerance
        self._coarse = [float(z) for z in np.linspace(checked.low, checked.high, points)]
        self._left = checked.refinements
        self._estimate: float | None = None
        self._refused = ""
        self._zs: list[float] = []
        self._widths: list[float] = []

    @property
    def fit(self) -> FocusFit | None:
        """The fit to all that was measured."""
        return fit_focus(self._zs, self._widths)

    def ingest(self, x: ArrayLike, y: ArrayLike) -> None:
        """Take in one row: shapes (1,) and (1,)."""
        self.ingest_many(np.atleast_2d(x), np.atleast_2d(y))

    def ingest_many(self, xs: ArrayLike, ys: ArrayLike) -> None:
        """Take in positions and widths.

        :param xs: shape (rows, 1), in the motor's units.
        :param ys: shape (rows, 1).
        :raises ValueError: for other shapes.
        """
        zs, widths = (np.asarray(values, dtype=float) for values in (xs, ys))
        if zs.ndim != 2 or zs.shape[1] != 1 or widths.shape != zs.shape:
            raise ValueError("a focus has one independent and one dependent key")
        self._zs += zs.ravel().tolist()
        self._widths += widths.ravel().tolist()

    def reject(self, point: Mapping[str, float], reason: str) -> None:
        """Hear that the last point was refused: another one of the coarse scan will do."""
        if self._estimate is not None:
            self._refused = reason

    def suggest(self, n: int = 1) -> Array:
        """The next position, shape (1,).

        :raises NotImplementedError: if `n` is not 1.
        :raises NoRecommendation: when the focus is found, or none is to be seen.
        """
        if n != 1:
            raise NotImplementedError("only one point at a time")
        while self._coarse:
            z = self._coarse.pop(0)
            if not self._is_measured(z):
                return np.array([z])
        return np.array([self._refined()])

    def _refined(self) -> float:
        found = self.fit
        if found is None:
            seen = len(set(self._zs))
            raise NoRecommendation(f"no focus is to be seen in the widths at {seen} positions")
        if self._refused:
            raise NoRecommendation(f"{self._told(found)}; it was refused: {self._refused}")
        low, high = self._range
        best = min(max(found.best, low), high)
        if self._is_measured(self._estimate):
            moved = abs(best - (self._estimate or 0.0))
            if moved <= self._tolerance:
                raise NoRecommendation(f"{self._told(found)}; the last one moved it by {moved:.2g}")
        if self._left == 0:
            raise NoRecommendation(f"{self._told(found)}; it may still move")
        self._left -= 1
        self._estimate = best
        return best

    def _is_measured(self, z: float | None) -> bool:
        return z is not None and any(abs(z - one) <= self._tolerance for one in self._zs)

    def _told(self, found: FocusFit) -> str:
        low, high = self._range
        where = "" if low <= found.best <= high else ", which is out of the range"
        return (
            f"the best focus is {found.best:.4g} +- {found.error:.1g}{where}, "
            f"with a width of {found.narrowest:.3g}, from {len(self._zs)} points"
        )
