"""Callbacks for `RE.subscribe`, and a view of what travels."""

from bluesky_plugins.callbacks.echo import echo_lines
from bluesky_plugins.messaging import KafkaPublisher

__all__ = ["KafkaPublisher", "echo_lines"]
