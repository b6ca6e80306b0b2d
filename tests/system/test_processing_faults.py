"""Very many triggers with everything failing in turn: one start, one result, one reason each."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bluesky_plugins.messaging import make_topics
from bluesky_plugins.settings import Settings
from tests.slurm import SlurmSite, running_site
from tests.system.conftest import DEADLINE
from tests.system.fault_campaign import Campaign

pytestmark = [pytest.mark.system, pytest.mark.timeout(3600)]

# 1,000 are what has to hold; what every run of the tests does is smaller.
TRIGGERS = int(os.environ.get("BLUESKY_PLUGINS_TEST_TRIGGERS", "200"))
SEED = int(os.environ.get("BLUESKY_PLUGINS_TEST_SEED", "1"))


@pytest.fixture(scope="module")
def busy_site() -> Iterator[SlurmSite]:
    """A Slurm that takes many jobs at a time and forgets them soon."""
    yield from running_site(min_job_age=10, cpus=32)


@pytest.fixture
def campaign(
    make_settings: Callable[..., Settings], tmp_path: Path, busy_site: SlurmSite
) -> Iterator[Campaign]:
    settings = make_settings()
    make_topics(settings, DEADLINE)
    made = Campaign(settings, tmp_path, busy_site, number=TRIGGERS, seed=SEED)
    yield made
    made.close()


def settled(campaign: Campaign) -> bool:
    """All that ends has ended, and whatever is to go out has gone out."""
    jobs = campaign.jobs()
    return len(jobs) >= campaign.number and all(
        one["attempts"][-1]["state"] in ENDS
        and one["announced"] == len(one["history"])
        and (one["attempts"][-1]["state"] != "succeeded" or one["published"])
        for one in jobs
    )


ENDS = {"succeeded", "failed", "timed_out", "cancelled", "lost"}


def test_whatever_fails_each_trigger_has_one_start_one_result_and_a_reason(
    campaign: Campaign,
) -> None:
    rounds = max(1, campaign.number // 100)
    campaign.hand_out(rounds)
    campaign.service("recorder")
    campaign.keep_running()
    campaign.send_runs()
    faults = campaign.faults(rounds)
    for number, fault in enumerate(faults):
        if not campaign.wait_final(number * campaign.number // (len(faults) + 1), 60.0):
            campaign.resume_node()
        campaign.inject(fault)
    campaign.calm()
    deadline = time.monotonic() + 1800.0
    while not campaign.wait_final(campaign.number, 30.0):
        assert time.monotonic() < deadline, campaign.counts()
        campaign.resume_node()
    campaign.until(lambda: settled(campaign), "end of all", 600.0)
    jobs = campaign.jobs()
    print(campaign.counts(), campaign.injected, campaign.taken())
    assert len(jobs) == campaign.number
    check_starts(campaign, jobs)
    check_results(campaign, jobs)
    check_reasons(campaign, jobs)


def check_starts(campaign: Campaign, jobs: list[dict[str, Any]]) -> None:
    """No attempt has started twice, and what ended well has started."""
    starts = Counter(campaign.ledger.read_text().splitlines())
    assert [folder for folder, number in starts.items() if number > 1] == []
    started = {Path(folder).parents[1].name for folder in starts}
    assert {one["key"] for one in jobs if state(one) == "succeeded"} <= started
    assert all(len(one["attempts"]) == 1 for one in jobs)


def check_results(campaign: Campaign, jobs: list[dict[str, Any]]) -> None:
    """What went out again is the same, and of each job with numbers there is one result."""
    by_uid: dict[str, Any] = {}
    for doc in campaign.published("analysis", "start"):
        assert by_uid.setdefault(doc["uid"], doc) == doc
    results = Counter(doc["processing_of"]["key"] for doc in by_uid.values())
    assert results == Counter(one["key"] for one in jobs if state(one) == "succeeded")
    told: dict[str, Any] = {}
    for doc in campaign.published("adaptive", "result"):
        assert told.setdefault(doc["uid"], doc) == doc
    of_batches = [one["key"] for one in jobs if one["subject"]["batch_id"]]
    assert Counter(doc["key"] for doc in told.values()) == Counter(of_batches)


def state(job: dict[str, Any]) -> str:
    return str(job["attempts"][-1]["state"])


EXPECTED = {
    "good": {"succeeded"},
    "long": {"succeeded"},
    "failing": {"failed"},
    "late": {"timed_out"},
    "hungry": {"failed"},
    "killed": {"lost", "failed"},
}
# What may end a job on the cluster otherwise.
OUTSIDE = ("ended from outside", "ended by SIG", "cluster says", "does not know it any more")


def check_reasons(campaign: Campaign, jobs: list[dict[str, Any]]) -> None:
    """Each has a story that ends with its state and a reason that fits."""
    wrong = []
    for job in jobs:
        kind, place = campaign.kind_of[job["subject"]["run"]]
        reason = job["attempts"][-1]["reason"]
        outside = place == "cluster" and any(words in reason for words in OUTSIDE)
        last = job["history"][-1]
        told = any((line["state"], line["text"]) == (state(job), reason) for line in job["history"])
        if not told or not reason or not last["text"]:
            wrong.append((kind, place, state(job), reason, "not told"))
        elif state(job) not in EXPECTED[kind] and not outside:
            wrong.append((kind, place, state(job), reason, "not expected"))
    assert wrong == []
