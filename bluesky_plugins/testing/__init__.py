"""Fakes of every port and batches without servers, for our tests and our users'."""

from bluesky_plugins.testing import batches
from bluesky_plugins.testing.batches import Bench

__all__ = ["Bench", "batches"]
