"""The life of a job, one cause at a time."""

from __future__ import annotations

from typing import Any

import pytest

from bluesky_plugins.processing.jobs import events as ev
from bluesky_plugins.processing.jobs.job import JobRecord, Place, submission_of
from bluesky_plugins.processing.jobs.machine import Rules, accept, outstanding, step, story
from bluesky_plugins.processing.jobs.observing import to_poll
from bluesky_plugins.processing.model import EndReason, Found, JobState, Observation
from bluesky_plugins.testing.jobs import JobBench, found, observation, record, unaccepted

RULES = Rules()
T = 1000.0  # when the jobs below are accepted


def bench(*targets: str, **changes: Any) -> JobBench:
    return JobBench(accept(unaccepted(targets or ("slurm",), **changes)), RULES)


def submitting(*targets: str, **changes: Any) -> JobBench:
    one = bench(*targets, **changes)
    one.tell(ev.Admitted(time=T + 1))
    return one


def queued(*targets: str, **changes: Any) -> JobBench:
    one = submitting(*targets, **changes)
    one.tell(ev.Submitted(time=T + 2, attempt=1, native_id="17"))
    return one


def running(*targets: str, **changes: Any) -> JobBench:
    one = queued(*targets, **changes)
    one.tell(seen(3, observation("running", heartbeat=1.0)))
    return one


def seen(after: float, what: Observation, attempt: int = 1) -> ev.Observed:
    return ev.Observed(time=T + after, attempt=attempt, observation=what)


def doubtful(after: float = 2, submission: int = 1) -> ev.Doubtful:
    return ev.Doubtful(time=T + after, attempt=1, submission=submission, reason="timed out")


def refused(after: float = 2, *, permanent: bool = True, submission: int = 1) -> ev.Refused:
    return ev.Refused(
        time=T + after,
        attempt=1,
        submission=submission,
        reason="Invalid partition",
        permanent=permanent,
    )


def searched(after: float, *entries: Any, attempt: int = 1) -> ev.Searched:
    return ev.Searched(time=T + after, attempt=attempt, found=entries)


GONE = Observation(gone=True)


def gone(one: JobBench, first: float, count: int = 3) -> None:
    for n in range(count):
        one.tell(seen(first + n * 20, GONE, attempt=one.job.attempt.number))


# ---- the straight way


def test_a_job_goes_from_accepted_to_its_published_result() -> None:
    one = bench()
    assert one.job.state is JobState.ACCEPTED
    assert one.tell(ev.Admitted(time=T + 1)) == [ev.Submit(1, 1, "slurm")]
    assert one.tell(ev.Submitted(time=T + 2, attempt=1, native_id="17")) == []
    assert one.tell(seen(3, observation("running", heartbeat=1.0))) == []
    done = Observation(found=found("succeeded"), record=record(one.job))
    assert one.tell(seen(9, done)) == [ev.Publish(1, {"peak": 3.25})]
    assert one.outstanding() == [ev.Publish(1, {"peak": 3.25})]
    one.tell(ev.Published(time=T + 10))
    assert one.outstanding() == []
    assert [line.state.value for line in story(one.job)] == [
        "accepted",
        "submitting",
        "queued",
        "running",
        "succeeded",
    ]
    assert [line.text for line in story(one.job)] == [
        "its start document says so",
        "given to slurm",
        "in the queue of slurm as 17",
        "running on slurm as 17",
        "exited with 0 after 2.5 s",
    ]


def test_what_is_submitted_is_the_place_of_the_attempt() -> None:
    submission = submission_of(queued().job, 1)
    assert submission.argv == ("/bin/true",)
    assert submission.job_name == f"bp-{submission.key[:16]}"


def test_the_story_carries_the_causes() -> None:
    job, _ = step(RULES, accept(unaccepted(), "documents[0]@7"), ev.Admitted(time=T, cause="p1"))
    assert [line.cause for line in story(job)] == ["documents[0]@7", "p1"]


def test_every_change_is_announced_and_counted() -> None:
    job = accept(unaccepted())
    job, commands = step(RULES, job, ev.Admitted(time=T + 1))
    assert commands[-1] == ev.Announce(0)
    job, commands = step(RULES, job, ev.Announced(time=T + 1, changes=2))
    assert commands == ()
    job, commands = step(RULES, job, ev.Submitted(time=T + 2, attempt=1, native_id="17"))
    assert commands == (ev.Announce(2),)
    assert outstanding(job)[1] == (ev.Announce(2),)


