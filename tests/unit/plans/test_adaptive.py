"""adaptive_plan and adaptive_scan with a recommender in memory."""

from __future__ import annotations

import logging
import queue
from typing import Any

import bluesky.plans as bp
import pytest
from bluesky import RunEngine
from ophyd.sim import SynGauss

from bluesky_plugins.adaptive import (
    parse_batch_event,
)
from bluesky_plugins.plans import AdaptiveTimeout, adaptive_plan, adaptive_scan
from bluesky_plugins.testing import (
    FakeRecommender,
    FakeSuggestions,
    make_suggestion,
    make_waiting,
)

from .conftest import SOON, Axis, pause_of, soon, steps, taken_in

PLANS = [adaptive_plan, adaptive_scan]


def outcomes(recommender: FakeRecommender) -> list[str]:
    return [event["event"] for event in recommender.events]


# -- the batch's log ------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS)
def test_every_point_of_the_recommender_is_measured_and_told(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, plan: Any
) -> None:
    service = FakeRecommender(topic, steps(3))
    engine(
        plan(
            [det],
            {motor: 0},
            to_recommender=service,
            from_recommender=topic,
            recommender={"name": "step", "parameters": {"step": 1.5}},
            bounds={motor: (-5, 5)},
        )
    )
    assert motor.sent == [0, 1.5, 3, 4.5]
    assert outcomes(service) == ["opened", *["taken"] * 4, "ended"]
    opened, *_, ended = [parse_batch_event(event) for event in service.events]
    assert opened.first_point == {"motor": 0.0}  # type: ignore[union-attr]
    assert opened.bounds == {"motor": (-5.0, 5.0)}  # type: ignore[union-attr]
    assert opened.limits == {"motor": (-10.0, 10.0)}  # type: ignore[union-attr]
    assert (ended.outcome, ended.reason) == ("done", "after count 3")  # type: ignore[union-attr]
    assert len({event["uid"] for event in service.events}) == len(service.events)
    names = [name for name, _ in service.log]
    assert names[0] == "batch_event"
    assert names[-1] == "batch_event"
    assert service.starts[0]["recommender"] == {"name": "step", "parameters": {"step": 1.5}}


def test_a_scan_is_one_run_whose_stop_says_why(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions
) -> None:
    service = FakeRecommender(topic, steps(3))
    uids = engine(adaptive_scan([det], {motor: 0}, to_recommender=service, from_recommender=topic))
    assert len(uids) == 1
    assert service.starts[0]["batch_mode"] == "event"
    assert (service.stops[0]["exit_status"], service.stops[0]["reason"]) == (
        "success",
        "after count 3",
    )
    assert service.stops[0]["num_events"] == {"primary": 4}


def test_md_may_name_the_batch_but_not_its_counts(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions
) -> None:
    service = FakeRecommender(topic, steps(1))
    md = {"batch_id": "mine", "batch_count": 70, "sample": "Ni"}
    engine(adaptive_plan([det], {motor: 0}, to_recommender=service, from_recommender=topic, md=md))
    told = [(doc["batch_id"], doc["batch_count"], doc["sample"]) for doc in service.starts]
    assert told == [("mine", 0, "Ni"), ("mine", 1, "Ni")]


def test_a_reading_that_forgets_its_metadata_is_still_of_the_batch(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions
) -> None:
    service = FakeRecommender(topic, steps(1))
    plan = adaptive_plan(
        [det],
        {motor: 0},
        to_recommender=service,
        from_recommender=topic,
        take_reading=lambda devices, md: bp.count(devices),
    )
    assert len(engine(plan)) == 2


# -- answers that are not the asked one -----------------------------------------------------


