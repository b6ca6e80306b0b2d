"""Where documents go and suggestions come from when a plan is not told."""

from __future__ import annotations

from typing import Any

from bluesky_plugins.adaptive import SuggestionChannel

__all__ = ["default_callback", "default_channel"]


def default_callback() -> Any:
    """The publisher on the `adaptive` topic of the settings' Kafka."""
    from bluesky_plugins.messaging import KafkaPublisher

    return KafkaPublisher("adaptive")


def default_channel() -> SuggestionChannel:
    """The suggestions of the settings' Kafka."""
    from bluesky_plugins.adaptive import KafkaSuggestions

    return KafkaSuggestions()