def test_the_revision_rises_with_a_change_and_only_then() -> None:
    one = queued()
    before = one.job.revision
    one.tell(ev.Submitted(time=T + 2, attempt=1, native_id="17"))
    assert one.job.revision == before
    one.tell(seen(3, observation("running")))
    assert one.job.revision == before + 1


def test_a_poll_without_news_need_not_be_stored() -> None:
    one = running()
    before = one.job.revision
    one.tell(seen(4, observation("running", heartbeat=2.0)), seen(40, GONE))
    one.tell(ev.PollFailed(time=T + 50, reason="stopped"))
    assert one.job.attempt.failed_polls == 1
    assert one.job.revision == before
    one.tell(ev.CancelRequested(time=T + 60), ev.Tick(time=T + 80))
    assert one.job.revision == before + 1


def test_a_stored_job_comes_back_from_its_json() -> None:
    one = running()
    one.tell(seen(9, Observation(record=record(one.job))))
    assert JobRecord.model_validate_json(one.job.model_dump_json()) == one.job


def test_a_job_with_a_key_that_is_not_its_own_is_not_accepted() -> None:
    with pytest.raises(ValueError, match="key"):
        accept(unaccepted().model_copy(update={"recipe": "another"}))


# ---- doubt


def test_a_doubtful_submission_is_looked_for_before_anything_else() -> None:
    one = submitting()
    assert one.tell(doubtful()) == [ev.Find(1, "slurm")]
    assert one.tell(ev.Admitted(time=T + 3)) == []
    assert one.job.state is JobState.SUBMITTING
    assert "not known whether slurm took it: timed out" in one.job.reason


def test_what_is_found_is_taken_as_ours_and_not_submitted_again() -> None:
    one = submitting()
    one.tell(doubtful())
    assert one.tell(searched(3, found("failed", "23", reason="NonZeroExitCode"))) == []
    assert (one.job.state, one.job.attempt.native_id) == (JobState.QUEUED, "23")


def test_of_two_found_the_one_that_runs_is_ours() -> None:
    one = submitting()
    one.tell(doubtful())
    one.tell(searched(3, found("queued", "23"), found("running", "24")))
    assert (one.job.state, one.job.attempt.native_id) == (JobState.RUNNING, "24")


def test_what_is_not_found_is_submitted_again_only_after_the_grace_period() -> None:
    one = submitting()
    one.tell(doubtful(2))
    assert one.tell(searched(3), searched(10), searched(21.9)) == []
    assert one.tell(searched(22)) == [ev.Submit(1, 2, "slurm")]
    assert one.job.attempt.number == 1


def test_one_search_alone_does_not_submit_again() -> None:
    one = submitting()
    one.tell(doubtful(2))
    assert one.tell(searched(100)) == []


def test_a_search_that_is_told_twice_counts_once() -> None:
    one = submitting()
    one.tell(doubtful(2))
    assert one.tell(searched(100), searched(100)) == []


def test_a_search_from_before_the_doubt_counts_nothing() -> None:
    one = submitting()
    one.tell(doubtful(30))
    assert one.tell(searched(29)) == []
    assert one.job.attempt.searches == 0


def test_searches_go_on_while_there_is_doubt() -> None:
    one = submitting()
    one.tell(doubtful(2))
    assert one.tell(ev.Tick(time=T + 6)) == []
    assert one.tell(ev.Tick(time=T + 7)) == [ev.Find(1, "slurm")]
    assert one.tell(ev.Tick(time=T + 8)) == []


def test_a_cluster_that_is_down_for_an_hour_leaves_a_doubt_open() -> None:
    one = submitting()
    one.tell(doubtful(2))
    for minute in range(60):
        one.tell(ev.PollFailed(time=T + 60 * minute, reason="no controller"))
    assert one.job.state is JobState.SUBMITTING
    assert one.tell(searched(3601, found("running"))) == []
    assert one.job.state is JobState.RUNNING


def test_a_submission_without_any_answer_is_doubtful_after_its_deadline() -> None:
    one = submitting()
    assert one.tell(ev.Tick(time=T + 120)) == []
    assert one.tell(ev.Tick(time=T + 121)) == [ev.Find(1, "slurm")]


def test_a_late_answer_ends_the_doubt() -> None:
    one = submitting()
    one.tell(doubtful(), ev.Submitted(time=T + 3, attempt=1, native_id="17"))
    assert one.job.state is JobState.QUEUED
    assert one.tell(ev.Tick(time=T + 50)) == []


def test_a_crash_while_submitting_is_a_doubt() -> None:
    one = submitting()
    assert one.tell(ev.Recovered(time=T + 2)) == [ev.Find(1, "slurm")]


