# SPDX-License-Identifier: Apache-2.0
"""From timed runs to a figure with an interval.

Runs inside one process are not independent: intervals made from them were ten times too narrow
when they were tried. So a process (a block) counts as one sample, and the interval comes from the
blocks. Runs on the device: standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["TAINT", "Estimate", "median", "median_with_interval", "percentile", "tainted"]

TAINT = 1.5
"""Wall time over CPU time from which a block counts as disturbed."""


@dataclass(frozen=True)
class Estimate:
    """A median, and the interval [low, high] that holds the true one with ``coverage``."""

    value: float
    low: float
    high: float
    coverage: float


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


def median_with_interval(values: Sequence[float], wanted: float = 0.95) -> Estimate:
    """Median of independent ``values`` with the interval of their order statistics.

    The interval runs from the k-th lowest to the k-th highest value, with the largest k whose
    coverage 1 - 2 P(Binomial(n, 1/2) < k) reaches ``wanted``. It assumes nothing of the
    distribution. With fewer than six values not even the whole range reaches 0.95: then it is the
    whole range, and ``coverage`` says what that is worth (five values: 0.9375).
    """
    ordered = sorted(values)
    count = len(ordered)
    rank = 1
    while 2 * (rank + 1) <= count and _coverage(count, rank + 1) >= wanted:
        rank += 1
    return Estimate(median(ordered), ordered[rank - 1], ordered[-rank], _coverage(count, rank))


def tainted(wall: float, cpu: float) -> bool:
    """Whether a block of ``wall`` seconds was disturbed: it got too little of a core.

    With several threads ``cpu`` counts all of them, so a mild disturbance goes unnoticed there.
    """
    return wall > TAINT * cpu


def _coverage(count: int, rank: int) -> float:
    below = sum(math.comb(count, chosen) for chosen in range(rank))
    return float(max(0.0, 1 - 2 * below / 2**count))
