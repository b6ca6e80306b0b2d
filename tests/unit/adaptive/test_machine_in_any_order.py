"""A batch's machine under every order of its two topics, with losses, repeats and restarts."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bluesky_plugins.adaptive import RequestPause
from bluesky_plugins.adaptive.asking import unrolled
from bluesky_plugins.adaptive.configuration import Rules
from bluesky_plugins.adaptive.log import Cause
from bluesky_plugins.adaptive.model import Action, Suggestion
from bluesky_plugins.adaptive.registry import Registry
from bluesky_plugins.adaptive.state import Close, Order, Publish, Published, Tick
from bluesky_plugins.testing.batches import (
    Bench,
    batch_event,
    command,
    opened,
    refused,
    result,
    rules,
    run,
    start,
)


class Moody:
    """Depends on all that it was ever told and asked, and on its seed."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.total = 0.0

    def ingest_many(self, xs: Any, ys: Any) -> None:
        self.total += float(xs.sum() + ys.sum())

    def suggest(self, n: int) -> float:
        draw = float(self.random.normal())
        if draw > 1.2:
            raise RequestPause("moody")
        return float("nan") if draw < -1.5 else self.total + draw

    def reject(self, point: Any, reason: str) -> None:
        self.total += 1.0


REGISTRY = Registry({"moody": Moody})
GIVEN = {"name": "moody", "parameters": {}, "max_count": 4, "max_revisions": 2}
RULES = rules(REGISTRY, **GIVEN)
PROCESSED = rules(
    REGISTRY,
    **GIVEN,
    dependent_keys=["processing.fit.peak", "det", "processing.cut.peak"],
    processing_wait=25.0,
)