def test_a_crash_is_no_doubt_where_the_answer_is_stored() -> None:
    assert queued().tell(ev.Recovered(time=T + 3)) == []


def test_the_refusal_of_an_earlier_submission_decides_nothing() -> None:
    one = submitting()
    one.tell(doubtful(2), searched(3), searched(30))
    assert one.job.attempt.submissions == 2
    one.tell(refused(31, submission=1))
    assert one.job.state is JobState.SUBMITTING


def test_in_doubt_a_refusal_decides_nothing() -> None:
    one = submitting()
    one.tell(doubtful(2), refused(3))
    assert one.job.state is JobState.SUBMITTING


def test_what_was_submitted_twice_is_not_polled_by_one_id() -> None:
    one = submitting()
    one.tell(doubtful(2), searched(3), searched(30))
    one.tell(ev.Submitted(time=T + 31, attempt=1, native_id="18"))
    assert one.job.attempt.watched is None
    assert one.tell(ev.CancelRequested(time=T + 40)) == [ev.Cancel(1, "slurm")]


def test_an_entry_of_an_earlier_attempt_is_not_found_as_this_one() -> None:
    one = queued()
    one.tell(seen(5, Observation(record=record(one.job, exit_code=1))))
    one.tell(ev.RetryRequested(time=T + 6), ev.Admitted(time=T + 7))
    one.tell(ev.Doubtful(time=T + 8, attempt=2, submission=1, reason="timed out"))
    one.tell(searched(9, found("failed", "17"), attempt=2))
    assert one.job.state is JobState.SUBMITTING
    one.tell(searched(10, found("failed", "99", attempt=1), attempt=2))
    assert one.job.state is JobState.SUBMITTING
    one.tell(searched(11, found("queued", "100", attempt=2), attempt=2))
    assert one.job.attempt.native_id == "100"


# ---- refusals, places, back-pressure


def test_a_permanent_refusal_fails_with_the_sentence_of_the_scheduler() -> None:
    one = submitting()
    assert one.tell(refused()) == []
    assert (one.job.state, one.job.reason) == (JobState.FAILED, "Invalid partition")


def test_a_permanent_refusal_goes_on_to_the_next_target() -> None:
    one = submitting("slurm", "local")
    one.tell(refused())
    assert (one.job.state, one.job.attempt.number) == (JobState.ACCEPTED, 2)
    assert one.job.place.target == "local"
    assert one.job.reason == "goes on to local: Invalid partition"
    assert one.tell(ev.Admitted(time=T + 3)) == [ev.Submit(2, 1, "local")]


def test_what_may_be_there_of_a_refused_attempt_is_kept_from_starting() -> None:
    one = submitting("slurm", "local")
    one.tell(doubtful(2), searched(3), searched(30))
    assert one.tell(refused(31, submission=2)) == [ev.Cancel(1, "slurm")]
    assert one.job.place.target == "local"


def test_what_was_deferred_is_kept_from_starting_when_it_is_cancelled() -> None:
    one = submitting()
    one.tell(refused(permanent=False))
    assert one.tell(ev.CancelRequested(time=T + 9)) == [ev.Cancel(1, "slurm")]


def test_a_full_target_defers_and_nothing_is_dropped() -> None:
    one = submitting("slurm", "local")
    one.tell(refused(permanent=False))
    assert (one.job.state, one.job.place.target) == (JobState.DEFERRED, "slurm")
    assert one.job.reason == "Invalid partition"
    assert one.tell(ev.Admitted(time=T + 3.9)) == []
    assert one.tell(ev.Admitted(time=T + 4)) == [ev.Submit(1, 2, "slurm")]


def test_the_pause_after_a_refusal_doubles_up_to_its_limit() -> None:
    one, pauses, now = bench(), [], T
    for number in range(1, 100):
        now = max(now, one.job.attempt.not_before)
        one.tell(ev.Admitted(time=now))
        one.tell(ev.NotSent(time=now, attempt=1, submission=number, reason="ssh: refused"))
        pauses.append(one.job.attempt.not_before - now)
    assert pauses[:6] == [2, 4, 8, 16, 32, 60]
    assert pauses[-1] == 60
    assert one.job.attempt.number == 1
    assert [line.text for line in story(one.job)][1:] == ["given to slurm", "ssh: refused"]


def test_a_job_that_is_held_says_why() -> None:
    one = bench()
    one.tell(ev.Held(time=T, reason="slurm has 40 jobs under way, which is its limit"))
    assert (one.job.state, one.job.reason) == (
        JobState.DEFERRED,
        "slurm has 40 jobs under way, which is its limit",
    )
    lines = len(one.job.history)
    one.tell(ev.Held(time=T + 1, reason="slurm has 40 jobs under way, which is its limit"))
    assert len(one.job.history) == lines


