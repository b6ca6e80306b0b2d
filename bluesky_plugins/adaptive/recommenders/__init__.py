"""Recommenders: given what was measured, the next point. Pure maths, no I/O."""

from bluesky_plugins.adaptive.recommenders.contract import (
    NoRecommendation,
    Recommender,
    RequestPause,
)
from bluesky_plugins.adaptive.recommenders.focus import FocusFit, FocusRecommender, fit_focus
from bluesky_plugins.adaptive.recommenders.sequence import SequenceRecommender
from bluesky_plugins.adaptive.recommenders.step import StepRecommender

__all__ = [
    "FocusFit",
    "FocusRecommender",
    "NoRecommendation",
    "Recommender",
    "RequestPause",
    "SequenceRecommender",
    "StepRecommender",
    "fit_focus",
]
