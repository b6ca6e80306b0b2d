"""The machine of a batch, on its log alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bluesky_plugins.adaptive import Action, NoRecommendation, Outcome, RequestPause
from bluesky_plugins.adaptive.log import Cause
from bluesky_plugins.adaptive.model import Suggestion, suggestion_uid
from bluesky_plugins.adaptive.registry import Registry
from bluesky_plugins.adaptive.state import Phase, Published, story
from bluesky_plugins.testing.batches import (
    BATCH,
    Bench,
    batch_event,
    command,
    descriptor,
    event,
    opened,
    refused,
    rules,
    run,
    start,
    stop,
)


def row(x: Any, y: Any = 1.0) -> dict[str, Any]:
    return {"motor": x, "det": y}


def values(suggestion: Suggestion) -> tuple[Any, ...]:
    return suggestion.batch_count, suggestion.revision, suggestion.action.value, suggestion.point


class Scripted:
    """Answers with what it was given; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.rows: list[Any] = []
        self.rejected: list[Any] = []

    def ingest_many(self, xs: Any, ys: Any) -> None:
        self.rows.append((xs.tolist(), ys.tolist()))

    def suggest(self, n: int) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def reject(self, point: Any, reason: str) -> None:
        self.rejected.append((point, reason))


def scripted(*answers: Any, **changes: Any) -> tuple[Bench, Scripted]:
    recommender = Scripted(*answers)
    registry = Registry({"scripted": lambda: recommender})
    bench = Bench(rules(registry, name="scripted", parameters={}, **changes), registry)
    bench.feed(opened())
    return bench, recommender


def test_seventeen_runs_from_0_to_24() -> None:
    bench = Bench()
    bench.feed(opened())
    x, points, action = 0.0, [], Action.MOVE
    while action is Action.MOVE:
        (answer,) = bench.feed(*run(len(points), row(x)))
        points.append(x)
        action = answer.action
        x = answer.point.get("motor", x)
    assert points == [1.5 * n for n in range(17)]
    assert answer.reason == "max_count 15 is reached"
    assert bench.violations == []


def test_all_rows_of_a_run_are_ingested_together_and_answered_once() -> None:
    bench, recommender = scripted(7.0)
    answers = bench.feed(*run(0, row(0, 1), row(1, 2), row(2.5, 3)))
    assert recommender.rows == [([[0.0], [1.0], [2.5]], [[1.0], [2.0], [3.0]])]
    assert [values(a) for a in answers] == [(0, 0, "move", {"motor": 7.0})]


def test_a_run_counts_only_when_its_stop_says_success() -> None:
    bench, recommender = scripted(7.0)
    assert bench.feed(*run(0, row(0), uid="a", status="abort")) == []
    assert bench.feed(*run(0, row(3), uid="b", status="fail")) == []
    assert len(bench.feed(*run(0, row(5), uid="c"))) == 1
    assert recommender.rows == [([[5.0]], [[1.0]])]


def test_an_incomplete_run_is_replaced_by_the_next_of_its_count() -> None:
    bench, recommender = scripted(7.0)
    bench.feed(start(0, "a"), descriptor("a"), event("a", row(1)))
    assert len(bench.feed(*run(0, row(2), uid="b"))) == 1
    assert bench.feed(stop("a")) == []
    assert recommender.rows == [([[2.0]], [[1.0]])]


def test_a_second_complete_run_is_no_data_and_the_answer_is_repeated_unchanged() -> None:
    bench, recommender = scripted(7.0)
    first = bench.feed(*run(0, row(2), uid="a"))
    assert bench.feed(*run(0, row(9), uid="b")) == first
    assert len(recommender.rows) == 1