def test_a_place_with_a_fault_is_passed_over_and_told() -> None:
    places = (
        Place(target="slurm", argv=("x",), fault="/data/f.h5 is below none of its roots"),
        Place(target="local", argv=("x",)),
    )
    job = accept(unaccepted(places=places))
    assert job.place.target == "local"
    assert job.history[-1].text == ("slurm cannot take it: /data/f.h5 is below none of its roots")


def test_different_faults_of_all_places_are_all_told() -> None:
    places = (
        Place(target="slurm", argv=("x",), fault="no reservation"),
        Place(target="local", argv=("x",), fault="not here"),
    )
    job = accept(unaccepted(places=places))
    assert job.reason == "slurm cannot take it: no reservation; local cannot take it: not here"


def test_a_job_is_accepted_once() -> None:
    with pytest.raises(ValueError, match="attempts already"):
        accept(accept(unaccepted()))


def test_a_job_that_no_place_can_take_fails_before_any_submission() -> None:
    places = (Place(target="slurm", argv=("x",), fault="{start.sample} has no value"),)
    one = JobBench(accept(unaccepted(places=places)), RULES)
    assert one.job.state is JobState.FAILED
    assert one.job.reason == "{start.sample} has no value"
    assert one.tell(ev.Admitted(time=T), ev.RetryRequested(time=T)) == []
    assert one.job.state is JobState.FAILED


# ---- waits


def test_who_waits_longer_than_allowed_moves_when_the_cancellation_is_confirmed() -> None:
    one = queued("slurm", "local", wait_s=60.0)
    assert one.tell(ev.Tick(time=T + 60)) == []
    assert one.tell(ev.Tick(time=T + 61)) == [ev.Cancel(1, "slurm")]
    assert one.job.attempt.number == 1
    one.tell(seen(62, observation("cancelled")))
    assert (one.job.attempt.number, one.job.place.target) == (2, "local")
    assert "its wait of 61 s is longer than the 60 s that its recipe allows" in one.job.reason


def test_who_starts_before_it_is_cancelled_does_not_move() -> None:
    one = queued("slurm", "local", wait_s=60.0)
    one.tell(ev.Tick(time=T + 61))
    one.tell(seen(62, observation("running", heartbeat=0.1)))
    done = Observation(found=found("succeeded"), record=record(one.job))
    assert one.tell(seen(63, done)) == [ev.Publish(1, {"peak": 3.25})]
    assert one.job.attempt.number == 1


def test_who_is_stopped_in_its_work_to_be_moved_moves() -> None:
    one = queued("slurm", "local", wait_s=60.0)
    one.tell(ev.Tick(time=T + 61))
    stopped = record(one.job, reason=EndReason.CANCELLED, exit_code=None, signal=15)
    one.tell(seen(63, Observation(record=stopped)))
    assert one.job.attempts[0].state is JobState.CANCELLED
    assert (one.job.attempt.number, one.job.place.target) == (2, "local")


def test_an_expected_wait_that_is_too_long_moves_at_once() -> None:
    one = bench("slurm", "local", wait_s=60.0)
    one.tell(ev.Expected(time=T + 1, attempt=1, seconds=59.0))
    assert one.job.place.target == "slurm"
    one.tell(ev.Expected(time=T + 1, attempt=1, seconds=59.5))
    assert one.job.place.target == "local"


def test_who_waits_in_a_queue_that_foresees_too_long_a_wait_moves_before_it_is_over() -> None:
    one = queued("slurm", "local", wait_s=60.0)
    in_time = found("queued", expected=T + 59.0)
    assert one.tell(seen(11, Observation(found=in_time))) == []
    late = found("queued", expected=T + 3600.0)
    assert one.tell(seen(12, Observation(found=late))) == [ev.Cancel(1, "slurm")]
    text = "its wait of 3600 s (3588 s more, as slurm expects) is longer than the 60 s that"
    assert text in one.job.history[-1].text


def test_without_leave_of_the_recipe_a_job_waits_for_ever() -> None:
    one = queued("slurm", "local")
    one.tell(ev.Expected(time=T + 9, attempt=1, seconds=1e6), ev.Tick(time=T + 1e6))
    assert (one.job.state, one.job.attempt.number) == (JobState.QUEUED, 1)


