"""What a batch depends on: recipes that the processing beside the recommender has."""

from __future__ import annotations

from typing import Protocol

from bluesky_plugins.adaptive.model import BatchMode
from bluesky_plugins.processing import After, Recipe

__all__ = ["Dependence", "Processing"]


class Processing(Protocol):
    """What is asked of processing: a `Processor`."""

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The recipes that there are."""
        ...

    def progress(self, run: str, batch_count: int, recipe: str) -> str | None:
        """Where the job of a recipe for a run is; None if that is not known here."""
        ...


class Dependence:
    """Looks into the processing of this process.

    :param processor: None where nothing is processed.
    """

    def __init__(self, processor: Processing | None) -> None:
        self._processor = processor

    def unknown(self, key: str, mode: BatchMode) -> str | None:
        """Why `processing.<recipe>.<number>` will never have a value; None if it may have one.

        :param mode: whether a count of the batch is a run or an event.
        """
        if self._processor is None:
            return f"{key}: this service does not process"
        _, name, number = key.split(".")
        recipe = next((one for one in self._processor.recipes if one.name == name), None)
        if recipe is None:
            return f"{key}: there is no recipe {name}"
        numbers = recipe.result.numbers if recipe.result is not None else ()
        if number not in numbers:
            has = f"it has {', '.join(numbers)}" if numbers else "it has none"
            return f"{key}: recipe {name} has no number {number}; {has}"
        after = recipe.when.after
        by_event = mode is BatchMode.EVENT
        if after is not After.POINT and (by_event or after is not After.RUN):
            point = "an event" if by_event else "a run"
            return f"{key}: recipe {name} fires `after: {after}`, and a point here is {point}"
        return None

    def progress(self, run: str, count: int, recipe: str) -> str | None:
        """Where the job of a recipe for a run is; None if that is not known here."""
        if self._processor is None:
            return None
        return self._processor.progress(run, count, recipe)
