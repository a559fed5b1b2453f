# SPDX-License-Identifier: Apache-2.0
"""The verdict on a latency's growth: what it says, and how often noise makes it wrong."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.errors import InputError
from edgeprune.figure import Figure, Origin
from edgeprune.measure.growth import ELSEWHERE, SHIFT, Growth, judge_growth
from edgeprune.profiler.stats import Estimate, ratio_with_interval

LIMIT = 0.05
PRECISION = 0.015
BLOCK = 0.012
"""Standard deviation of a block's logarithm: more than most files were seen to have."""
ORIGIN = Origin(kind="measured", how="by hand")


def figure(value: float, half: float = 0.01) -> Figure:
    low, high = value * math.exp(-half), value * math.exp(half)
    return Figure(value=value, unit="x", origin=ORIGIN, low=low, high=high)


def simulated(generator: np.random.Generator, growth: float = 0.0, drift: float = 0.0) -> Figure:
    """One check of the agent: heavy-tailed blocks, shifted and drifting as a whole."""
    middle = math.log(3 * (1 + growth)) + generator.normal(0, SHIFT / 1.96 / math.sqrt(2))
    blocks = BLOCK * generator.standard_t(4, size=30) / math.sqrt(2)
    values = np.exp(middle + blocks + drift * np.linspace(0, 1, 30)).tolist()
    estimate: Estimate
    for count in range(6, 31):
        estimate = ratio_with_interval(values[:count])
        if estimate.half_width <= PRECISION:
            break
    return Figure(
        value=estimate.value, unit="x", origin=ORIGIN, low=estimate.low, high=estimate.high
    )


def check(generator: np.random.Generator, growth: float, looks: int, drift: float = 0.0) -> Growth:
    """A baseline and a check that looks again while it is inconclusive."""
    accepted = simulated(generator)
    found: list[Figure] = []
    while True:
        found.append(simulated(generator, growth, drift))
        verdict = judge_growth(accepted, found, LIMIT, looks=looks)
        if verdict.outcome != "inconclusive" or len(found) == looks:
            return verdict


def share(outcome: str, growth: float, looks: int, drift: float = 0.0, tries: int = 400) -> float:
    generator = np.random.default_rng(11)
    verdicts = [check(generator, growth, looks, drift) for _ in range(tries)]
    return sum(verdict.outcome == outcome for verdict in verdicts) / tries


@pytest.mark.parametrize(
    ("now", "outcome"),
    [(1.0, "pass"), (0.5, "pass"), (1.15, "fail"), (1.05, "inconclusive"), (1.03, "inconclusive")],
)
def test_the_whole_interval_has_to_be_on_one_side(now: float, outcome: str) -> None:
    verdict = judge_growth(figure(1.0), figure(now, 0.02), LIMIT)
    assert verdict.outcome == outcome
    assert verdict.change == pytest.approx(now - 1)
    half = math.sqrt(0.01**2 + 0.02**2 + SHIFT**2)
    assert math.log1p(verdict.high) == pytest.approx(math.log(now) + half)
    assert math.log1p(verdict.low) == pytest.approx(math.log(now) - half)


@given(
    st.floats(0.01, 100),
    st.floats(0.5, 2),
    st.floats(1e-4, 0.2),
    st.floats(-0.3, 0.5),
    st.integers(1, 5),
)
def test_a_verdict_agrees_with_its_interval(
    unit: float, growth: float, half: float, limit: float, looks: int
) -> None:
    verdict = judge_growth(figure(unit, half), figure(unit * growth, half), limit, looks=looks)
    assert verdict.low < verdict.change < verdict.high
    assert (verdict.outcome == "fail") == (verdict.low > limit)
    assert (verdict.outcome == "pass") == (verdict.high <= limit)
    once = judge_growth(figure(unit, half), figure(unit * growth, half), limit)
    assert verdict.low <= once.low + 1e-12
    assert once.high <= verdict.high + 1e-12


def test_looks_that_agree_narrow_it_and_looks_that_differ_do_not() -> None:
    def width(*values: float) -> float:
        parts = [figure(value, 0.03) for value in values]
        verdict = judge_growth(figure(1.0), parts, LIMIT, looks=3)
        return verdict.high - verdict.low

    assert width(1.0, 1.0, 1.0) < width(1.0, 1.0) < width(1.0)
    assert width(0.9, 1.1) > 1.5 * width(1.0)


def test_another_kind_of_machine_tells_only_large_changes() -> None:
    outcomes = [
        judge_growth(figure(1.0), figure(now), LIMIT, shift=ELSEWHERE).outcome
        for now in (0.8, 1.0, 1.15, 1.3)
    ]
    assert outcomes == ["pass", "inconclusive", "inconclusive", "fail"]


def test_a_better_known_look_counts_for_more() -> None:
    verdict = judge_growth(figure(1.0), [figure(1.0, 0.001), figure(1.02, 0.05)], LIMIT, looks=2)
    assert abs(verdict.change) < 0.001


@pytest.mark.parametrize(
    "bad",
    [
        Figure(value=1.0, unit="x", origin=ORIGIN),
        Figure(value=1.0, unit="x", origin=ORIGIN, low=0.9),
        Figure(value=-1.0, unit="x", origin=ORIGIN, low=-2.0, high=-0.5),
        Figure(value=1.0, unit="x", origin=ORIGIN, low=1.1, high=1.2),
        Figure(value=0.0, unit="x", origin=ORIGIN, low=0.0, high=0.1),
    ],
)
def test_a_figure_without_an_interval_cannot_be_compared(bad: Figure) -> None:
    for pair in ((bad, figure(1.0)), (figure(1.0), bad)):
        with pytest.raises(InputError, match="no interval of positive numbers"):
            judge_growth(*pair, LIMIT)


@pytest.mark.parametrize("count", [0, 3])
def test_only_as_many_looks_as_were_planned(count: int) -> None:
    with pytest.raises(InputError, match=f"{count} measurements; 1 to 2"):
        judge_growth(figure(1.0), [figure(1.0)] * count, LIMIT, looks=2)


@pytest.mark.parametrize("looks", [1, 3])
def test_looking_again_does_not_make_noise_a_failure(looks: int) -> None:
    """Where the growth is just what is allowed, a failure is false in 1 of 40 checks at most."""
    assert share("fail", LIMIT, looks) <= 0.03
    assert share("pass", LIMIT, looks) <= 0.03


@pytest.mark.parametrize("drift", [0.0, 0.02])
def test_an_unchanged_file_passes_and_a_wider_layer_is_caught(drift: float) -> None:
    """Though what slows the machine down slows a file by up to 2 % more than its reference."""
    assert share("fail", 0.0, 2, drift) == 0
    assert share("pass", 0.0, 2, drift) >= 0.99
    assert share("fail", 0.15, 2, drift) >= 0.95