def test_on_its_last_place_a_job_waits_for_ever() -> None:
    one = queued("slurm", wait_s=60.0)
    assert one.tell(ev.Tick(time=T + 1e6)) == []


# ---- polls


def test_a_failed_poll_changes_nothing_but_a_counter() -> None:
    one = running()
    before = one.job
    one.tell(*[ev.PollFailed(time=T + n, reason="stopped") for n in range(10, 100)])
    attempt = one.job.attempt
    assert attempt.failed_polls == 90
    assert attempt.model_copy(update={"failed_polls": 0}) == before.attempt
    assert one.job.history == before.history


def test_gone_is_lost_only_after_enough_polls_and_the_grace_period() -> None:
    one = running()
    one.tell(seen(40, GONE), seen(41, GONE), seen(42, GONE), seen(69.9, GONE))
    assert one.job.state is JobState.RUNNING
    one.tell(seen(70, GONE))
    assert one.job.state is JobState.LOST
    assert one.job.reason == "slurm does not know it any more, and there is no record"


def test_few_polls_are_not_enough_to_be_lost() -> None:
    one = running()
    one.tell(seen(40, GONE), seen(4000, GONE))
    assert one.job.state is JobState.RUNNING


def test_a_poll_that_is_told_again_counts_once() -> None:
    one = running()
    one.tell(seen(40, GONE), seen(4000, GONE), seen(4000, GONE), seen(3999, GONE))
    assert one.job.attempt.silent_polls == 2


def test_a_poll_from_before_it_was_there_counts_nothing() -> None:
    one = queued()
    one.tell(seen(1.5, GONE))
    assert one.job.attempt.silent_polls == 0


def test_seen_again_starts_the_count_anew() -> None:
    one = running()
    one.tell(seen(40, GONE), seen(60, GONE), seen(61, observation("running", heartbeat=1.0)))
    gone(one, 62, 2)
    assert one.job.state is JobState.RUNNING


def test_a_heartbeat_counts_more_than_a_queue_that_knows_nothing() -> None:
    one = running()
    for n in range(10):
        one.tell(seen(40 + n * 20, Observation(gone=True, heartbeat=2.0)))
    assert one.job.state is JobState.RUNNING


def test_a_poll_that_saw_nothing_at_all_decides_nothing() -> None:
    one = running()
    for n in range(10):
        one.tell(seen(40 + n * 20, Observation()))
    assert one.job.state is JobState.RUNNING


def test_the_record_decides_not_the_queue() -> None:
    one = running()
    failed = record(one.job, exit_code=4, detail="")
    one.tell(seen(9, Observation(found=found("succeeded"), record=failed)))
    assert (one.job.state, one.job.reason) == (
        JobState.FAILED,
        "exited with 4 after 2.5 s",
    )


@pytest.mark.parametrize(
    ("reason", "changes", "state", "sentence"),
    [
        (
            "timed_out",
            {"exit_code": None, "signal": 9},
            "timed_out",
            "timed out: ended by signal 9",
        ),
        ("memory", {"exit_code": None}, "failed", "memory after 2.5 s"),
        ("signalled", {"exit_code": None, "signal": 11}, "failed", "ended by signal 11"),
        ("cancelled", {"exit_code": None}, "cancelled", "cancelled after"),
        ("not_started", {"exit_code": None, "detail": "no such file"}, "failed", "no such file"),
        ("no_result", {"detail": "peak is missing"}, "failed", "no result: exited with 0"),
    ],
)
def test_each_end_has_its_state_and_its_sentence(
    reason: str, changes: dict[str, Any], state: str, sentence: str
) -> None:
    one = running()
    one.tell(seen(9, Observation(record=record(one.job, reason=EndReason(reason), **changes))))
    assert one.job.state.value == state
    assert sentence in one.job.reason


def test_a_result_without_a_number_that_the_recipe_names_has_failed() -> None:
    one = running()
    assert one.tell(seen(9, Observation(record=record(one.job, numbers={"width": 1.0})))) == []
    assert (one.job.state, one.job.reason) == (
        JobState.FAILED,
        "its result lacks the number peak",
    )


def test_only_the_numbers_that_the_recipe_names_are_published() -> None:
    one = running()
    seen_record = record(one.job, numbers={"peak": 1.0, "other": 2.0})
    assert one.tell(seen(9, Observation(record=seen_record))) == [ev.Publish(1, {"peak": 1.0})]


def test_without_a_result_nothing_is_published() -> None:
    one = running(result=None)
    assert one.tell(seen(9, Observation(record=record(one.job)))) == []
    assert one.job.state is JobState.SUCCEEDED