def test_a_repeated_message_changes_nothing() -> None:
    bench = Bench()
    bench.feed(opened(), *run(0, row(0)))
    state = bench.state
    assert bench.feed(*run(0, row(0))) == []
    assert bench.state is state


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (row(0.0, math.nan), "the reading of det is nan"),
        (row(math.inf), "the reading of motor is inf"),
        (row(0.0, "3"), "the reading of det is no number but '3'"),
        (row(0.0, None), "the reading of det is no number but None"),
        (row(0.0, [1.0, 2.0]), "the reading of det is no number but [1.0, 2.0]"),
        (row(0.0, np.array([1.0])), "the reading of det is no number but array([1.])"),
        ({"motor": 0.0}, "no event of the run has a reading of det"),
        ({"other": 1.0}, "no event of the run has a reading of det, motor"),
    ],
)
def test_readings_that_are_no_numbers_stop_the_batch_with_the_key(
    reading: Any, reason: str
) -> None:
    bench, recommender = scripted(7.0)
    (answer,) = bench.feed(*run(0, reading))
    assert (answer.action, answer.reason) == (Action.STOP, reason)
    assert recommender.rows == []


def test_a_run_without_events_stops_the_batch() -> None:
    bench, _ = scripted(7.0)
    (answer,) = bench.feed(*run(0))
    assert (answer.action, answer.reason) == (Action.STOP, "the run has no events")


@pytest.mark.parametrize("reading", [3, True, np.float32(3), np.int64(3), np.array(3.0)])
def test_any_kind_of_number_is_a_reading(reading: Any) -> None:
    bench, recommender = scripted(7.0)
    (answer,) = bench.feed(*run(0, row(reading)))
    assert answer.action is Action.MOVE
    assert recommender.rows == [([[float(reading)]], [[1.0]])]


def test_the_primary_stream_is_preferred_and_other_streams_serve_without_it() -> None:
    bench, recommender = scripted(1.0, 2.0)
    other = [descriptor("run0", "baseline"), event("run0", row(9), 1, "baseline")]
    first, *rest, last = run(0, row(0))
    bench.feed(first, *other, *rest, last)
    only = [descriptor("run1", "baseline"), event("run1", row(8), 1, "baseline")]
    bench.feed(start(1), *only, stop("run1"))
    assert [xs for xs, _ in recommender.rows] == [[[0.0]], [[8.0]]]


def test_event_mode_answers_each_event_by_its_number() -> None:
    bench = Bench()
    bench.feed(opened(batch_mode="event"), start(0, batch_mode="event"), descriptor("run0"))
    answers = [bench.feed(event("run0", row(x), n))[0] for n, x in enumerate((0.0, 1.5), 1)]
    assert [values(a) for a in answers] == [
        (0, 0, "move", {"motor": 1.5}),
        (1, 0, "move", {"motor": 3.0}),
    ]
    assert bench.feed(stop("run0")) == []


def test_event_mode_goes_on_from_the_starts_batch_count() -> None:
    bench = Bench()
    bench.feed(start(4, batch_mode="event"), descriptor("run4"))
    (answer,) = bench.feed(event("run4", row(1.0), 2))
    assert answer.batch_count == 5


def test_event_mode_repeats_the_answer_for_an_event_taken_again() -> None:
    bench = Bench()
    bench.feed(start(0, batch_mode="event"), descriptor("run0"))
    first = bench.feed(event("run0", row(1.0), 1))
    name, again = event("run0", row(1.2), 1)
    assert bench.feed((name, {**again, "uid": "again"})) == first


def test_other_streams_are_not_answered_in_event_mode() -> None:
    bench = Bench()
    bench.feed(start(0, batch_mode="event"), descriptor("run0", "baseline"))
    assert bench.feed(event("run0", row(1.0), 1, "baseline")) == []


def test_a_refused_point_is_told_to_the_recommender_and_asked_anew() -> None:
    bench, recommender = scripted(7.0, 8.0)
    (first,) = bench.feed(*run(0, row(0)))
    (second,) = bench.feed(refused(first, "too far"))
    assert values(second) == (0, 1, "move", {"motor": 8.0})
    assert recommender.rejected == [({"motor": 7.0}, "too far")]


