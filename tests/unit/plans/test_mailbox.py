"""Whatever comes in whatever order, the plan takes the answer it asked for and no other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bluesky_plugins.plans.mailbox import Answer, Mailbox, last_suggestion
from bluesky_plugins.testing import make_suggestion, make_waiting

BATCH = "batch"


def asked(count: int, revision: int = 0) -> Mailbox:
    mailbox = Mailbox(BATCH)
    mailbox.ask(count, revision)
    return mailbox


def put(mailbox: Mailbox, *docs: dict[str, Any]) -> None:
    for doc in docs:
        mailbox.put("suggestion", doc)


def suggestion(count: int, revision: int = 0, batch: str = BATCH, x: float = 0) -> dict[str, Any]:
    return make_suggestion(batch, count, {"motor": x}, revision=revision)


COUNTS = st.integers(0, 6)
MESSAGES = st.lists(
    st.tuples(st.sampled_from([BATCH, "other"]), COUNTS, st.integers(0, 3)), max_size=40
)


@given(messages=MESSAGES, count=COUNTS, revision=st.integers(0, 3))
def test_the_highest_revision_of_the_asked_count_and_never_another(
    messages: list[tuple[str, int, int]], count: int, revision: int
) -> None:
    mailbox = asked(count, revision)
    for number, (batch, of, at) in enumerate(messages):
        put(mailbox, suggestion(of, at, batch, x=number))
    fitting = [
        (at, -number)
        for number, (batch, of, at) in enumerate(messages)
        if (batch, of) == (BATCH, count) and at >= revision
    ]
    found = mailbox.suggestion()
    if not fitting:
        assert found is None
        return
    at, number = max(fitting)  # of one revision the first stands
    assert found is not None
    assert (found.batch_count, found.revision, found.point) == (count, at, {"motor": -number})


@given(messages=st.lists(st.integers(0, 1), min_size=1), count=st.integers(0, 5))
def test_an_answer_that_comes_before_it_is_asked_for_is_kept(
    messages: list[int], count: int
) -> None:
    mailbox = asked(count)
    put(mailbox, *(suggestion(count + ahead) for ahead in messages))
    mailbox.ask(count + 1)
    found = mailbox.suggestion()
    assert (found is not None) == (1 in messages)
    assert found is None or found.batch_count == count + 1


def test_what_was_dropped_is_counted_by_its_kind() -> None:
    mailbox = asked(3, 1)
    put(mailbox, suggestion(2), suggestion(3, 0), suggestion(9), suggestion(3, 1, "other"))
    put(mailbox, suggestion(3, 1), suggestion(3, 1))
    assert mailbox.dropped == {"stale": 1, "late": 1, "early": 1, "foreign": 1, "double": 1}


def test_the_answer_that_was_taken_does_not_count_as_stale() -> None:
    mailbox = asked(0)
    put(mailbox, suggestion(0))
    mailbox.ask(1)
    assert not any(mailbox.dropped.values())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"uid": "another"}, "uid"),
        ({"batch_count": "many"}, "batch_count"),
        ({"action": "explode"}, "action"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_malformed_suggestion_is_dropped_with_its_reason(
    change: dict[str, Any], named: str
) -> None:
    mailbox = asked(0)
    put(mailbox, {**suggestion(0), **change})
    assert mailbox.suggestion() is None
    assert mailbox.dropped == {"malformed": 1}
    assert named in mailbox.reasons[0]


@pytest.mark.parametrize("raw", [None, 7, "text", [], {}])
def test_what_is_no_document_is_dropped(raw: Any) -> None:
    mailbox = asked(0)
    mailbox.put("suggestion", raw)
    mailbox.put("waiting", raw)
    mailbox.put("something", raw)
    assert mailbox.dropped == {"malformed": 3}


def test_only_a_waiting_for_the_asked_count_is_heard() -> None:
    mailbox = asked(1)
    mailbox.put("waiting", make_waiting(BATCH, 0, seconds=9, reason="old"))
    mailbox.put("waiting", make_waiting("other", 1, seconds=9, reason="foreign"))
    assert mailbox.waiting is None
    mailbox.put("waiting", make_waiting(BATCH, 1, seconds=9, reason="a job"))
    assert mailbox.waiting is not None
    mailbox.ask(2)
    assert mailbox.waiting is None


def test_a_waiting_that_comes_before_the_plan_asks_is_heard_when_it_does() -> None:
    mailbox = asked(1)
    mailbox.put("waiting", make_waiting(BATCH, 2, seconds=9, reason="a job"))
    assert mailbox.waiting is None
    mailbox.ask(2)
    assert mailbox.waiting is not None
    mailbox.ask(3)
    assert mailbox.waiting is None
    assert not any(mailbox.dropped.values())


def test_a_waiting_without_end_is_dropped() -> None:
    mailbox = asked(0)
    mailbox.put("waiting", {**make_waiting(BATCH, 0, seconds=1, reason=""), "until": float("inf")})
    assert mailbox.waiting is None


def test_of_several_old_answers_the_last_is_taken() -> None:
    mailbox = asked(0)
    mailbox.put("answer", {"motor": 1})
    mailbox.put("answer", None)
    assert mailbox.answer == Answer(None)


@given(MESSAGES)
def test_the_last_suggestion_is_the_first_published_of_the_highest(
    messages: list[tuple[str, int, int]],
) -> None:
    history = [
        ("suggestion", suggestion(of, at, batch, x=number))
        for number, (batch, of, at) in enumerate(messages)
    ]
    last = last_suggestion(BATCH, history)
    fitting = [(of, at, -n) for n, (batch, of, at) in enumerate(messages) if batch == BATCH]
    got = last and (last.batch_count, last.revision, -last.point["motor"])
    assert got == max(fitting, default=None)