def test_the_record_of_another_job_is_not_used_and_told() -> None:
    one = running()
    one.tell(seen(9, Observation(record=record(one.job, key="f" * 64))))
    assert one.job.state is JobState.RUNNING
    assert one.job.history[-1].text == "its folder holds the record of another attempt: not used"


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("failed", "failed"),
        ("timed_out", "timed_out"),
        ("cancelled", "cancelled"),
        ("succeeded", "lost"),
        ("lost", "lost"),
    ],
)
def test_without_a_record_the_queue_is_believed_but_for_success(said: str, state: str) -> None:
    one = running()
    for after in (40, 60, 80):
        entry = found(said, reason="NodeFail")
        one.tell(seen(after, Observation(found=entry)))
    assert one.job.state.value == state
    assert "NodeFail" in one.job.reason


def test_a_record_after_lost_is_kept_and_lost_stays() -> None:
    one = running()
    gone(one, 40)
    assert one.job.state is JobState.LOST
    late = record(one.job)
    assert one.tell(seen(500, Observation(record=late))) == []
    assert one.job.state is JobState.LOST
    assert one.job.attempt.late_record == late
    assert one.job.history[-1].text == "a record of attempt 1 came after its end: succeeded"
    assert one.tell(ev.Published(time=T + 501)) == []
    assert one.job.published is None


def test_the_record_that_decided_an_end_is_not_late_when_it_is_seen_again() -> None:
    one = running()
    decided = Observation(record=record(one.job, exit_code=1))
    one.tell(seen(9, decided))
    lines = len(one.job.history)
    one.tell(seen(10, decided))
    assert one.job.attempt.late_record is None
    assert len(one.job.history) == lines


def test_a_requeue_does_not_take_the_state_back() -> None:
    one = running()
    one.tell(seen(9, observation("queued")))
    assert one.job.state is JobState.RUNNING
    assert "put back into the queue of slurm" in one.job.history[-1].text


def test_running_without_a_heartbeat_is_stopped_and_then_lost() -> None:
    one = running()
    stale = observation("running", heartbeat=300.0)
    assert one.tell(seen(9, stale)) == [ev.Cancel(1, "slurm")]
    assert one.job.state is JobState.RUNNING
    gone(one, 20)
    assert one.job.state is JobState.LOST
    assert "no sign from its wrapper for 300 s" in one.job.reason


def test_what_cannot_be_stopped_and_gives_no_sign_is_lost_in_the_end() -> None:
    one = running()
    one.tell(seen(400, observation("running", heartbeat=300.0)))
    one.tell(seen(3999, observation("running", heartbeat=3900.0)))
    assert one.job.state is JobState.RUNNING
    one.tell(seen(4000, observation("running", heartbeat=3900.0)))
    assert one.job.state is JobState.LOST
    assert "slurm was told to stop it and says that it runs" in one.job.reason


def test_what_gives_signs_is_never_given_up() -> None:
    one = running()
    one.tell(ev.CancelRequested(time=T + 4))
    one.tell(seen(40_000, observation("running", heartbeat=5.0)))
    assert one.job.state is JobState.RUNNING


def test_asked_is_about_what_may_be_there_and_what_may_still_leave_a_record() -> None:
    assert to_poll(RULES, bench().job, T) == []
    key = submitting().job.key
    assert to_poll(RULES, submitting().job, T) == [("slurm", (key, 1, None))]
    one = running()
    assert to_poll(RULES, one.job, T) == [("slurm", (key, 1, "17"))]
    gone(one, 40)
    one.tell(ev.RetryRequested(time=T + 100), searched(101), ev.Admitted(time=T + 102))
    assert to_poll(RULES, one.job, T + 103) == [
        ("slurm", (key, 1, "17")),
        ("slurm", (key, 2, None)),
    ]
    assert to_poll(RULES, one.job, T + 90_000) == [("slurm", (key, 2, None))]
    one.tell(seen(104, Observation(record=record(one.job, 1))))
    one.tell(seen(105, Observation(record=record(one.job, 2)), attempt=2))
    assert to_poll(RULES, one.job, T + 106) == []


def suspended(after: float) -> ev.Observed:
    found = Found(native_id="17", state=JobState.RUNNING, suspended=True)
    return seen(after, Observation(found=found, heartbeat=after))


def test_a_suspended_job_need_give_no_sign() -> None:
    one = running()
    for after in (400, 4000, 40_000):
        one.tell(suspended(after))
    assert one.job.state is JobState.RUNNING
    assert one.job.history[-1].text == "suspended on slurm"


