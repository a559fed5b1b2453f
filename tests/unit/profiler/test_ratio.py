# SPDX-License-Identifier: Apache-2.0
"""The interval of a ratio: against published tables, and by simulation of what noise looks like."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.profiler.stats import Estimate, ratio_with_interval

SPREAD = 0.02
"""Standard deviation of a block's logarithm."""
ratios = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=20)


def noise(kind: str, generator: np.random.Generator, count: int) -> np.ndarray:
    """Deviations of blocks, most of them of one standard deviation; 0 is their middle."""
    normal = generator.normal(size=count)
    if kind == "heavy tails":
        return generator.standard_t(3, size=count) / math.sqrt(3)
    if kind == "outliers":
        return normal + 5 * (generator.random(count) < 0.1) * generator.choice([-1, 1], count)
    return normal


def until_precise(values: np.ndarray, precision: float) -> Estimate:
    """What the agent does: six blocks at least, then until the interval is narrow enough."""
    for end in range(6, len(values) + 1):
        estimate = ratio_with_interval(values[:end].tolist())
        if estimate.half_width <= precision:
            break
    return estimate


@pytest.mark.parametrize(
    ("count", "rank", "coverage"),
    [
        (1, 1, 0.0),
        (5, 1, 0.9375),
        (6, 1, 0.96875),
        (8, 4, 0.9609375),
        (10, 9, 0.951171875),
        (20, 53, 0.951559),
    ],
)
def test_ranks_are_those_of_the_tables(count: int, rank: int, coverage: float) -> None:
    """Wilcoxon's critical values at 5 %, two-sided: 3 for 8 values, 8 for 10, 52 for 20."""
    values = np.random.default_rng(count).normal(size=count)
    estimate = ratio_with_interval(np.exp(values).tolist())
    means = sorted(
        (values[k] + values[other]) / 2 for k in range(count) for other in range(k, count)
    )
    assert estimate.coverage == pytest.approx(coverage, abs=1e-6)
    assert math.log(estimate.low) == pytest.approx(means[rank - 1])
    assert math.log(estimate.high) == pytest.approx(means[-rank])
    assert math.log(estimate.value) == pytest.approx(np.median(means))


@given(ratios)
def test_the_other_way_round_is_the_reciprocal(values: list[float]) -> None:
    one = ratio_with_interval(values)
    other = ratio_with_interval([1 / value for value in values])
    assert one.low <= one.value <= one.high
    assert other.value == pytest.approx(1 / one.value)
    assert (other.low, other.high) == pytest.approx((1 / one.high, 1 / one.low))


@given(ratios, st.floats(0.01, 100.0))
def test_a_unit_changes_nothing_else(values: list[float], unit: float) -> None:
    one = ratio_with_interval(values)
    other = ratio_with_interval([unit * value for value in values])
    assert other.half_width == pytest.approx(one.half_width, abs=1e-9)
    assert other.value == pytest.approx(unit * one.value)


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "outliers"])
@pytest.mark.parametrize("precision", [0.01, 0.015, 0.03])
def test_interval_holds_the_true_ratio_though_it_stops_when_narrow(
    kind: str, precision: float
) -> None:
    """Stopping at a width looks at the values, so it costs some coverage: four of a hundred.

    Drift isn't here: no interval made of one check's blocks can know of it (test_growth.py).
    """
    generator = np.random.default_rng(7)
    hits, tries = 0, 600
    for _ in range(tries):
        values = np.exp(SPREAD * noise(kind, generator, 20))
        estimate = until_precise(values, precision)
        hits += estimate.low <= 1.0 <= estimate.high
    assert hits / tries >= 0.91


def test_one_bad_process_hardly_moves_it() -> None:
    """A mean, and with it Student's t, would follow."""
    calm = np.exp(np.random.default_rng(1).normal(0, 0.005, 12)).tolist()
    before, after = ratio_with_interval(calm), ratio_with_interval([*calm[:-1], 2 * calm[-1]])
    assert abs(after.value / before.value - 1) < before.half_width
    assert after.half_width < 3 * before.half_width


def test_positive_numbers_only() -> None:
    with pytest.raises(ValueError, match=r"math domain|positive"):
        ratio_with_interval([1.0, 0.0])