def test_refusals_end_in_a_stop_that_says_why() -> None:
    bench = Bench(rules(max_revisions=2))
    (answer,) = bench.feed(opened(), *run(0, row(0)))
    for revision in (1, 2):
        (answer,) = bench.feed(refused(answer))
        assert values(answer) == (0, revision, "move", {"motor": 1.5})
    (answer,) = bench.feed(refused(answer, "beyond the limit"))
    assert values(answer) == (0, 3, "stop", {})
    assert answer.reason == "refused 3 times, the last time because beyond the limit"


def test_a_refusal_of_what_does_not_stand_has_no_effect() -> None:
    bench, _ = scripted(7.0, 8.0)
    (first,) = bench.feed(*run(0, row(0)))
    bench.feed(refused(first))
    assert bench.feed(refused(first)) == []
    unknown = first.model_copy(update={"batch_count": 5})
    assert bench.feed(refused(unknown)) == []


def test_a_pause_is_the_next_answer_and_a_resume_brings_the_next_revision() -> None:
    bench = Bench()
    bench.feed(opened(), *run(0, row(0)), command("pause", by="me", reason="look"))
    (paused,) = bench.feed(*run(1, row(1.5)))
    assert values(paused) == (1, 0, "pause", {})
    assert paused.reason == "pause by me: look"
    assert bench.feed(command("pause")) == []
    (resumed,) = bench.feed(command("resume"))
    assert values(resumed) == (1, 1, "move", {"motor": 3.0})
    assert bench.feed(command("resume")) == []


def test_a_resume_before_any_answer_takes_the_pause_back() -> None:
    bench = Bench()
    bench.feed(opened(), command("pause"), command("resume"))
    (answer,) = bench.feed(*run(0, row(0)))
    assert answer.action is Action.MOVE


def test_a_stop_is_the_next_answer() -> None:
    bench = Bench()
    bench.feed(opened(), *run(0, row(0)), command("stop", by="me"))
    (answer,) = bench.feed(*run(1, row(1.5)))
    assert (answer.action, answer.reason) == (Action.STOP, "stop by me")


def test_a_stop_of_nobody_known_is_a_persons() -> None:
    bench = Bench()
    bench.feed(opened(), command("stop", reason="beam is lost"))
    (answer,) = bench.feed(*run(0, row(0)))
    assert answer.reason == "stop by a person: beam is lost"


def test_a_stop_follows_a_standing_pause_at_once() -> None:
    bench = Bench()
    bench.feed(opened(), command("pause"), *run(0, row(0)))
    (answer,) = bench.feed(command("stop"))
    assert values(answer) == (0, 1, "stop", {})


def test_a_recommender_may_ask_for_a_pause() -> None:
    bench, _ = scripted(RequestPause("look at the sample"), 8.0)
    (paused,) = bench.feed(*run(0, row(0)))
    assert (paused.action, paused.reason) == (Action.PAUSE, "look at the sample")
    (answer,) = bench.feed(command("resume"))
    assert values(answer) == (0, 1, "move", {"motor": 8.0})


def test_no_recommendation_stops_with_its_reason() -> None:
    bench, _ = scripted(NoRecommendation("converged"))
    (answer,) = bench.feed(*run(0, row(0)))
    assert (answer.action, answer.reason) == (Action.STOP, "converged")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ValueError("bad luck"), "recommender scripted: ValueError: bad luck"),
        ("3x", "recommender scripted suggested '3x', which is no point"),
        (math.nan, "recommender scripted suggested no finite point in 6 attempts: motor is nan"),
        (None, "recommender scripted suggested None, which is no point"),
        ("1.5", "recommender scripted suggested '1.5', which is no point"),
        (True, "recommender scripted suggested True, which is no point"),
        (1j, "recommender scripted suggested 1j, which is no point"),
        ({"other": 1.0}, "recommender scripted suggested {'other': 1.0}, which is no point"),
        ([1.0, 2.0], "recommender scripted suggested an array of shape (2,) for the 1 keys"),
        ([[1.0], [2.0]], "recommender scripted suggested an array of shape (2, 1) for the 1 keys"),
    ],
)
def test_what_is_no_point_stops_the_batch(answer: Any, reason: str) -> None:
    bench, _ = scripted(*[answer] * 6)
    (given,) = bench.feed(*run(0, row(0)))
    assert given.action is Action.STOP
    assert given.reason.startswith(reason)


