"""Who is let through to a target, and what the others are told."""

from __future__ import annotations

from bluesky_plugins.processing.jobs import events as ev
from bluesky_plugins.processing.jobs.admission import AT_ONCE, admissions
from bluesky_plugins.processing.jobs.job import JobRecord
from bluesky_plugins.processing.jobs.machine import Rules, accept, step
from bluesky_plugins.testing.jobs import unaccepted

RULES = Rules()


def job(n: int, *targets: str) -> JobRecord:
    return accept(unaccepted(targets or ("slurm",), fresh=f"job {n}", time=1000.0 + n))


def after(one: JobRecord, *events: ev.Event) -> JobRecord:
    for event in events:
        one, _ = step(RULES, one, event)
    return one


def queued(one: JobRecord) -> JobRecord:
    submitted = ev.Submitted(time=1001, attempt=1, native_id="1")
    return after(one, ev.Admitted(time=1000), submitted)


def refused(one: JobRecord, time: float = 1000.0) -> JobRecord:
    admitted = ev.Admitted(time=time)
    return after(one, admitted, ev.NotSent(time=time, attempt=1, submission=1, reason="ssh: no"))


def test_jobs_go_in_the_order_in_which_they_were_accepted() -> None:
    jobs = [job(n) for n in (3, 1, 2, 0)]
    verdicts = admissions(jobs, {"slurm": 2}, 2000)
    assert [one.key for one in verdicts] == [job(n).key for n in range(4)]
    limit = "slurm has 2 jobs under way, which is its limit"
    assert [one.held for one in verdicts] == [None, None, limit, limit]


def test_what_is_under_way_counts_for_the_limit() -> None:
    (verdict,) = admissions([queued(job(0)), job(1)], {"slurm": 1}, 2000)
    assert verdict.held == "slurm has 1 jobs under way, which is its limit"


def test_a_full_target_does_not_hold_the_jobs_of_another() -> None:
    jobs = [queued(job(0)), job(1), job(2, "local")]
    held = {one.key: one.held for one in admissions(jobs, {"slurm": 1}, 2000)}
    assert held[jobs[2].key] is None


def test_a_target_without_a_limit_takes_all() -> None:
    assert all(one.held is None for one in admissions([job(n) for n in range(50)], {}, 2000))


def test_a_target_that_took_nothing_is_left_alone_for_the_pause() -> None:
    verdicts = admissions([refused(job(0)), job(1)], {}, 1001.9)
    assert [one.held for one in verdicts] == ["ssh: no", "slurm takes nothing at present: ssh: no"]


def test_a_target_that_took_nothing_is_asked_again_with_one_job() -> None:
    jobs = [refused(job(0)), refused(job(1)), job(2)]
    first, second, third = admissions(jobs, {}, 1002)
    assert first.held is None
    assert second.held == "ssh: no"
    assert third.held == "slurm takes nothing at present: ssh: no"


def test_while_it_is_asked_again_the_others_wait() -> None:
    probe = after(refused(job(0)), ev.Admitted(time=1002))
    (verdict,) = admissions([probe, job(1)], {}, 1003)
    assert verdict.held == "slurm is being asked again, with one job"


def test_when_it_takes_one_again_all_go() -> None:
    probe = after(
        refused(job(0)),
        ev.Admitted(time=1002),
        ev.Submitted(time=1003, attempt=1, native_id="1"),
    )
    (verdict,) = admissions([probe, job(1)], {}, 1004)
    assert verdict.held is None


def test_a_doubt_about_one_does_not_hold_the_others() -> None:
    doubt = ev.Doubtful(time=1001, attempt=1, submission=1, reason="timed out")
    doubtful = after(job(0), ev.Admitted(time=1000), doubt)
    (verdict,) = admissions([doubtful, job(1)], {}, 1004)
    assert verdict.held is None


def test_while_a_target_is_down_the_stories_of_those_that_wait_do_not_grow() -> None:
    probe, waits = job(0), job(1)
    lines = set()
    for n in range(20):
        now = 2000.0 + 100 * n
        for one in admissions([waits, probe], {}, now):
            if one.key == waits.key and one.held is not None:
                waits = after(waits, ev.Held(time=now, reason=one.held))
        probe = after(probe, ev.Admitted(time=now))
        for one in admissions([waits, probe], {}, now + 1):
            if one.key == waits.key and one.held is not None:
                waits = after(waits, ev.Held(time=now + 1, reason=one.held))
        submission = probe.attempt.submissions
        gone = ev.NotSent(time=now + 2, attempt=1, submission=submission, reason="ssh: no")
        probe = after(probe, gone)
        lines.add(len(waits.history))
    assert max(lines) <= 3


def test_of_a_burst_a_few_are_given_at_a_time_and_the_others_are_told_nothing() -> None:
    burst = [job(n) for n in range(20)]
    first = admissions(burst, {}, 2000)
    assert [one.key for one in first] == [one.key for one in burst[:AT_ONCE]]
    assert {one.held for one in first} == {None}
    given = [after(one, ev.Admitted(time=2000)) for one in burst[:AT_ONCE]]
    assert admissions([*given, *burst[AT_ONCE:]], {}, 2001) == []
    given[0] = after(given[0], ev.Submitted(time=2001, attempt=1, native_id="1"))
    (next_one,) = admissions([*given, *burst[AT_ONCE:]], {}, 2002)
    assert next_one.key == burst[AT_ONCE].key
