# SPDX-License-Identifier: Apache-2.0
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.profiler.stats import (
    ENOUGH,
    SYSTEMATIC,
    median,
    median_with_interval,
    percentile,
    steady,
    usable,
)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_percentile_is_numpys(share: float, count: int) -> None:
    values = np.random.default_rng(count).normal(size=count).tolist()
    assert percentile(values, share) == pytest.approx(np.percentile(values, 100 * share))


def test_median_of_an_even_number() -> None:
    assert median([4.0, 1.0, 3.0, 2.0]) == 2.5


@pytest.mark.parametrize(
    ("count", "rank", "coverage"),
    [(2, 1, 0.0), (5, 1, 0.75), (11, 1, 0.96875), (18, 2, 0.9609375), (40, 6, 0.9586105)],
)
def test_interval_is_the_one_of_the_tables_for_half_as_many(
    count: int, rank: int, coverage: float
) -> None:
    values = [float(k) for k in range(1, count + 1)]
    random.Random(0).shuffle(values)
    estimate = median_with_interval(values, systematic=0.0)
    assert (estimate.low, estimate.high) == (rank, count + 1 - rank)
    assert estimate.coverage == pytest.approx(coverage)


def test_enough_is_the_least_number_that_reaches_95_percent() -> None:
    reached = [n for n in range(1, 30) if median_with_interval([1.0] * n).coverage >= 0.95]
    assert reached[0] == ENOUGH
    assert reached == list(range(ENOUGH, 30))


def test_one_value_promises_nothing_but_what_all_runs_differ_by() -> None:
    estimate = median_with_interval([3.0])
    assert (estimate.value, estimate.coverage) == (3, 0)
    assert (estimate.low, estimate.high) == pytest.approx((2.85, 3.15))


def test_blocks_that_agree_too_well_are_not_believed() -> None:
    estimate = median_with_interval([1.0, 1.001, 0.999, 1.0, 1.0])
    assert (estimate.low, estimate.high) == pytest.approx((0.95, 1.05))
    wide = median_with_interval([1.0, 1.2, 0.9, 1.0, 1.0])
    assert (wide.low, wide.high) == (0.9, 1.2)


@pytest.mark.parametrize("count", [5, 11, 16])
@pytest.mark.parametrize("carried", [0.0, 0.3])
def test_interval_covers_the_true_median_at_least_as_often_as_it_says(
    count: int, carried: float
) -> None:
    """Of skewed values, each of which takes over a part of the one before."""
    generator = np.random.default_rng(1)
    hits, coverage = 0, 0.0
    for noise in generator.normal(size=(2000, count + 10)):
        state, values = 0.0, []
        for step in noise:
            state = carried * state + step * (1 - carried**2) ** 0.5
            values.append(float(np.exp(state)))
        estimate = median_with_interval(values[10:], systematic=0.0)
        hits += estimate.low <= 1.0 <= estimate.high
        coverage = estimate.coverage
    assert hits / 2000 > coverage - 0.01


@given(st.lists(st.floats(1e-6, 10.0), min_size=1, max_size=40))
def test_the_interval_holds_the_median_and_is_no_wider_than_it_has_to_be(
    values: list[float],
) -> None:
    estimate = median_with_interval(values)
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.low >= min(*values, (1 - SYSTEMATIC) * estimate.value)
    assert estimate.high <= max(*values, (1 + SYSTEMATIC) * estimate.value)
    if steady(values):
        assert estimate.low == estimate.value * (1 - SYSTEMATIC)


def test_disturbed_blocks_are_left_out_where_enough_are_left() -> None:
    clean = [{"tainted": [], "k": k} for k in range(5)]
    dirty = [{"tainted": ["busy"], "k": k} for k in range(5, 8)]
    assert usable([*dirty, *clean]) == clean
    assert usable([*dirty, *clean[1:]]) == [*dirty, *clean[1:]]
    assert usable(dirty) == dirty
