"""Fakes of every port and batches without servers, for our tests and our users'."""

from bluesky_plugins.testing import batches
from bluesky_plugins.testing.batches import Bench
from bluesky_plugins.testing.bus import FakeBus, FakeConsumer, FakeProducer, FakeReader
from bluesky_plugins.testing.job_store import MemoryJobStore
from bluesky_plugins.testing.recording import (
    MemoryDocumentStore,
    MemoryLetterBox,
    MemoryLog,
    MemorySource,
)
from bluesky_plugins.testing.runs import composed_event, composed_run
from bluesky_plugins.testing.suggestions import (
    FakeRecommender,
    FakeSuggestions,
    make_suggestion,
    make_waiting,
)
from bluesky_plugins.testing.targets import FakeScheduler, Outcome

__all__ = [
    "Bench",
    "FakeBus",
    "FakeConsumer",
    "FakeProducer",
    "FakeReader",
    "FakeRecommender",
    "FakeScheduler",
    "FakeSuggestions",
    "MemoryDocumentStore",
    "MemoryJobStore",
    "MemoryLetterBox",
    "MemoryLog",
    "MemorySource",
    "Outcome",
    "batches",
    "composed_event",
    "composed_run",
    "make_suggestion",
    "make_waiting",
]
