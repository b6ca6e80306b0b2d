"""Adaptive batches: suggestions, recommenders, and the service that answers plans.

What the service needs beyond the bare install is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bluesky_plugins.adaptive.model import (
    Action,
    BatchEvent,
    BatchMode,
    Command,
    CommandKind,
    Ended,
    Opened,
    Outcome,
    RecommenderInfo,
    RecommenderRequest,
    Refused,
    Result,
    Suggestion,
    Taken,
    TimedOut,
    Waiting,
    derived_uid,
    parse_batch_event,
    suggestion_uid,
)
from bluesky_plugins.adaptive.recommenders import (
    FocusFit,
    FocusRecommender,
    NoRecommendation,
    Recommender,
    RequestPause,
    SequenceRecommender,
    StepRecommender,
    fit_focus,
)

if TYPE_CHECKING:
    from bluesky_plugins.adaptive.channel import (
        QueueSuggestions,
        SuggestionChannel,
        SuggestionReader,
    )
    from bluesky_plugins.adaptive.in_process import recommender_factory
    from bluesky_plugins.adaptive.kafka_channel import KafkaSuggestions
    from bluesky_plugins.adaptive.redis_channel import RedisSuggestions
    from bluesky_plugins.adaptive.replay import Difference, ReplayReport, replay_batch
    from bluesky_plugins.adaptive.service import RecommenderService
    from bluesky_plugins.adaptive.serving import serve_recommender
    from bluesky_plugins.adaptive.store import BatchStore
    from bluesky_plugins.adaptive.views import decided_point, list_batches, show_batch

_LAZY = {
    "BatchStore": "store",
    "Difference": "replay",
    "KafkaSuggestions": "kafka_channel",
    "QueueSuggestions": "channel",
    "RecommenderService": "service",
    "RedisSuggestions": "redis_channel",
    "ReplayReport": "replay",
    "SuggestionChannel": "channel",
    "SuggestionReader": "channel",
    "decided_point": "views",
    "list_batches": "views",
    "recommender_factory": "in_process",
    "replay_batch": "replay",
    "serve_recommender": "serving",
    "show_batch": "views",
}

__all__ = [
    "Action",
    "BatchEvent",
    "BatchMode",
    "BatchStore",
    "Command",
    "CommandKind",
    "Difference",
    "Ended",
    "FocusFit",
    "FocusRecommender",
    "KafkaSuggestions",
    "NoRecommendation",
    "Opened",
    "Outcome",
    "QueueSuggestions",
    "Recommender",
    "RecommenderInfo",
    "RecommenderRequest",
    "RecommenderService",
    "RedisSuggestions",
    "Refused",
    "ReplayReport",
    "RequestPause",
    "Result",
    "SequenceRecommender",
    "StepRecommender",
    "Suggestion",
    "SuggestionChannel",
    "SuggestionReader",
    "Taken",
    "TimedOut",
    "Waiting",
    "decided_point",
    "derived_uid",
    "fit_focus",
    "list_batches",
    "parse_batch_event",
    "recommender_factory",
    "replay_batch",
    "serve_recommender",
    "show_batch",
    "suggestion_uid",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
