"""A job's machine under every order, loss and repeat of its events, with two targets in mind.

The world below has what the machine cannot see: entries in the queues of two targets, claims,
programs that run, records. Commands and answers wait in two bags, from which any of them is
taken at any time, or none.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bluesky_plugins.processing.jobs import events as ev
from bluesky_plugins.processing.jobs.attempts import RANK
from bluesky_plugins.processing.jobs.job import JobRecord
from bluesky_plugins.processing.jobs.machine import Rules, accept, step
from bluesky_plugins.processing.model import (
    EndReason,
    Found,
    JobState,
    Observation,
    ResultRecord,
)
from bluesky_plugins.testing.jobs import record, unaccepted

RULES = Rules(
    submit_s=30, search_s=2, doubt_s=6, gone_s=6, gone_polls=2, beat_s=5, heartbeat_s=20, stop_s=3
)
ALIVE = (JobState.QUEUED, JobState.RUNNING)


@dataclass
class Entry:
    """One entry in the queue of a target."""

    native_id: str
    target: str
    attempt: int
    state: JobState = JobState.QUEUED
    works: bool = False  # its program runs now
    suspended: bool = False  # it stands still
    beat: float | None = None


@dataclass
class World:
    """Two targets; what a restart of ours does not touch."""

    entries: list[Entry] = field(default_factory=list)
    claims: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    starts: list[int] = field(default_factory=list)
    records: dict[int, ResultRecord] = field(default_factory=dict)
    beats: dict[int, float] = field(default_factory=dict)
    ids: int = 0

    def land(self, target: str, attempt: int) -> str:
        self.ids += 1
        self.entries.append(Entry(str(self.ids), target, attempt))
        return str(self.ids)

    def alive(self, attempt: int) -> bool:
        return any(one.attempt == attempt and one.state in ALIVE for one in self.entries)

    def start(self, entry: Entry, now: float) -> None:
        if entry.attempt in self.cancelled:
            entry.state = JobState.CANCELLED  # it found the mark, and did nothing
            return
        if entry.attempt in self.claims:
            entry.state = JobState.SUCCEEDED  # it found the claim, and did nothing
            return
        self.claims.add(entry.attempt)
        self.starts.append(entry.attempt)
        self.beats[entry.attempt] = now
        entry.state, entry.works = JobState.RUNNING, True

    def known(self, target: str, native_id: str | None) -> list[Found]:
        mine = [one for one in self.entries if one.target == target]
        if native_id is not None:
            mine = [one for one in mine if one.native_id == native_id]
        mine.sort(key=lambda one: one.state not in ALIVE)
        return [
            Found(native_id=one.native_id, state=one.state, suspended=one.suspended) for one in mine
        ]


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.world = World()
        self.commands: list[ev.Command] = []
        self.answers: list[ev.Event] = []
        self.published: list[tuple[int, float]] = []
        self.job = accept(unaccepted(("slurm", "local"), wait_s=60.0, time=self.now))
        self.stored = self.job

    # ---- our side

    def tell(self, event: ev.Event) -> None:
        before = self.job
        self.job, commands = step(RULES, before, event)
        self.commands += [one for one in commands if not isinstance(one, ev.Announce)]
        self.check_step(before, commands)

    def check_step(self, before: JobRecord, commands: tuple[ev.Command, ...]) -> None:
        after = self.job
        submits = [one for one in commands if isinstance(one, ev.Submit)]
        assert len(submits) <= 1
        assert not submits or after.state is JobState.SUBMITTING
        for submit in submits:
            assert not self.world.alive(submit.attempt), "it is there already"
        for old, new in zip(before.attempts, after.attempts, strict=False):
            assert RANK[new.state] >= RANK[old.state]
            assert not old.state.final or new.state is old.state
            assert not old.state.final or new.record == old.record
        for attempt in after.attempts[: len(before.attempts)]:
            if len(after.attempts) > len(before.attempts):
                assert not self.world.alive(attempt.number), "the last attempt is still there"
        assert after.history[: len(before.history)] == before.history
        if after.revision != before.revision:
            assert after.revision == before.revision + 1
            self.stored = after
        assert (after.state, after.history) == (self.stored.state, self.stored.history)

    def tick(self) -> float:
        self.now += 0.001
        return self.now

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), again=st.sampled_from([False, False, False, True]))
    def an_answer_arrives(self, data: Any, again: bool) -> None:
        place = data.draw(st.integers(0, len(self.answers) - 1))
        answer = self.answers[place] if again else self.answers.pop(place)
        if isinstance(answer, ev.Submitted | ev.Refused | ev.NotSent | ev.Doubtful):
            answer = replace(answer, time=self.tick())  # these count from when they come
        self.tell(answer)

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def an_answer_is_lost(self, data: Any) -> None:
        self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0, 40.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds
        self.tell(ev.Tick(time=self.tick()))

    @rule()
    def there_is_room(self) -> None:
        self.tell(ev.Admitted(time=self.tick()))

    @rule()
    def there_is_no_room(self) -> None:
        self.tell(ev.Held(time=self.tick(), reason="full"))

    @rule()
    def we_crash(self) -> None:
        """All commands and answers under way are lost; the stored job is taken up."""
        self.commands, self.answers, self.job = [], [], self.stored
        self.tell(ev.Recovered(time=self.tick()))

    @rule()
    def what_is_stored_comes_back(self) -> None:
        assert JobRecord.model_validate_json(self.job.model_dump_json()) == self.job

    @rule(what=st.sampled_from(["nothing"] * 6 + ["cancel", "retry", "retry"]))
    def a_person_asks(self, what: str) -> None:
        match what:
            case "cancel":
                self.tell(ev.CancelRequested(time=self.tick(), by="a person"))
            case "retry":
                self.tell(ev.RetryRequested(time=self.tick(), by="a person"))

    @rule(run=st.booleans())
    def all_goes_well_for_a_moment(self, run: bool) -> None:
        self.tell(ev.Admitted(time=self.tick()))
        self.carry_out_all()
        for entry in list(self.world.entries):
            if run:
                self.happen(entry, "start")
        self.a_poll_now()

    @rule(seconds=st.sampled_from([1.0, 1.0, 1.0, 100.0]))
    def the_scheduler_estimates(self, seconds: float) -> None:
        number = self.job.attempt.number
        self.tell(ev.Expected(time=self.tick(), attempt=number, seconds=seconds))

    # ---- commands

    @precondition(lambda self: self.commands)
    @rule(data=st.data(), how=st.sampled_from(["well"] * 4 + ["before", "after", "no", "never"]))
    def a_command_is_carried_out(self, data: Any, how: str) -> None:
        place = data.draw(st.integers(0, len(self.commands) - 1))
        self.carry_out(self.commands.pop(place), how)

    @precondition(lambda self: self.job.state in (JobState.ACCEPTED, JobState.DEFERRED))
    @rule(how=st.sampled_from(["before", "after", "no", "never"]), told=st.booleans())
    def a_submission_goes_wrong(self, how: str, told: bool) -> None:
        self.now += 5.0
        self.tell(ev.Admitted(time=self.tick()))
        for command in [one for one in self.commands if isinstance(one, ev.Submit)]:
            self.commands.remove(command)
            self.carry_out(command, how)
            if told:
                self.tell(replace(self.answers.pop(), time=self.tick()))

    def carry_out(self, command: ev.Command, how: str) -> None:
        match command:
            case ev.Submit():
                self.carry_out_submit(command, how)
            case ev.Find(attempt, target):
                if how == "well":
                    known = tuple(self.world.known(target, None))
                    answer = ev.Searched(time=self.tick(), attempt=attempt, found=known)
                    self.answers.append(answer)
                else:
                    self.answers.append(ev.PollFailed(time=self.tick(), reason="no controller"))
            case ev.Cancel():
                if how == "well":
                    self.carry_out_cancel(command)
            case ev.Publish(attempt, numbers):
                if how != "before":
                    self.published.append((attempt, numbers["peak"]))
                if how == "well":
                    self.answers.append(ev.Published(time=self.tick()))
            case _:
                raise AssertionError(command)

    def carry_out_submit(self, submit: ev.Submit, how: str) -> None:
        about = {"time": self.now, "attempt": submit.attempt, "submission": submit.submission}
        if how in ("well", "after"):
            native_id = self.world.land(submit.target, submit.attempt)
        match how:
            case "well":
                self.answers.append(
                    ev.Submitted(time=self.now, attempt=submit.attempt, native_id=native_id)
                )
            case "before" | "after":
                self.answers.append(ev.Doubtful(**about, reason="socket timed out"))
            case "no":
                self.answers.append(ev.Refused(**about, reason="limit", permanent=False))
            case "never":
                self.answers.append(ev.Refused(**about, reason="no partition", permanent=True))

    def carry_out_cancel(self, cancel: ev.Cancel) -> None:
        self.world.cancelled.add(cancel.attempt)
        for entry in self.world.entries:
            if entry.attempt != cancel.attempt or entry.state not in ALIVE:
                continue
            assert entry.target == cancel.target
            if entry.works:
                self.write_record(entry, EndReason.CANCELLED)
            entry.state, entry.works, entry.suspended = JobState.CANCELLED, False, False

    # ---- the targets

    @rule(late=st.booleans())
    def a_poll(self, late: bool) -> None:
        attempt, target = self.job.attempt, self.job.place.target
        known = self.world.known(target, attempt.watched)
        beat = self.world.beats.get(attempt.number)
        seen = Observation(
            found=known[0] if known else None,
            heartbeat=None if beat is None else self.now - beat,
            record=self.world.records.get(attempt.number),
            gone=not known,
        )
        answer = ev.Observed(time=self.tick(), attempt=attempt.number, observation=seen)
        self.answers.append(answer)
        if not late:
            self.tell(self.answers.pop())

    @rule()
    def a_poll_fails(self) -> None:
        before = self.job
        self.tell(ev.PollFailed(time=self.tick(), reason="ssh: connection refused"))
        assert (self.job.state, self.job.history) == (before.state, before.history)

    @precondition(lambda self: self.world.entries)
    @rule(
        data=st.data(),
        what=st.sampled_from(
            [
                *("start", "start", "beat", "succeed", "fail", "die", "hang", "requeue", "forget"),
                *("suspend", "resume"),
            ]
        ),
    )
    def something_happens_on_a_target(self, data: Any, what: str) -> None:
        entry = data.draw(st.sampled_from(self.world.entries))
        self.happen(entry, what)

    def happen(self, entry: Entry, what: str) -> None:
        match what:
            case "suspend" if entry.state is JobState.RUNNING:
                entry.suspended = True
            case "resume":
                entry.suspended = False
            case _ if entry.suspended:
                pass
            case "start" if entry.state is JobState.QUEUED:
                self.world.start(entry, self.now)
            case "succeed" if entry.works:
                self.write_record(entry, EndReason.EXITED)
                entry.state, entry.works = JobState.SUCCEEDED, False
            case "fail" if entry.works:
                self.write_record(entry, EndReason.EXITED, exit_code=3)
                entry.state, entry.works = JobState.FAILED, False
            case "die" if entry.works:
                entry.state, entry.works = JobState.FAILED, False
            case "hang" if entry.works:
                entry.works = False  # the process is dead, the queue says running
            case "requeue" if entry.state is JobState.RUNNING:
                entry.state, entry.works = JobState.QUEUED, False
            case "forget" if entry.state not in ALIVE:
                self.world.entries.remove(entry)
            case _:
                if entry.works:
                    self.world.beats[entry.attempt] = self.now

    def write_record(self, entry: Entry, reason: EndReason, **changes: Any) -> None:
        self.world.records[entry.attempt] = record(
            self.job,
            entry.attempt,
            reason=reason,
            native_id=entry.native_id,
            numbers={"peak": float(entry.attempt)},
            **changes,
        )

    # ---- what must hold

    @invariant()
    def no_attempt_starts_twice_and_only_one_is_there(self) -> None:
        assert len(self.world.starts) == len(set(self.world.starts))
        alive = {one.attempt for one in self.world.entries if one.state in ALIVE}
        assert len(alive) <= 1

    @invariant()
    def every_state_is_explained(self) -> None:
        job = self.job
        assert all(attempt.reason for attempt in job.attempts)
        for attempt in job.attempts:
            told = [line for line in job.history if line.attempt == attempt.number]
            assert attempt.state in [line.state for line in told]
        assert [line.number for line in job.history] == list(range(len(job.history)))

    @invariant()
    def one_result_is_published(self) -> None:
        assert len(set(self.published)) <= 1
        for attempt, peak in self.published:
            assert self.job.state is JobState.SUCCEEDED
            assert (attempt, peak) == (self.job.attempt.number, float(attempt))

    def teardown(self) -> None:
        """When all works again, it comes to an end, and what it found goes out."""
        for _ in range(60):
            if self.job.state.final and self.job.retry is None:
                break
            self.go_on()
        else:
            raise AssertionError(f"does not end: {self.job.attempt!r}")
        self.tell(ev.Recovered(time=self.tick()))
        self.carry_out_all()
        if self.job.state is JobState.SUCCEEDED:
            assert self.job.published is not None
            assert self.published

    def go_on(self) -> None:
        self.now += 4.0
        self.tell(ev.Admitted(time=self.tick()))
        self.tell(ev.Tick(time=self.tick()))
        self.carry_out_all()
        for entry in list(self.world.entries):
            for what in ("resume", "start", "succeed"):
                self.happen(entry, what)
        self.a_poll_now()

    def a_poll_now(self) -> None:
        self.answers = []
        AnyOrder.a_poll(self, late=True)
        self.tell(self.answers.pop())

    def carry_out_all(self) -> None:
        while self.commands:
            self.carry_out(self.commands.pop(0), "well")
            while self.answers:
                answer = self.answers.pop(0)
                self.tell(replace(answer, time=self.tick()))


AnyOrder.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
