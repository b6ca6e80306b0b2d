"""Where documents go and suggestions come from when a plan is not told."""

from __future__ import annotations

from bluesky_plugins.adaptive import KafkaSuggestions
from bluesky_plugins.messaging import KafkaPublisher

__all__ = ["default_callback", "default_channel"]


def default_callback() -> KafkaPublisher:
    """The publisher on the `adaptive` topic of the settings' Kafka."""
    return KafkaPublisher("adaptive")


def default_channel() -> KafkaSuggestions:
    """The suggestions of the settings' Kafka."""
    return KafkaSuggestions()
