"""What goes out about a job, and what is over by the documents that come in."""

from __future__ import annotations

from contextlib import suppress

import event_model
import pytest

from bluesky_plugins.adaptive import Result
from bluesky_plugins.processing.jobs.events import Admitted, Observed, Submitted
from bluesky_plugins.processing.jobs.job import JobRecord, Subject
from bluesky_plugins.processing.recipes.evaluation import Ending
from bluesky_plugins.processing.service.endings import MalformedError, Orphan, Place, Runs
from bluesky_plugins.processing.service.results import changes_of, result_documents, result_of
from bluesky_plugins.testing import composed_run
from bluesky_plugins.testing.jobs import JobBench, observation, record, unaccepted


def ended(**changes: object) -> JobRecord:
    bench = JobBench(unaccepted(subject=Subject(run="r", batch_id="b"), chain=("first",)))
    bench.tell(Admitted(time=1001.0), Submitted(time=1002.0, attempt=1, native_id="17"))
    seen = observation(None, record=record(bench.job, **changes))
    bench.tell(Observed(time=1003.0, attempt=1, observation=seen))
    return bench.job


def test_an_analysis_run_is_one_of_the_event_model() -> None:
    job = ended()
    documents = [(name, doc) for _, _, name, doc in result_documents(job)]
    for name, doc in documents:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(doc)
    start = documents[0][1]
    assert start["processing_of"]["chain"] == ["first", "focus"]
    assert {key for _, key, _, _ in result_documents(job)} == {start["uid"]}


def test_the_same_job_goes_out_as_the_same_documents() -> None:
    job = ended()
    later = job.model_copy(update={"published": 5.0, "revision": 99})
    assert result_documents(job) == result_documents(later)
    assert result_of(job) == result_of(later)
    assert changes_of(job) == changes_of(later)


def test_a_batch_gets_a_result_that_its_log_takes() -> None:
    ((_, key, name, doc),) = result_of(ended())
    assert (key, name) == ("b", "result")
    assert Result.model_validate(doc).values == {"processing.focus.peak": 3.25}
    ((_, _, _, failed),) = result_of(ended(exit_code=2))
    assert Result.model_validate(failed).values == {}
    assert failed["uid"] != doc["uid"]


def at(offset: int) -> Place:
    return Place("documents", 0, offset)


def test_a_run_is_over_at_its_stop_and_holds_its_partition_until_then() -> None:
    runs, over = Runs(), []
    documents = composed_run(3)
    for offset, (name, doc) in enumerate(documents):
        assert runs.oldest("documents", 0) == (None if offset == 0 else 0)
        over += runs.read(name, doc, at(offset))
        # What comes twice changes nothing.
        if name != "stop":
            assert runs.read(name, doc, at(offset)) == []
    begun, ending = over
    assert isinstance(begun, Ending)
    assert isinstance(ending, Ending)
    assert begun.afters == {"start"}
    assert ending.run.events["primary"]["data"]["det"] == 2.0
    assert runs.oldest("documents", 0) is None
    assert len(runs) == 0


def test_a_stop_whose_start_was_not_seen_is_an_orphan() -> None:
    runs = Runs()
    name, stop = composed_run(1)[-1]
    assert runs.read(name, stop, at(7)) == [Orphan(stop["run_start"])]


def test_runs_that_never_stop_are_forgotten_the_oldest_first() -> None:
    runs = Runs(max_open=2)
    for offset in range(4):
        runs.read(*composed_run(1)[0], at(offset))
    assert runs.oldest("documents", 0) == 2


@pytest.mark.parametrize(
    ("name", "doc"),
    [
        ("start", {}),
        ("descriptor", {}),
        ("event", {"descriptor": "d"}),
        ("stop", {"run_start": {}}),
    ],
)
def test_a_document_that_is_none_harms_nothing(name: str, doc: dict[str, object]) -> None:
    runs = Runs()
    with suppress(MalformedError):
        runs.read(name, doc, at(0))
    assert len(runs) == 0
    assert runs.oldest("documents", 0) is None