def test_a_job_that_goes_on_has_its_time_to_give_a_sign() -> None:
    one = running()
    one.tell(suspended(4000))
    assert one.tell(seen(4001, observation("running", heartbeat=4000.0))) == []
    assert one.tell(seen(4299, observation("running", heartbeat=4300.0))) == []
    assert one.tell(seen(4301, observation("running", heartbeat=4300.0))) == [ev.Cancel(1, "slurm")]


def test_running_without_ever_a_heartbeat_is_stopped_too() -> None:
    one = queued()
    assert one.tell(seen(3, observation("running"))) == []
    assert one.tell(seen(302, observation("running"))) == []
    assert one.tell(seen(303, observation("running"))) == [ev.Cancel(1, "slurm")]


def test_an_entry_of_an_earlier_attempt_does_not_keep_this_one_alive() -> None:
    one = running()
    one.tell(seen(9, Observation(record=record(one.job, exit_code=1))))
    one.tell(ev.RetryRequested(time=T + 10), ev.Admitted(time=T + 11))
    one.tell(ev.Submitted(time=T + 12, attempt=2, native_id="18"))
    for after in (20, 40, 60):
        one.tell(seen(after, observation("running", native_id="17"), attempt=2))
    assert one.job.state is JobState.LOST


def test_an_entry_in_the_queue_is_not_of_a_job_that_was_never_submitted() -> None:
    one = bench()
    one.tell(seen(3, observation("running", heartbeat=None)))
    assert one.job.state is JobState.ACCEPTED


def test_cancelled_by_somebody_else_is_believed_after_the_grace_period() -> None:
    one = queued()
    one.tell(seen(3, observation("cancelled")))
    assert one.job.state is JobState.QUEUED
    one.tell(seen(20, observation("cancelled")), seen(33, observation("cancelled")))
    assert (one.job.state, one.job.reason) == (JobState.CANCELLED, "slurm says cancelled")


# ---- people


def test_a_waiting_job_is_cancelled_at_once() -> None:
    one = bench()
    assert one.tell(ev.CancelRequested(time=T, by="ana", reason="wrong sample")) == []
    assert (one.job.state, one.job.reason) == (
        JobState.CANCELLED,
        "cancelled by ana: wrong sample",
    )


def test_a_running_job_is_cancelled_when_that_is_confirmed() -> None:
    one = running()
    assert one.tell(ev.CancelRequested(time=T + 9)) == [ev.Cancel(1, "slurm")]
    assert one.job.state is JobState.RUNNING
    assert one.tell(ev.CancelRequested(time=T + 10)) == []
    assert one.tell(ev.Tick(time=T + 24)) == [ev.Cancel(1, "slurm")]
    stopped = record(one.job, reason=EndReason.CANCELLED, exit_code=None)
    one.tell(seen(25, Observation(record=stopped)))
    assert one.job.state is JobState.CANCELLED


def test_a_cancel_during_submission_is_sent_at_once_and_when_it_is_there() -> None:
    one = submitting()
    assert one.tell(ev.CancelRequested(time=T + 2)) == [ev.Cancel(1, "slurm")]
    submitted = ev.Submitted(time=T + 3, attempt=1, native_id="17")
    assert one.tell(submitted) == [ev.Cancel(1, "slurm")]


def test_a_cancel_in_doubt_ends_it_when_nothing_is_found() -> None:
    one = submitting()
    one.tell(doubtful(2), ev.CancelRequested(time=T + 3), searched(4))
    assert one.job.state is JobState.SUBMITTING
    assert one.tell(searched(30)) == [ev.Cancel(1, "slurm")]
    assert one.job.state is JobState.CANCELLED


def test_what_comes_into_the_queue_after_its_end_is_cancelled() -> None:
    one = submitting()
    one.tell(doubtful(2), ev.CancelRequested(time=T + 3), searched(4), searched(30))
    late = ev.Submitted(time=T + 31, attempt=1, native_id="17")
    assert one.tell(late) == [ev.Cancel(1, "slurm")]
    assert one.job.state is JobState.CANCELLED


def test_a_cancel_stands_over_a_move() -> None:
    one = queued("slurm", "local", wait_s=60.0)
    one.tell(ev.Tick(time=T + 61))
    assert one.tell(ev.CancelRequested(time=T + 62, by="ana")) == [ev.Cancel(1, "slurm")]
    one.tell(seen(63, observation("cancelled")))
    assert (one.job.state, one.job.attempt.number) == (JobState.CANCELLED, 1)


