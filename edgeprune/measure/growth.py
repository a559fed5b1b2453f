# SPDX-License-Identifier: Apache-2.0
"""Whether a latency grew by more than a limit: two ratios to the reference model. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from edgeprune.errors import InputError
from edgeprune.figure import Figure

__all__ = ["ELSEWHERE", "SHIFT", "Growth", "judge_growth"]

SHIFT = 0.01
"""Share by which a ratio differs between two checks of an unchanged file, on a quiet and on a
loaded machine, beyond what the blocks of each tell (``bench/gate_noise.md``): 95 % of them."""
ELSEWHERE = 0.15
"""The same between two kinds of machines, for float32: ratios of a small network differed by 9 and
14 % between an x86 with AVX-512 (times) and Cortex-A72 (instructions), by 1 % between Cortex-A72
and A76. For int8 there is no such share: from A72 to A76, which has dot products, a ratio fell to a
third; so only a baseline of the same kind of machine tells anything of it."""
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Growth:
    """How much a latency changed: shares, so 0.15 is 15 % slower."""

    outcome: Literal["pass", "fail", "inconclusive"]
    change: float
    low: float
    high: float
    """The interval of the change; it is on the same side of the limit where there is a verdict."""


def judge_growth(
    accepted: Figure,
    now: Figure | Sequence[Figure],
    limit: float,
    *,
    looks: int = 1,
    shift: float = SHIFT,
) -> Growth:
    """Compare the ``latency_reference`` that was accepted with what was measured now.

    The check fails only where the whole interval of the change is above ``limit``, and passes only
    where none of it is. Measuring again where it is inconclusive is a further look, and whoever
    looks often enough finds something by chance: so the interval is as wide as ``looks`` such
    intervals need to be to hold together with 95 % (Bonferroni), and all measurements so far are
    taken together, never the last one alone.

    Args:
        accepted: The baseline's.
        now: What was measured, one figure a look.
        limit: Allowed growth, 0.05 for 5 %; negative: it has to be faster.
        looks: Looks there will be at most, the same for each; at least the figures of ``now``.
        shift: Half-width that is added for two checks that are far apart in time; ``ELSEWHERE``
            where they are of two kinds of machines.

    Raises:
        InputError: A figure has no interval or isn't positive, or there are more than ``looks``.
    """
    measurements = [now] if isinstance(now, Figure) else list(now)
    if not 1 <= len(measurements) <= looks:
        raise InputError(f"{len(measurements)} measurements; 1 to {looks} can be judged")
    before = _log(accepted)
    after = _pool([_log(figure) for figure in measurements])
    normal = NormalDist()
    wider = normal.inv_cdf(1 - _tail(looks)) / normal.inv_cdf(1 - _tail(1))
    middle = after[0] - before[0]
    half = wider * math.sqrt(before[1] ** 2 + after[1] ** 2 + shift**2)
    change, low, high = (math.expm1(value) for value in (middle, middle - half, middle + half))
    outcome: Literal["pass", "fail", "inconclusive"] = "inconclusive"
    if high <= limit:
        outcome = "pass"
    elif low > limit:
        outcome = "fail"
    return Growth(outcome, change, low, high)


def _tail(looks: int) -> float:
    return (1 - _CONFIDENCE) / 2 / looks


def _log(figure: Figure) -> tuple[float, float]:
    """Logarithm of a ratio and half of its interval's width, the wider side."""
    value, low, high = figure.value, figure.low, figure.high
    if low is None or high is None or not 0 < low <= value <= high:
        raise InputError(
            f"latency_reference of {value:g} {figure.unit} has no interval of positive numbers; "
            "measure it again: edgeprune baseline accept"
        )
    return math.log(value), max(math.log(value / low), math.log(high / value))


def _pool(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean of logarithms, each weighted by how well it is known; wider where they disagree."""
    weights = [1 / max(half, 1e-6) ** 2 for _, half in parts]
    total = math.fsum(weights)
    mean = math.fsum(w * v for w, (v, _) in zip(weights, parts, strict=True)) / total
    half = total**-0.5
    if len(parts) == 1:
        return mean, half
    spread = math.fsum(w * (v - mean) ** 2 for w, (v, _) in zip(weights, parts, strict=True))
    unit = NormalDist().inv_cdf(1 - _tail(1)) ** 2  # a half-width is this many squared deviations
    return mean, half * math.sqrt(max(1.0, unit * spread / (len(parts) - 1)))
