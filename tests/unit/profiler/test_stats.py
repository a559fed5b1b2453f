# SPDX-License-Identifier: Apache-2.0
import random

import numpy as np
import pytest

from edgeprune.profiler.stats import median, median_with_interval, percentile, tainted


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_percentile_is_numpys(share: float, count: int) -> None:
    values = np.random.default_rng(count).normal(size=count).tolist()
    assert percentile(values, share) == pytest.approx(np.percentile(values, 100 * share))


def test_median_of_an_even_number() -> None:
    assert median([4.0, 1.0, 3.0, 2.0]) == 2.5


@pytest.mark.parametrize(
    ("count", "rank", "coverage"),
    [(2, 1, 0.5), (5, 1, 0.9375), (6, 1, 0.96875), (9, 2, 0.9609375), (20, 6, 0.9586105)],
)
def test_interval_is_the_one_of_the_tables(count: int, rank: int, coverage: float) -> None:
    values = [float(k) for k in range(1, count + 1)]
    random.Random(0).shuffle(values)
    estimate = median_with_interval(values)
    assert (estimate.low, estimate.high) == (rank, count + 1 - rank)
    assert estimate.coverage == pytest.approx(coverage)


def test_one_value_promises_nothing() -> None:
    estimate = median_with_interval([3.0])
    assert (estimate.value, estimate.low, estimate.high, estimate.coverage) == (3, 3, 3, 0)


@pytest.mark.parametrize("count", [5, 9, 15])
def test_interval_covers_the_true_median_as_often_as_it_says(count: int) -> None:
    generator = np.random.default_rng(1)
    true = float(np.exp(0.0))  # of a log-normal distribution: skewed, as latencies are
    hits, coverage = 0, 0.0
    for sample in generator.lognormal(size=(2000, count)):
        estimate = median_with_interval(sample.tolist())
        hits += estimate.low <= true <= estimate.high
        coverage = estimate.coverage
    assert hits / 2000 == pytest.approx(coverage, abs=0.02)


def test_tainted_is_a_third_of_the_core_lost() -> None:
    assert not tainted(1.0, 0.99)
    assert not tainted(1.0, 1.9)
    assert tainted(1.0, 0.6)
