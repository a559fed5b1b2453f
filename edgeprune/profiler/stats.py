# SPDX-License-Identifier: Apache-2.0
"""From timed runs to a figure with an interval.

Runs inside one process are not independent: intervals made from them were ten times too narrow
when they were tried. So a process (a block) counts as one sample, and the interval comes from the
blocks. Blocks that follow each other aren't quite independent either, since a machine's other work
and heat outlast a block: so two of them count as one, and no interval is narrower than what
runs minutes apart were seen to differ by (``bench/repeatability.md``). Runs on the device: standard
library only, Python 3.8 or newer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ENOUGH",
    "SYSTEMATIC",
    "TAINT",
    "Estimate",
    "median",
    "median_with_interval",
    "percentile",
    "ratio_with_interval",
    "steady",
    "usable",
]

TAINT = 1.1
"""Wall time over CPU time from which a block counts as disturbed."""
SYSTEMATIC = 0.05
"""Share of a time by which runs minutes apart can differ, however well the blocks of each agree.

Found by trial on one machine under a changing load: with 0.03 and with 0.04 one file in four had
only 8 of 10 runs whose interval held the median of the others; the farthest was 5 % away.
"""
_STEADY = 0.03
ENOUGH = 11
"""Blocks whose whole range is a 95 % interval, two of them counting as one."""
_FEW = 5


@dataclass(frozen=True)
class Estimate:
    """A median, and the interval [low, high] that holds the true one with ``coverage``."""

    value: float
    low: float
    high: float
    coverage: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width as a share of the value."""
        return (self.high - self.low) / (2 * self.value)


def percentile(values: Sequence[float], share: float) -> float:
    """Value below which ``share`` (0 to 1) of ``values`` lie, linear between neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median(values: Sequence[float]) -> float:
    """Median of ``values``, the mean of the middle two where their number is even."""
    return percentile(values, 0.5)


def median_with_interval(
    values: Sequence[float], wanted: float = 0.95, systematic: float = SYSTEMATIC
) -> Estimate:
    """Median of successive times with an interval that repeating the whole should hit.

    The interval runs from the k-th lowest to the k-th highest value, with the largest k whose
    coverage 1 - 2 P(Binomial(n/2, 1/2) < k) reaches ``wanted``: of order statistics, with half of
    the values (rounded up) as their number. It assumes nothing of the distribution. With fewer than
    ``ENOUGH`` values not even the whole range reaches 0.95: then it is the whole range, and
    ``coverage`` says what that is worth (five values: 0.75). It is widened to the median times 1 -
    and 1 + ``systematic`` where it is narrower.
    """
    ordered = sorted(values)
    independent = (len(ordered) + 1) // 2
    rank = 1
    while 2 * (rank + 1) <= independent and _coverage(independent, rank + 1) >= wanted:
        rank += 1
    middle = median(ordered)
    return Estimate(
        middle,
        min(ordered[rank - 1], middle * (1 - systematic)),
        max(ordered[-rank], middle * (1 + systematic)),
        _coverage(independent, rank),
    )


def ratio_with_interval(ratios: Sequence[float], wanted: float = 0.95) -> Estimate:
    """Typical one of ratios of independent processes, with the interval that holds the true one.

    Of the logarithms the Hodges-Lehmann estimate, the median of the means of all pairs, and the
    interval of Wilcoxon's signed-rank test, from the k-th lowest of these means to the k-th
    highest. It takes for granted that the logarithms are spread alike upwards and downwards, which
    swapping both files would do. Simulated with few, heavy-tailed and outlying values it covered
    as often as Student's t and was narrower; the interval of the median was up to a third wider
    (``tests/unit/profiler/test_ratio.py``). Fewer than six give less than ``wanted``: then it is
    their whole range, and ``coverage`` says what that is worth (five: 0.94; one: 0).
    """
    logs = sorted(map(math.log, ratios))
    means = sorted((a + b) / 2 for k, a in enumerate(logs) for b in logs[k:])
    rank, coverage = _signed_rank(len(logs), wanted)
    low, middle, high = (math.exp(m) for m in (means[rank - 1], median(means), means[-rank]))
    return Estimate(middle, low, high, coverage)


def steady(values: Sequence[float]) -> bool:
    """Whether ``values`` differ so little that further ones would not change their interval."""
    middle = median(values)
    return middle * (1 - _STEADY) <= min(values) and max(values) <= middle * (1 + _STEADY)


def usable(blocks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The undisturbed ones of ``blocks`` where there are five, else all: a load that is always
    there is a part of what is measured.
    """
    clean = [block for block in blocks if not block["tainted"]]
    return clean if len(clean) >= _FEW else list(blocks)


def _coverage(count: int, rank: int) -> float:
    below = sum(math.comb(count, chosen) for chosen in range(rank))
    return float(max(0.0, 1 - 2 * below / 2**count))


def _signed_rank(count: int, wanted: float) -> tuple[int, float]:
    """Largest rank whose coverage 1 - 2 P(W < rank) reaches ``wanted``, else 1; its coverage.

    W is the sum of those of 1 to ``count`` that fair coins choose.
    """
    ways = [1] + [0] * (count * (count + 1) // 2)
    for number in range(1, count + 1):
        for total in range(len(ways) - 1, number - 1, -1):
            ways[total] += ways[total - number]
    below, rank = ways[0], 1
    while 1 - 2 * (below + ways[rank]) / 2**count >= wanted:
        below += ways[rank]
        rank += 1
    return rank, max(0.0, 1 - 2 * below / 2**count)
