"""Recommenders by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bluesky_plugins.adaptive import NoRecommendation, SequenceRecommender, StepRecommender
from bluesky_plugins.adaptive.asking import Asked, Failed, Ingest, Point, Suggest, extended
from bluesky_plugins.adaptive.registry import Registry


class Old:
    """With the older names."""

    def __init__(self, seed: int, gain: float = 2.0) -> None:
        self.seed, self.gain, self.rows = seed, gain, []  # type: ignore[var-annotated]

    def tell_many(self, xs: Any, ys: Any) -> None:
        self.rows.append(xs)

    def ask(self, n: int, tell_pending: bool = True) -> Any:
        return [self.gain]


def test_ours_are_registered() -> None:
    assert {"step", "sequence"} <= set(Registry().names())


def test_parameters_are_checked_by_the_signature_where_there_is_no_schema() -> None:
    registry = Registry({"old": Old})
    assert registry.describe("old", {}).error is None
    assert registry.describe("old", {"gain": 3}).parameters == {"gain": 3.0}
    assert "parameter gain" in str(registry.describe("old", {"gain": "x"}).error)
    assert "parameter other" in str(registry.describe("old", {"other": 1}).error)


def test_a_seed_is_given_to_those_that_take_one() -> None:
    registry = Registry({"old": Old})
    assert registry.make("old", {}, 7).seed == 7
    assert registry.make("old", {"seed": 3}, 7).seed == 3


def test_a_recommender_with_the_older_names_serves() -> None:
    asked = Asked("old", lambda: Old(1), ["motor"])
    calls = extended(None, Ingest(((0.0,),), ((1.0,),)), Suggest())
    assert asked.reply(calls, 2) == Point({"motor": 2.0})


def test_an_object_without_the_methods_fails_with_their_names() -> None:
    reply = Asked("none", object, ["motor"]).reply(extended(None, Suggest()), 1)
    assert isinstance(reply, Failed)
    assert "object has no method suggest or ask" in reply.reason


def test_what_ingesting_raised_is_the_reply() -> None:
    class Fussy(Old):
        def tell_many(self, xs: Any, ys: Any) -> None:
            raise ValueError("too few rows")

    calls = extended(None, Ingest(((0.0,),), ((1.0,),)), Suggest())
    reply = Asked("fussy", lambda: Fussy(1), ["motor"]).reply(calls, 2)
    assert reply == Failed("recommender fussy: ValueError: too few rows")


@pytest.mark.parametrize("recommender", [StepRecommender(1.5), SequenceRecommender([1.0])])
def test_only_one_point_at_a_time(recommender: Any) -> None:
    with pytest.raises(NotImplementedError):
        recommender.suggest(2)


def test_a_step_needs_a_point_to_step_from() -> None:
    with pytest.raises(NoRecommendation):
        StepRecommender(1.0).suggest(1)


def test_a_step_may_differ_by_key() -> None:
    recommender = StepRecommender([1.0, -2.0])
    recommender.ingest_many([[0.0, 0.0], [5.0, 5.0]], [[1.0], [1.0]])
    np.testing.assert_array_equal(recommender.suggest(1), [6.0, 3.0])


def test_a_sequence_ends() -> None:
    recommender = SequenceRecommender([[1.0, 2.0]])
    np.testing.assert_array_equal(recommender.suggest(1), [1.0, 2.0])
    with pytest.raises(NoRecommendation, match="all 1 points"):
        recommender.suggest(1)