def test_a_cancelled_submission_that_is_refused_does_not_go_to_the_next_target() -> None:
    one = submitting("slurm", "local")
    one.tell(ev.CancelRequested(time=T + 1.5), refused(2))
    assert (one.job.state, one.job.attempt.number) == (JobState.CANCELLED, 1)


def test_who_succeeds_before_the_cancel_arrives_has_succeeded() -> None:
    one = running()
    one.tell(ev.CancelRequested(time=T + 9))
    assert one.tell(seen(10, Observation(record=record(one.job)))) == [
        ev.Publish(1, {"peak": 3.25})
    ]


def test_a_failed_job_is_tried_again_only_by_a_person() -> None:
    one = running()
    one.tell(seen(9, Observation(record=record(one.job, exit_code=1))))
    assert one.tell(ev.Tick(time=T + 1e5), ev.Admitted(time=T + 1e5)) == []
    one.tell(ev.RetryRequested(time=T + 1e5, by="ana", reason="calibrated"))
    assert (one.job.state, one.job.attempt.number) == (JobState.ACCEPTED, 2)
    assert one.job.reason == "tried again by ana: calibrated"


def test_a_job_that_succeeded_is_never_tried_again() -> None:
    one = running()
    one.tell(seen(9, Observation(record=record(one.job))))
    one.tell(ev.RetryRequested(time=T + 10))
    assert (one.job.state, one.job.attempt.number) == (JobState.SUCCEEDED, 1)


def test_a_lost_job_is_tried_again_only_when_it_is_certainly_gone() -> None:
    one = running()
    gone(one, 40)
    commands = one.tell(ev.RetryRequested(time=T + 100, by="ana"))
    assert commands == [ev.Cancel(1, "slurm"), ev.Find(1, "slurm")]
    assert one.tell(searched(99)) == []
    assert one.job.attempt.number == 1
    assert one.tell(searched(101, found("running"))) == [ev.Cancel(1, "slurm")]
    assert one.job.attempt.number == 1
    assert one.tell(ev.Tick(time=T + 106)) == [ev.Find(1, "slurm")]
    one.tell(searched(107, found("cancelled")))
    assert (one.job.state, one.job.attempt.number) == (JobState.ACCEPTED, 2)


def test_a_late_record_makes_the_end_of_a_lost_job_certain() -> None:
    one = running()
    gone(one, 40)
    one.tell(seen(100, Observation(record=record(one.job, exit_code=1))))
    one.tell(ev.RetryRequested(time=T + 101))
    assert one.job.attempt.number == 2


def test_a_retry_that_waits_can_be_cancelled() -> None:
    one = running()
    gone(one, 40)
    one.tell(ev.RetryRequested(time=T + 100), ev.CancelRequested(time=T + 101))
    one.tell(searched(107))
    assert (one.job.state, one.job.attempt.number) == (JobState.LOST, 1)


def test_a_late_record_of_an_earlier_attempt_does_not_touch_the_newest() -> None:
    one = running()
    gone(one, 40)
    one.tell(ev.RetryRequested(time=T + 100), searched(101), ev.Admitted(time=T + 102))
    one.tell(seen(103, Observation(record=record(one.job, 1))))
    assert one.job.attempts[0].late_record is not None
    assert (one.job.state, one.job.attempt.number) == (JobState.SUBMITTING, 2)


# ---- recovery


def test_an_order_to_stop_is_given_again_after_a_crash() -> None:
    one = running()
    one.tell(ev.CancelRequested(time=T + 9))
    assert one.tell(ev.Recovered(time=T + 10)) == [ev.Cancel(1, "slurm")]


def test_a_result_that_did_not_go_out_goes_out_after_a_crash() -> None:
    one = running()
    one.tell(seen(9, Observation(record=record(one.job))))
    assert one.tell(ev.Recovered(time=T + 10)) == [ev.Publish(1, {"peak": 3.25})]
    one.tell(ev.Published(time=T + 11))
    assert one.tell(ev.Recovered(time=T + 12)) == []


def test_a_doubt_is_still_a_doubt_after_a_crash() -> None:
    one = submitting()
    one.tell(doubtful())
    assert one.tell(ev.Recovered(time=T + 3)) == [ev.Find(1, "slurm")]
    assert one.job.attempt.doubt == T + 2


def test_events_about_attempts_that_never_were_change_nothing() -> None:
    one = queued()
    before = one.job
    one.tell(
        ev.Submitted(time=T, attempt=2, native_id="1"),
        ev.Submitted(time=T, attempt=0, native_id="1"),
        seen(9, GONE, attempt=3),
        ev.Expected(time=T, attempt=2, seconds=1e9),
    )
    assert one.job == before
