"""A plan that waits for a job: what it returns, what it raises, what is served meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import bluesky.plan_stubs as bps
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from bluesky_plugins.plans import JobFailed, trigger_and_wait
from bluesky_plugins.processing import ArgumentError, Job, JobTimeoutError
from bluesky_plugins.processing.jobs.events import Admitted, Observed, Submitted
from bluesky_plugins.processing.jobs.job import Subject
from bluesky_plugins.settings import Settings
from bluesky_plugins.testing.job_store import MemoryJobStore
from bluesky_plugins.testing.jobs import JobBench, observation, record, unaccepted


class Site:
    """A trigger whose job is in memory, and what becomes of it."""

    def __init__(self) -> None:
        self.words: Any = None
        self.more: dict[str, Any] = {}
        self.looked = threading.Event()
        self.store = MemoryJobStore()
        self.bench = JobBench(unaccepted(subject=Subject(run="r")))
        self.store.accept(self.bench.job)

    def run(self, words: Any, **more: Any) -> Job:
        self.words, self.more = words, more
        return Job(self.bench.job.key, Settings(), self.store)

    def tell(self, *events: Any) -> None:
        known = self.bench.job.revision
        self.bench.tell(*events)
        assert self.store.write(self.bench.job, known)

    def start(self) -> None:
        self.tell(Admitted(time=1001.0), Submitted(time=1002.0, attempt=1, native_id="17"))

    def end(self, **changes: Any) -> None:
        seen = observation(None, record=record(self.bench.job, **changes))
        self.tell(Observed(time=1003.0, attempt=1, observation=seen))


@pytest.fixture
def site() -> Site:
    made = Site()
    made.start()
    return made


def once_waiting(engine: RunEngine, act: Any) -> threading.Thread:
    """Act from another thread, when the plan waits for the job."""
    waits = threading.Event()

    def hook(msg: Any) -> None:
        if msg.command == "wait_for":
            waits.set()

    def run() -> None:
        if waits.wait(50):
            act()

    engine.msg_hook = hook
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def waited(engine: RunEngine, site: Site, act: Any, **options: Any) -> Any:
    """What the plan returns when `act` is done while it waits."""
    returned: list[Any] = []

    def plan() -> Any:
        job = yield from trigger_and_wait(["fit", "a b", 3], trigger=site, **options)
        returned.append(job)

    thread = once_waiting(engine, act)
    try:
        engine(plan())
    finally:
        thread.join(10)
    return returned[0]


def test_the_plan_goes_on_with_the_job_when_it_has_succeeded(engine: RunEngine, site: Site) -> None:
    job = waited(engine, site, site.end, job_name="mine")
    assert (job.state, job.numbers) == ("succeeded", {"peak": 3.25})
    assert site.words == ["fit", ["a b", "3"]]
    assert site.more == {"job_name": "mine"}


def test_a_job_that_failed_ends_the_plan_with_its_state_and_reason(
    engine: RunEngine, site: Site
) -> None:
    with pytest.raises(JobFailed, match="failed: exited with 3") as caught:
        waited(engine, site, lambda: site.end(exit_code=3))
    assert caught.value.job.state == "failed"
    assert site.bench.job.key[:16] in str(caught.value)


def test_unless_told_otherwise(engine: RunEngine, site: Site) -> None:
    job = waited(engine, site, lambda: site.end(exit_code=3), check=False)
    assert job.state == "failed"


def test_a_job_that_takes_too_long_is_left_and_said_where_it_is(
    engine: RunEngine, site: Site
) -> None:
    with pytest.raises(JobTimeoutError, match=r"not ended in 1\.5 s; it is queued on slurm"):
        engine(trigger_and_wait(["fit"], trigger=site, timeout=1.5))
    assert site.bench.job.cancel is None


def test_a_job_that_cannot_be_submitted_says_why(engine: RunEngine) -> None:
    class Broken:
        def run(self, words: Any, **more: Any) -> Any:
            raise ConnectionError("Kafka is away")

    with pytest.raises(RuntimeError, match="no job for fit: Kafka is away"):
        engine(trigger_and_wait(["fit"], trigger=Broken()))
    with pytest.raises(ArgumentError, match="NUL"):
        engine(trigger_and_wait(["fit", "a\0b"], trigger=Broken()))


def test_a_pause_is_served_while_it_waits(engine: RunEngine, site: Site) -> None:
    def plan() -> Any:
        yield from trigger_and_wait(["fit"], trigger=site, timeout=30)
        yield from bps.null()

    thread = once_waiting(engine, lambda: engine.request_pause(defer=True))
    with pytest.raises(RunEngineInterrupted):
        engine(plan())
    thread.join(10)
    assert engine.state == "paused"
    site.end()
    engine.resume()
    assert engine.state == "idle"
