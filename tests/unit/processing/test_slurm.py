"""What a queue with several entries of one name says of an attempt."""

from __future__ import annotations

import pytest

from bluesky_plugins.processing.model import Found, JobState
from bluesky_plugins.processing.targets.slurm import entry_of

ENDED = Found(native_id="5", attempt=1, state=JobState.SUCCEEDED)
RUNS = Found(native_id="4", attempt=1, state=JobState.RUNNING)
OTHER = Found(native_id="6", attempt=2, state=JobState.RUNNING)


@pytest.mark.parametrize(
    ("named", "native_id", "expected"),
    [
        ([RUNS, ENDED, OTHER], None, RUNS),  # its duplicate found the claim, and ended later
        ([ENDED, RUNS], None, RUNS),
        ([ENDED], None, ENDED),
        ([OTHER], None, None),
        ([RUNS, ENDED], "5", ENDED),
        ([RUNS], "5", None),
    ],
)
def test_what_lives_counts_before_what_has_ended(
    named: list[Found], native_id: str | None, expected: Found | None
) -> None:
    assert entry_of(named, 1, native_id) == expected
