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
    "steady",
    "usable",
]

TAINT = 1.1
"""Wall time over CPU time from which a block counts as disturbed."""
SYSTEMATIC = 0.04
"""Share of a time by which runs minutes apart differ, however well the blocks of each agree."""
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


def steady(values: Sequence[float]) -> bool:
    """Whether ``values`` differ so little that further ones would not change their interval."""
    middle = median(values)
    return middle * (1 - SYSTEMATIC) <= min(values) and max(values) <= middle * (1 + SYSTEMATIC)


def usable(blocks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The undisturbed ones of ``blocks`` where there are five, else all: a load that is always
    there is a part of what is measured.
    """
    clean = [block for block in blocks if not block["tainted"]]
    return clean if len(clean) >= _FEW else list(blocks)


def _coverage(count: int, rank: int) -> float:
    below = sum(math.comb(count, chosen) for chosen in range(rank))
    return float(max(0.0, 1 - 2 * below / 2**count))
