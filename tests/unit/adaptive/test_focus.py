"""The recommender that finds a focus."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bluesky_plugins.adaptive import FocusRecommender, NoRecommendation, fit_focus
from bluesky_plugins.adaptive.registry import Registry

LOW, HIGH = -8.0, 8.0


def width(z: float, z0: float, narrowest: float = 2.0, slope: float = 0.6) -> float:
    return math.hypot(narrowest, slope * (z - z0))


def scan(
    recommender: FocusRecommender, z0: float, *, noise: float = 0.0, seed: int = 0, first: float = 0
) -> tuple[list[float], str]:
    """Where it measured, and its last word."""
    random, zs = np.random.default_rng(seed), [first]
    for _ in range(200):
        seen = width(zs[-1], z0) * (1.0 + noise * random.standard_normal())
        recommender.ingest([zs[-1]], [seen])
        try:
            zs.append(float(recommender.suggest()[0]))
        except NoRecommendation as word:
            return zs, str(word)
    raise AssertionError("it never ends")


# -- the fit --------------------------------------------------------------------------------


@given(
    z0=st.floats(-8, 8),
    narrowest=st.floats(0.5, 10),
    slope=st.floats(0.1, 10),
    zs=st.lists(st.integers(-80, 80), min_size=4, max_size=12, unique=True),
)
def test_a_fit_to_exact_widths_is_exact(
    z0: float, narrowest: float, slope: float, zs: list[int]
) -> None:
    positions = [z / 10 for z in zs]
    fit = fit_focus(positions, [width(z, z0, narrowest, slope) for z in positions])
    spread = slope * (max(positions) - min(positions))
    if spread < 0.1 * narrowest:
        return  # nothing of the focus is to be seen
    assert fit is not None
    # Rounding counts where the focus lies far outside of what was measured.
    assert fit.best == pytest.approx(z0, abs=1e-3)
    assert fit.slope == pytest.approx(slope, rel=1e-3)


def test_one_outlier_does_not_carry_the_fit_away() -> None:
    zs = np.linspace(LOW, HIGH, 9)
    widths = np.array([width(z, 3.27) for z in zs])
    widths[1] *= 1.5
    fit = fit_focus(zs, widths)
    assert fit is not None
    assert fit.best == pytest.approx(3.27, abs=0.1)


@pytest.mark.parametrize(
    ("zs", "widths"),
    [
        ([], []),
        ([0, 1], [2, 3]),
        ([1, 1, 1, 2, 2], [2, 2, 2, 3, 3]),
        ([-1, 0, 1], [2, 3, 2]),
        ([-1, 0, 1], [2, math.nan, 2]),
        ([-1, 0, 1], [2, -1, 2]),
    ],
    ids=["nothing", "two", "two positions", "hill", "nan", "negative"],
)
def test_without_a_focus_to_be_seen_there_is_no_fit(zs: list[float], widths: list[float]) -> None:
    assert fit_focus(zs, widths) is None


def test_the_error_of_the_fit_is_that_of_the_focus() -> None:
    random, zs = np.random.default_rng(1), np.linspace(LOW, HIGH, 9)
    pulls = []
    for _ in range(300):
        widths = [width(z, 1.3) + 0.05 * random.standard_normal() for z in zs]
        fit = fit_focus(zs, widths)
        assert fit is not None
        pulls.append((fit.best - 1.3) / fit.error)
    # Robust fits of few points tell it a little too small.
    assert 0.7 < float(np.median(np.abs(pulls))) / 0.6745 < 1.6


# -- the recommender ------------------------------------------------------------------------


@settings(deadline=None)
@given(z0=st.floats(LOW, HIGH), first=st.floats(LOW, HIGH))
def test_any_focus_is_found_and_no_point_is_outside(z0: float, first: float) -> None:
    recommender = FocusRecommender(LOW, HIGH)
    zs, word = scan(recommender, z0, first=first)
    assert all(LOW <= z <= HIGH for z in zs)
    assert 6 <= len(zs) <= 8
    assert zs[-1] == pytest.approx(z0, abs=0.05)
    assert word.startswith("the best focus is ")


@settings(deadline=None)
@given(z0=st.floats(-6, 6), seed=st.integers(0, 2**32 - 1), noise=st.floats(0.0, 0.01))
def test_noise_does_not_keep_it_from_an_end(z0: float, seed: int, noise: float) -> None:
    zs, _ = scan(FocusRecommender(LOW, HIGH), z0, noise=noise, seed=seed)
    assert all(LOW <= z <= HIGH for z in zs)
    assert len(zs) <= 1 + 5 + 6
    assert zs[-1] == pytest.approx(z0, abs=0.05 + 60 * noise)


def test_rows_that_come_twice_change_nothing_but_their_number() -> None:
    once, twice = FocusRecommender(LOW, HIGH), FocusRecommender(LOW, HIGH)
    for z in np.linspace(LOW, HIGH, 5):
        once.ingest([z], [width(z, 3.27)])
        twice.ingest_many([[z], [z]], [[width(z, 3.27)]] * 2)
    assert twice.suggest() == pytest.approx(once.suggest(), abs=1e-6)


def test_the_coarse_scan_leaves_out_what_was_measured() -> None:
    recommender = FocusRecommender(LOW, HIGH)
    zs, _ = scan(recommender, 3.27, first=LOW)
    assert zs[:5] == [-8.0, -4.0, 0.0, 4.0, 8.0]


def test_a_focus_outside_of_the_range_is_measured_at_its_end_and_told() -> None:
    zs, word = scan(FocusRecommender(-8.0, 0.0), 3.27, first=-8.0)
    assert zs[-1] == 0.0
    assert "which is out of the range" in word


def test_flat_widths_have_no_focus() -> None:
    recommender = FocusRecommender(LOW, HIGH)
    for z in np.linspace(LOW, HIGH, 5):
        recommender.ingest([z], [6.0 - width(z, 0.0) / 2])
    with pytest.raises(NoRecommendation, match="no focus is to be seen in the widths at 5"):
        recommender.suggest()


def test_a_refused_point_of_the_coarse_scan_is_left_out() -> None:
    recommender = FocusRecommender(LOW, HIGH)
    refused = float(recommender.suggest()[0])
    recommender.reject({"focus": refused}, "outside of its limits")
    assert float(recommender.suggest()[0]) > refused


def test_a_refused_focus_ends_the_scan_with_the_reason() -> None:
    recommender = FocusRecommender(LOW, HIGH)
    for z in np.linspace(LOW, HIGH, 5):
        recommender.ingest([z], [width(z, 3.27)])
    recommender.reject({"focus": float(recommender.suggest()[0])}, "a collision")
    with pytest.raises(NoRecommendation, match=r"focus is 3.27 .* refused: a collision"):
        recommender.suggest()


def test_a_focus_that_was_not_measured_is_suggested_again() -> None:
    recommender = FocusRecommender(LOW, HIGH)
    for z in np.linspace(LOW, HIGH, 5):
        recommender.ingest([z], [width(z, 3.27)])
    assert recommender.suggest() == pytest.approx(recommender.suggest())


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({}, "parameter low: Field required"),
        ({"low": 1.0, "high": 1.0}, "low has to be less than high"),
        ({"low": 0.0, "high": 1.0, "tolerance": 0.2}, "larger than a tenth of the range"),
        ({"low": 0.0, "high": 1.0, "points": 2}, "parameter points"),
        ({"low": 0.0, "high": 1.0, "step": 2}, "parameter step: Extra inputs"),
        ({"low": 0.0, "high": math.inf}, "parameter high: Input should be a finite number"),
    ],
)
def test_parameters_are_checked(parameters: dict[str, float], fault: str) -> None:
    assert fault in str(Registry().describe("focus", parameters).error)


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError):
        FocusRecommender(1.0, 0.0)


def test_it_takes_one_key_of_each_kind() -> None:
    with pytest.raises(ValueError, match="one independent and one dependent key"):
        FocusRecommender(LOW, HIGH).ingest_many([[1.0, 2.0]], [[1.0]])


def test_only_one_point_at_a_time() -> None:
    with pytest.raises(NotImplementedError):
        FocusRecommender(LOW, HIGH).suggest(2)