@pytest.mark.parametrize("answer", [4, 4.0, [4.0], [[4]], np.float32(4), np.array(4), {"motor": 4}])
def test_all_shapes_of_one_point_are_understood(answer: Any) -> None:
    bench, _ = scripted(answer)
    (given,) = bench.feed(*run(0, row(0)))
    assert given.point == {"motor": 4.0}
    assert type(given.point["motor"]) is float


def test_points_that_are_not_finite_are_rejected_before_anybody_sees_them() -> None:
    bench, recommender = scripted(math.nan, [math.inf], 4.0)
    (given,) = bench.feed(*run(0, row(0)))
    assert values(given) == (0, 0, "move", {"motor": 4.0})
    assert given.reason == "recommended after 2 that were not finite"
    assert [reason for _, reason in recommender.rejected] == [
        "not finite: motor is nan",
        "not finite: motor is inf",
    ]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ("stepp", "unknown recommender 'stepp'; did you mean step?"),
        ({"name": "step", "parameters": {"stp": 1}}, "parameter stp: Extra inputs"),
        ({"name": "step", "parameters": {"step": math.nan}}, "parameter step"),
        ({"nam": "step"}, "the start document's recommender is not understood: name"),
        (3, "the start document's recommender is not understood"),
        ({"name": "os.system", "parameters": {}}, "unknown recommender 'os.system'"),
    ],
)
def test_a_recommender_that_cannot_be_had_stops_the_batch(request_: Any, reason: str) -> None:
    bench = Bench()
    (answer,) = bench.feed(*run(0, row(0), recommender=request_))
    assert answer.action is Action.STOP
    assert reason in answer.reason


def test_the_start_document_chooses_recommender_counts_and_keys() -> None:
    request = {
        "name": "sequence",
        "parameters": {"sequence": [[1, 2], [3, 4]]},
        "max_count": 0,
        "independent_keys": ["x", "y"],
        "dependent_keys": ["z"],
    }
    bench = Bench()
    reading = {"x": 0, "y": 0, "z": 0}
    (first,) = bench.feed(*run(0, reading, recommender=request))
    assert first.point == {"x": 1.0, "y": 2.0}
    assert first.recommender.name == "sequence"
    (last,) = bench.feed(*run(1, reading))
    assert last.reason == "max_count 0 is reached"


def test_the_first_suggestion_stands_also_when_it_is_another_than_ours() -> None:
    bench = Bench(hold=True)
    bench.feed(opened(), *run(0, row(0)))
    bench.release()
    ours = bench.suggestions[0]
    theirs = ours.model_copy(update={"point": {"motor": 99.0}})
    other = Bench(known=[theirs])
    assert other.feed(*bench.topic) == []
    assert other.state.stands[0, 0] == theirs
    other.tell(Published(ours, Cause("suggestions", 0, 1)))
    assert other.state.stands[0, 0] == theirs


def test_entries_wait_while_an_answer_is_due() -> None:
    bench = Bench(hold=True)
    bench.feed(opened(), *run(0, row(0)), command("pause"), *run(1, row(1.5)))
    assert bench.state.entries == 5
    bench.release()
    assert [values(s)[:3] for s in bench.suggestions] == [(0, 0, "move"), (1, 0, "pause")]


