"""What a recommender is: any object with these methods will do."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["NoRecommendation", "Recommender", "RequestPause"]


class NoRecommendation(Exception):  # noqa: N818 - the field's name for it
    """Raised by `suggest`: there is nothing more to measure. Its text is the reason."""


class RequestPause(Exception):  # noqa: N818 - the field's name for it
    """Raised by `suggest`: a person should look first. Its text is the reason."""


@runtime_checkable
class Recommender(Protocol):
    """Takes in what was measured and suggests where to measure next.

    An object with the older names `tell_many` and `ask` serves too. It may also have
    `reject(point, reason)`, called with a suggested point that was refused, and a true
    `immediate`: its calls take microseconds and are made where others would be waited for.
    """

    def ingest_many(self, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> None:
        """Take in measured rows.

        :param xs: shape (rows, independent keys), in the motors' units.
        :param ys: shape (rows, dependent keys).
        """

    def suggest(self, n: int) -> Any:
        """The next `n` points; 1 is all that is ever asked.

        :return: a number, or an array of shape (independent keys,).
        :raises NoRecommendation: to stop the batch.
        :raises RequestPause: to have it paused.
        """