class Recorder(Bench):
    """A bench that keeps its commands, for the test to carry out when and if it likes."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules=rules, registry=REGISTRY, hold=True)


class AnyOrder(RuleBasedStateMachine):
    """Batches by what their events have."""

    by = RULES

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, dict[str, Any]]] = [opened()]
        self.topic: list[Suggestion] = []
        self.altered = False
        self.runs = 0
        self.restart()

    # ---- the plan and the people

    @rule(
        rows=st.sampled_from([1, 1, 2, 0]),
        status=st.sampled_from(["success"] * 4 + ["abort"]),
        ahead=st.sampled_from([0, 0, 1]),
    )
    def the_plan_measures(self, rows: int, status: str, ahead: int) -> None:
        count = max((s.batch_count + 1 for s in self.topic), default=0) + ahead
        uid, self.runs = f"run{self.runs}", self.runs + 1
        data = [{"motor": float(n + count), "det": 1.0} for n in range(rows)]
        self.log += run(count, *data, uid=uid, status=status)

    @rule()
    def the_plan_dies_in_a_run(self) -> None:
        uid, self.runs = f"run{self.runs}", self.runs + 1
        self.log.append(start(len(self.topic), uid))

    @precondition(lambda self: self.topic)
    @rule(data=st.data())
    def the_plan_measures_a_count_again(self, data: Any) -> None:
        count = data.draw(st.sampled_from(self.topic)).batch_count
        uid, self.runs = f"run{self.runs}", self.runs + 1
        self.log += run(count, {"motor": 9.0, "det": 9.0}, uid=uid)

    @precondition(lambda self: self.topic)
    @rule(data=st.data())
    def the_plan_refuses(self, data: Any) -> None:
        self.log.append(refused(data.draw(st.sampled_from(self.topic))))

    @rule(kind=st.sampled_from(["pause", "resume", "stop"]))
    def people_command(self, kind: str) -> None:
        self.log.append(command(kind))

    @rule(resume=st.booleans())
    def the_plan_ends_and_comes_back(self, resume: bool) -> None:
        self.log.append(batch_event("ended", outcome="failed"))
        self.log.append(opened(resume=resume))

    @rule(data=st.data())
    def a_message_comes_twice(self, data: Any) -> None:
        self.log.append(data.draw(st.sampled_from(self.log)))

    # ---- the service

    @rule(steps=st.integers(1, 30))
    def the_service_goes_on(self, steps: int) -> None:
        for _ in range(steps):
            self.go_on()

    @precondition(lambda self: self.read < len(self.log))
    @rule(entries=st.integers(1, 6))
    def the_log_is_read(self, entries: int) -> None:
        self.bench.feed(*self.log[self.read : self.read + entries])
        self.read = min(self.read + entries, len(self.log))

    @precondition(lambda self: self.heard < len(self.topic))
    @rule()
    def a_suggestion_is_read_back(self) -> None:
        self.bench.tell(Published(self.topic[self.heard], Cause("s", 0, self.heard)))
        self.heard += 1

    @precondition(lambda self: self.bench.kept)
    @rule(data=st.data())
    def a_command_is_carried_out(self, data: Any) -> None:
        place = data.draw(st.integers(0, len(self.bench.kept) - 1))
        self.carry_out(self.bench.kept.pop(place))

    def carry_out(self, one: Any) -> None:
        match one:
            case Publish(suggestion):
                self.topic.append(suggestion)
            case Close(ended):
                self.log.append(("batch_event", ended.model_dump(mode="json")))
            case Order(order):
                self.log.append(("command", order.model_dump(mode="json")))
            case _:
                self.bench.carry_out(one)

    @rule(now=st.sampled_from([101.0, 120.0, 140.0]))
    def time_goes_by(self, now: float) -> None:
        self.bench.tell(Tick(now))

    @rule()
    def restart(self) -> None:
        """All in memory is lost; what was published is read before anything is answered."""
        self.bench = Recorder(self.by)
        self.read = 0
        for number, suggestion in enumerate(self.topic):
            self.bench.tell(Published(suggestion, Cause("s", 0, number)))
        self.heard = len(self.topic)

    @precondition(lambda self: any(s.action is Action.MOVE for s in self.topic))
    @rule(data=st.data(), x=st.floats(-5, 5))
    def another_service_answers_too(self, data: Any, x: float) -> None:
        moves = [suggestion for suggestion in self.topic if suggestion.action is Action.MOVE]
        ours = data.draw(st.sampled_from(moves))
        self.topic.append(ours.model_copy(update={"point": {"motor": x}}))

    @precondition(lambda self: self.bench.state.asked is not None)
    @rule(x=st.floats(-5, 5))
    def another_service_answers_first(self, x: float) -> None:
        before = list(self.topic)
        copy = Bench(rules=self.by, registry=REGISTRY, known=before)
        copy.feed(*self.log[: self.read])
        for suggestion in copy.suggestions:
            if suggestion.action is Action.MOVE:
                self.altered = True
                suggestion = suggestion.model_copy(update={"point": {"motor": x}})
            self.topic.append(suggestion)

    # ---- what must hold

    @invariant()
    def nothing_is_violated(self) -> None:
        assert self.bench.violations == []

    def first_of_each(self) -> dict[tuple[int, int], Suggestion]:
        first: dict[tuple[int, int], Suggestion] = {}
        for suggestion in self.topic:
            first.setdefault((suggestion.batch_count, suggestion.revision), suggestion)
        return first

    def go_on(self) -> bool:
        if self.bench.kept:
            self.carry_out(self.bench.kept.pop(0))
        elif self.heard < len(self.topic):
            self.a_suggestion_is_read_back()
        elif self.read < len(self.log):
            self.the_log_is_read(1)
        else:
            return False
        return True

    def settle(self) -> None:
        while self.go_on():
            pass

    def teardown(self) -> None:
        self.settle()
        self.check()
        self.restart()
        self.settle()
        self.check()

    def check(self) -> None:
        state, first = self.bench.state, self.first_of_each()
        assert state.asked is None
        assert dict(state.stands) == first
        self.same_log_same_answers(first)

    def same_log_same_answers(self, first: dict[tuple[int, int], Suggestion]) -> None:
        state = self.bench.state
        told = Bench(rules=self.by, registry=REGISTRY, known=list(first.values()))
        told.feed(*self.log)
        assert dict(told.state.stands) == first
        assert told.state.answered == state.answered
        assert unrolled(told.state.calls) == unrolled(state.calls)
        assert (told.state.last, told.state.phase) == (state.last, state.phase)
        assert (told.state.awaited, told.state.results) == (state.awaited, state.results)
        if not self.altered:
            alone = Bench(rules=self.by, registry=REGISTRY)
            alone.feed(*self.log)
            assert dict(alone.state.stands) == first


class ProcessedInAnyOrder(AnyOrder):
    """Batches by what jobs find, whose results come early, late, twice, failed, or never."""

    by = PROCESSED

    @rule(
        data=st.data(),
        recipe=st.sampled_from(["fit", "cut"]),
        fields=st.sampled_from([{"peak": 2.0}] * 5 + [{"state": "failed"}, {}]),
    )
    def a_job_ends(self, data: Any, recipe: str, fields: dict[str, Any]) -> None:
        # Of a run to come, too: the topics are not one order.
        number = data.draw(st.integers(max(0, self.runs - 3), self.runs))
        self.log.append(result(f"run{number}", recipe, **fields))

    @rule()
    def the_jobs_of_a_run_end(self) -> None:
        uid = f"run{max(0, self.runs - 1)}"
        self.log += [result(uid, recipe, peak=1.0) for recipe in ("fit", "cut")]

    @rule()
    def the_plan_measures_and_its_jobs_end(self) -> None:
        self.the_plan_measures(1, "success", 0)
        self.the_jobs_of_a_run_end()

    def check(self) -> None:
        super().check()
        docs = {doc["key"]: doc for name, doc in self.log if name == "result"}
        for answer in self.topic:
            results = [docs[key] for key in answer.jobs]
            assert len({doc["run"] for doc in results}) <= 1
            if answer.action is Action.MOVE:
                assert {doc["recipe"] for doc in results} == {"fit", "cut"}
                assert all(doc["values"] for doc in results)


SETTINGS = settings(max_examples=60, stateful_step_count=30, deadline=None)
AnyOrder.TestCase.settings = SETTINGS
ProcessedInAnyOrder.TestCase.settings = SETTINGS
TestAnyOrder = AnyOrder.TestCase
TestProcessedInAnyOrder = ProcessedInAnyOrder.TestCase