@pytest.mark.parametrize("plan", PLANS)
def test_stale_late_double_foreign_and_malformed_answers_change_nothing(
    engine: RunEngine,
    det: SynGauss,
    motor: Axis,
    topic: FakeSuggestions,
    plan: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = steps(4)

    def answers(batch: str, count: int, revision: int) -> list[tuple[str, Any]]:
        right = good(batch, count, revision)
        wrong = {"motor": 9.0}
        return [
            ("suggestion", make_suggestion("foreign", count, wrong)),
            ("suggestion", {**right[0][1], "batch_id": batch, "uid": "x", "point": wrong}),
            ("suggestion", make_suggestion(batch, max(count - 1, 0), wrong)) if count else right[0],
            ("suggestion", {"batch_id": batch}),
            ("suggestion", make_suggestion(batch, count + 5, wrong)),
            *right,
            *right,
            ("suggestion", make_suggestion(batch, count, wrong)),
        ]

    service = FakeRecommender(topic, answers)
    with caplog.at_level(logging.WARNING, "bluesky_plugins"):
        engine(plan([det], {motor: 0}, to_recommender=service, from_recommender=topic))
    assert motor.sent == [0, 1.5, 3, 4.5, 6]
    assert "double" in caplog.text
    assert "malformed" in caplog.text


def test_two_replicas_that_answer_give_each_point_once(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions
) -> None:
    one = FakeRecommender(topic, steps(5))
    two = FakeRecommender(topic, steps(5))

    class Both(FakeRecommender):
        def __call__(self, name: str, doc: dict[str, Any]) -> None:
            one(name, doc)
            two(name, doc)

    both = Both(topic, steps(5))
    assert (
        len(engine(adaptive_plan([det], {motor: 0}, to_recommender=both, from_recommender=topic)))
        == 6
    )
    assert motor.sent == [0, 1.5, 3, 4.5, 6, 7.5]


@pytest.mark.parametrize(
    "bad",
    [
        {"motor": float("nan")},
        {"motor": float("inf")},
        {"motor": "3"},
        {"motor": None},
        {"motor": True},
        {"motor": [1.0]},
        {},
        {"other": 1.0},
        {"motor": 1.0, "other": 1.0},
        {"motor": 10.5},
        {"motor": -6},
    ],
)
@pytest.mark.parametrize("plan", PLANS)
def test_a_refused_point_moves_nothing_and_the_next_revision_is_taken(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, plan: Any, bad: Any
) -> None:
    def answers(batch: str, count: int, revision: int) -> list[tuple[str, Any]]:
        if count == 0 and revision < 2:
            return [("suggestion", make_suggestion(batch, 0, bad, revision=revision))]
        return steps(1)(batch, count, revision)

    service = FakeRecommender(topic, answers)
    engine(
        plan(
            [det],
            {motor: 0},
            to_recommender=service,
            from_recommender=topic,
            bounds={"motor": (-5, 20)},
        )
    )
    assert motor.sent == [0, 1.5]
    assert outcomes(service) == ["opened", "refused", "refused", "taken", "taken", "ended"]
    refused = [parse_batch_event(e) for e in service.events if e["event"] == "refused"]
    assert [event.revision for event in refused] == [0, 1]  # type: ignore[union-attr]
    assert all(event.reason for event in refused)


# -- time ----------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS)
def test_no_answer_fails_with_what_was_awaited(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, plan: Any
) -> None:
    def waiting(batch: str, count: int, revision: int) -> list[tuple[str, Any]]:
        return [("waiting", make_waiting(batch, count, seconds=0.1, reason="job 7"))]

    service = FakeRecommender(topic, waiting)
    with pytest.raises(AdaptiveTimeout, match=r"count 0 .* after 0\.6 s; .*job 7"):
        engine(
            plan([det], {motor: 0}, to_recommender=service, from_recommender=topic, timeout=SOON)
        )
    assert outcomes(service) == ["opened", "timed_out", "ended"]
    assert service.events[-1]["outcome"] == "failed"
    if plan is adaptive_scan:
        assert service.stops[0]["exit_status"] == "fail"
        assert "job 7" in service.stops[0]["reason"]


@pytest.mark.parametrize("plan", PLANS)
def test_no_answer_may_stop_the_plan_cleanly(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, plan: Any
) -> None:
    service = FakeRecommender(topic, lambda *_: [])
    uids = engine(
        plan(
            [det],
            {motor: 0},
            to_recommender=service,
            from_recommender=topic,
            timeout=SOON,
            on_timeout="stop",
        )
    )
    assert len(uids) == 1
    assert outcomes(service) == ["opened", "timed_out", "ended"]
    assert service.events[-1]["outcome"] == "stopped"
    assert service.stops[0]["exit_status"] == "success"


@pytest.mark.parametrize("plan", PLANS)
def test_no_answer_may_pause_and_resume_waits_again(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, plan: Any
) -> None:
    silent = True

    def answers(batch: str, count: int, revision: int) -> list[tuple[str, Any]]:
        return [] if silent else steps(2)(batch, count, revision)

    service = FakeRecommender(topic, answers)
    paused = plan(
        [det],
        {motor: 0},
        to_recommender=service,
        from_recommender=topic,
        timeout=SOON,
        on_timeout="pause",
    )
    assert pause_of(engine, paused) == "paused"
    silent = False
    service._answer(service.starts[0]["batch_id"], 0, 0)  # it comes while the plan is paused
    engine.resume()
    assert motor.sent == [0, 1.5, 3]
    assert outcomes(service) == ["opened", "timed_out", *["taken"] * 3, "ended"]


def test_news_of_a_job_renews_the_deadline_up_to_its_own(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions
) -> None:
    import threading

    def answers(batch: str, count: int, revision: int) -> list[tuple[str, Any]]:
        last = steps(0)(batch, count, revision)
        threading.Timer(2 * SOON, lambda: topic.publish(*last[0])).start()
        return [("waiting", make_waiting(batch, count, seconds=40, reason="a job"))]

    service = FakeRecommender(topic, answers)
    engine(
        adaptive_plan(
            [det], {motor: 0}, to_recommender=service, from_recommender=topic, timeout=SOON
        )
    )
    assert outcomes(service) == ["opened", "taken", "ended"]


def test_the_user_is_told_once_what_is_waited_for_and_again_when_that_changes(
    engine: RunEngine,
    det: SynGauss,
    motor: Axis,
    topic: FakeSuggestions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import threading

    def told() -> list[str]:
        return [line for line in caplog.messages if "waits for" in line]

    def news(batch: str, count: int) -> None:
        for number, reason in enumerate(["job 7 is queued"] * 2 + ["job 7 is running"]):
            topic.publish("waiting", make_waiting(batch, count, seconds=20, reason=reason))
            soon(lambda number=number: len(told()) >= 1 + (number == 2))
        topic.publish(*steps(0)(batch, count, 0)[0])

    def answers(batch: str, count: int, revision: int) -> list[tuple[str, Any]]:
        threading.Thread(target=news, args=(batch, count)).start()
        return []

    service = FakeRecommender(topic, answers)
    engine(adaptive_plan([det], {motor: 0}, to_recommender=service, from_recommender=topic))
    assert told() == ["count 0 waits for job 7 is queued", "count 0 waits for job 7 is running"]


def test_without_a_way_to_suggestions_nothing_is_moved(
    engine: RunEngine, det: SynGauss, motor: Axis
) -> None:
    topic = FakeSuggestions(reachable=False)
    service = FakeRecommender(topic, steps(1))
    with pytest.raises(AdaptiveTimeout, match="nothing was measured"):
        engine(
            adaptive_plan(
                [det], {motor: 0}, to_recommender=service, from_recommender=topic, timeout=0.2
            )
        )
    assert motor.sent == []
    assert service.log == []


def test_the_error_of_a_reader_ends_the_plan(engine: RunEngine, det: SynGauss, motor: Axis) -> None:
    class Broken:
        def get(self, timeout: float) -> Any:
            raise OSError("the wire is cut")

    with pytest.raises(RuntimeError, match="the wire is cut"):
        engine(
            adaptive_plan(
                [det], {motor: 0}, to_recommender=lambda *_: None, from_recommender=Broken()
            )
        )


# -- what the recommender may ask -----------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS)
def test_a_pause_of_the_recommender_is_resumed_by_command(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, plan: Any
) -> None:
    def answers(batch: str, count: int, revision: int) -> list[tuple[str, Any]]:
        if count == 1 and revision == 0:
            doc = make_suggestion(batch, 1, action="pause", reason="look first")
            return [("suggestion", doc)]
        return steps(3)(batch, count, revision)

    service = FakeRecommender(topic, answers)
    paused = plan([det], {motor: 0}, to_recommender=service, from_recommender=topic)
    assert pause_of(engine, paused) == "paused"
    assert not [doc for name, doc in service.log if name == "command"]
    engine.resume()
    assert motor.sent == [0, 1.5, 3, 4.5]
    commands = [doc for name, doc in service.log if name == "command"]
    assert [doc["command"] for doc in commands] == ["resume"]


def test_no_resume_is_sent_when_the_next_revision_came_while_paused(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions
) -> None:
    def answers(batch: str, count: int, revision: int) -> list[tuple[str, Any]]:
        if revision == 0 and count == 0:
            return [("suggestion", make_suggestion(batch, 0, action="pause"))]
        return steps(1)(batch, count, revision)

    service = FakeRecommender(topic, answers)
    paused = adaptive_plan([det], {motor: 0}, to_recommender=service, from_recommender=topic)
    assert pause_of(engine, paused) == "paused"
    service._answer(service.starts[0]["batch_id"], 0, 1)
    taken_in(topic)
    engine.resume()
    assert motor.sent == [0, 1.5]
    assert not [doc for name, doc in service.log if name == "command"]


# -- going on with a batch ------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS)
def test_resume_measures_the_last_suggested_point_and_goes_on(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, plan: Any
) -> None:
    for count, revision, x in ((0, 0, 1.5), (1, 0, 7.0), (1, 1, 3.0), (1, 1, 8.0)):
        topic.publish("suggestion", make_suggestion("b", count, {"motor": x}, revision=revision))
    topic.publish("suggestion", make_suggestion("another", 9, {"motor": 9.0}))
    service = FakeRecommender(topic, steps(4))
    engine(plan([det], {motor: 0}, to_recommender=service, from_recommender=topic, resume="b"))
    assert motor.sent == [3, 4.5, 6]
    assert service.starts[0]["batch_id"] == "b"
    assert service.starts[0]["batch_count"] == 2
    opened = parse_batch_event(service.events[0])
    assert (opened.resume, opened.batch_count) == (True, 2)  # type: ignore[union-attr]


def test_resume_of_a_batch_without_suggestion_begins_with_the_first_point(
    engine: RunEngine,
    det: SynGauss,
    motor: Axis,
    topic: FakeSuggestions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = FakeRecommender(topic, steps(2))
    plan = adaptive_plan(
        [det], {motor: 0}, to_recommender=service, from_recommender=topic, resume="b"
    )
    assert len(engine(plan)) == 3
    assert motor.sent == [0, 1.5, 3]
    assert "batch b is not known" in caplog.text


@pytest.mark.parametrize("plan", PLANS)
def test_resume_of_a_finished_batch_measures_nothing_and_says_so(
    engine: RunEngine,
    det: SynGauss,
    motor: Axis,
    topic: FakeSuggestions,
    plan: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    topic.publish("suggestion", make_suggestion("b", 3, action="stop", reason="all done"))
    service = FakeRecommender(topic, steps(2))
    assert (
        engine(plan([det], {motor: 0}, to_recommender=service, from_recommender=topic, resume="b"))
        == ()
    )
    assert motor.sent == []
    assert "all done" in caplog.text
    assert service.log == []


@pytest.mark.parametrize("plan", PLANS)
def test_resume_where_the_last_suggestion_is_bad_asks_for_another(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, plan: Any
) -> None:
    topic.publish("suggestion", make_suggestion("b", 0, {"motor": float("nan")}))
    service = FakeRecommender(topic, steps(2))
    engine(plan([det], {motor: 0}, to_recommender=service, from_recommender=topic, resume="b"))
    assert motor.sent == [1.5, 3]
    assert outcomes(service)[:3] == ["opened", "refused", "taken"]


def test_a_queue_cannot_resume(engine: RunEngine, det: SynGauss, motor: Axis) -> None:
    plan = adaptive_plan(
        [det],
        {motor: 0},
        to_recommender=lambda *_: None,
        from_recommender=queue.Queue(),
        resume="b",
    )
    with pytest.raises(ValueError, match="resume"):
        engine(plan)


@pytest.mark.parametrize("plan", PLANS)
def test_readers_are_closed_and_their_threads_end(
    engine: RunEngine, det: SynGauss, motor: Axis, topic: FakeSuggestions, plan: Any
) -> None:
    import threading

    from .conftest import soon

    service = FakeRecommender(topic, steps(2))
    engine(plan([det], {motor: 0}, to_recommender=service, from_recommender=topic))
    soon(lambda: all(reader.closed for reader in topic.readers))
    soon(lambda: not [t for t in threading.enumerate() if t.name.startswith("suggestions-")])