def test_a_plan_without_events_ends_with_its_stop() -> None:
    bench = Bench(rules(max_count=0))
    bench.feed(*run(0, row(0)), *run(1, row(1)))
    assert (bench.state.phase, bench.state.outcome) == (Phase.ENDED, Outcome.DONE)
    assert bench.topic[-1][1]["reason"] == "max_count 0 is reached"


def test_a_batch_that_has_ended_is_taken_up_again() -> None:
    bench = Bench()
    bench.feed(opened(), *run(0, row(0)), batch_event("ended", outcome="aborted"))
    assert bench.state.phase is Phase.ENDED
    bench.feed(opened(resume=True, batch_count=1))
    assert bench.state.phase is Phase.OPEN
    (answer,) = bench.feed(*run(1, row(1.5)))
    assert values(answer) == (1, 0, "move", {"motor": 3.0})


def test_what_comes_after_the_end_is_not_answered() -> None:
    bench = Bench()
    bench.feed(opened(), start(0), descriptor("run0"), event("run0", row(0)))
    bench.feed(batch_event("ended", outcome="aborted"))
    assert bench.feed(stop("run0")) == []


def test_a_silent_batch_is_closed_once() -> None:
    bench = Bench(rules(close_after=1000.0), time=100.0)
    bench.feed(opened(), *run(0, row(0)))
    bench.tick(1000.0)
    assert bench.state.phase is Phase.OPEN
    bench.tick(1101.0)
    bench.tick(1102.0)
    assert (bench.state.phase, bench.state.outcome) == (Phase.ENDED, Outcome.SILENT)
    assert [name for name, _ in bench.topic].count("batch_event") == 2


def test_a_stop_closes_a_batch_whose_plan_is_gone() -> None:
    bench = Bench(rules(silent_after=10.0), time=100.0)
    bench.feed(opened(), *run(0, row(0)))
    bench.time = 111.0
    bench.feed(command("stop", by="me"))
    assert (bench.state.outcome, bench.state.reason) == (Outcome.CLOSED, "stop by me")


def test_a_stopped_batch_is_closed_when_no_plan_takes_the_stop() -> None:
    bench = Bench(rules(silent_after=10.0), time=100.0)
    bench.feed(opened(), *run(0, row(0)), command("stop"))
    bench.tick(105.0)
    assert bench.state.phase is Phase.OPEN
    bench.tick(111.0)
    assert bench.state.outcome is Outcome.CLOSED


def test_vetoes_points_and_results_are_kept_without_effect() -> None:
    bench = Bench()
    bench.feed(opened(), *run(0, row(0)))
    result = {"uid": "r", "batch_id": BATCH, "run": "run0", "key": "k", "values": {}, "time": 1.0}
    assert bench.feed(command("veto", batch_count=0), ("result", result)) == []
    assert bench.feed(command("point", point={"motor": 1.0})) == []
    assert len(bench.log) == len(bench.topic)


def test_a_suggestion_that_is_never_read_back_is_published_again() -> None:
    bench = Bench(hold=True)
    bench.feed(opened(), *run(0, row(0)))
    bench.carry_out(bench.kept.pop())
    (publish,) = bench.kept
    bench.tick(200.0)
    bench.tick(205.0)
    bench.tick(211.0)
    assert bench.kept == [publish, publish]


def test_the_story_names_cause_and_effect() -> None:
    bench = Bench()
    bench.feed(opened(), *run(0, row(0)))
    told = [line.text for line in story(bench.state, 0)]
    assert told == [
        "run run0 started",
        "revision 0 is due",
        "answered: move {'motor': 1.5}, recommended",
    ]
    assert story(bench.state)[0].cause == Cause("adaptive", 0, 0)


def test_a_suggestion_says_who_made_it_from_what() -> None:
    bench = Bench()
    (answer,) = bench.feed(opened(), *run(0, row(0)))
    assert answer.uid == suggestion_uid(BATCH, 0, 0)
    assert answer.recommender.name == "step"
    assert answer.recommender.parameters == {"step": 1.5}
    assert len(answer.inputs) == 64
