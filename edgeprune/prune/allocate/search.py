# SPDX-License-Identifier: Apache-2.0
"""Widths that meet a goal at the least loss: the cheapest step first, on the grid of widths that
the target's channel multiple allows.

A step takes a group to its next narrower width. Its price is the loss that it adds for the cost
that it saves; losses are made convex first, so that prices only rise, and the greedy order is the
best one for each cost that it passes (the classic argument for marginal allocation, Fox 1966).
Savings shrink as neighbours do, so a price is computed anew when its turn comes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgeprune.channels import Totals
from edgeprune.prune.allocate.costs import Costs, Widths

__all__ = ["TOLERANCE", "Goal", "Ladder", "ladder_widths", "meet"]

TOLERANCE = 0.01
"""How far from the goal is met: share of the goal."""
_TINY = 1e-12
_EVERY = 20_000
"""Combinations of widths that are all looked at where the greedy order misses the goal."""


@dataclass(frozen=True)
class Goal:
    """How much is to be left."""

    what: str
    """``macs``, ``parameters`` or ``channels``."""
    share: float

    @property
    def name(self) -> str:
        """For people."""
        return "MACs" if self.what == "macs" else self.what

    def left_of(self, before: Totals, after: Totals) -> float:
        """The share that is left of what there was."""
        return float(getattr(after, self.what) / max(getattr(before, self.what), 1))

    def left(self, totals: Totals, widths: Widths) -> float:
        """What there is of it."""
        if self.what == "channels":
            return float(widths.sum())
        return float(totals.macs if self.what == "macs" else totals.parameters)


@dataclass(frozen=True)
class Ladder:
    """The widths that a group may have, widest first, and the loss at each."""

    widths: tuple[int, ...]
    losses: tuple[float, ...]


def ladder_widths(size: int, step: int, floor: float) -> tuple[int, ...]:
    """Widths from ``size`` down to ``floor`` of it: multiples of ``step``, and below it what
    divides it."""
    multiples = [width for width in range(size - size % step, 0, -step) if width < size]
    divisors = [d for d in range(min(step, size) - 1, 0, -1) if step % d == 0]
    least = max(1.0, floor * size)
    return (size, *(width for width in multiples + divisors if width >= least))


def meet(goal: Goal, costs: Costs, ladders: Sequence[Ladder], *, per_cost: bool) -> Widths:
    """Take the cheapest steps until the goal is met within ``TOLERANCE``, or is as near as it gets.

    Args:
        goal: What is to be left, as a share of the dense network's.
        costs: Of any widths.
        ladders: One for each group.
        per_cost: Whether a loss is held against the cost that its step saves, or the channels.
    """
    search = _Search(goal, costs, [_convex(ladder) for ladder in ladders], per_cost)
    search.descend()
    search.swap()
    return search.widths()


def _convex(ladder: Ladder) -> Ladder:
    """The losses of the same widths on the lower convex hull of what they were."""
    gone = [float(ladder.widths[0] - width) for width in ladder.widths]
    points = list(zip(gone, np.maximum.accumulate(ladder.losses).tolist(), strict=True))
    hull: list[tuple[float, float]] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) > _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    losses = np.interp(gone, [x for x, _ in hull], [y for _, y in hull])
    return Ladder(ladder.widths, tuple(losses.tolist()))


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])


class _Search:
    def __init__(self, goal: Goal, costs: Costs, ladders: Sequence[Ladder], per_cost: bool) -> None:
        self.goal, self.costs, self.ladders, self.per_cost = goal, costs, ladders, per_cost
        self.at = np.zeros(len(ladders), np.int64)
        self.now = self._left(self.at)
        self.wanted = goal.share * self.now

    def widths(self, at: NDArray[np.int64] | None = None) -> Widths:
        """The widths where the groups stand."""
        places = self.at if at is None else at
        pairs = zip(self.ladders, places, strict=True)
        return np.array([ladder.widths[place] for ladder, place in pairs], np.int64)

    def _left(self, at: NDArray[np.int64]) -> float:
        widths = self.widths(at)
        return self.goal.left(self.costs.totals(widths), widths)

    def _moved(self, *steps: tuple[int, int]) -> NDArray[np.int64]:
        at = self.at.copy()
        for group, step in steps:
            at[group] += step
        return at

    def _price(self, group: int) -> float:
        """Of a group's next step."""
        place, ladder = self.at[group], self.ladders[group]
        loss = ladder.losses[place + 1] - ladder.losses[place]
        saved = float(ladder.widths[place] - ladder.widths[place + 1])
        if self.per_cost:
            before, after = (
                self.costs.totals(self.widths(at)) for at in (self.at, self._moved((group, 1)))
            )
            saved = float(before.macs - after.macs)
            if self.goal.what == "parameters":
                saved = float(before.parameters - after.parameters)
        return float(loss / max(saved, _TINY))

    def descend(self) -> None:
        """Step down until the goal is reached; what would overshoot it is passed over."""
        queue = [(self._price(g), g) for g in range(len(self.ladders)) if self._deeper(g)]
        heapq.heapify(queue)
        while queue and self.now > self.wanted * (1 + TOLERANCE / 2):
            price, group = heapq.heappop(queue)
            fresh = self._price(group)
            if fresh > price * (1 + 1e-9) and queue and fresh > queue[0][0]:
                heapq.heappush(queue, (fresh, group))
                continue
            moved = self._moved((group, 1))
            left = self._left(moved)
            if left < self.wanted * (1 - TOLERANCE):
                continue
            self.at, self.now = moved, left
            if self._deeper(group):
                heapq.heappush(queue, (self._price(group), group))

    def _deeper(self, group: int) -> bool:
        return bool(self.at[group] + 1 < len(self.ladders[group].widths))

    def swap(self) -> None:
        """Where the goal isn't met: the widths that meet it at the least loss, or come nearest,
        among all where there are few, else by changes of one or two groups as long as they help."""
        if self._rank(self.at)[0] == 0:
            return
        if prod(len(ladder.widths) for ladder in self.ladders) <= _EVERY:
            self.at = min(self._all(), key=self._rank)
            return
        while True:
            best = min(self._neighbours(), key=self._rank, default=self.at)
            if self._rank(best) >= self._rank(self.at):
                return
            self.at = best

    def _rank(self, at: NDArray[np.int64]) -> tuple[float, float]:
        """How far from the goal, 0 where it is met, and the loss."""
        off = abs(self._left(at) - self.wanted)
        loss = sum(ladder.losses[place] for ladder, place in zip(self.ladders, at, strict=True))
        return (0.0 if off <= TOLERANCE * self.wanted else off), loss

    def _all(self) -> Iterator[NDArray[np.int64]]:
        places = product(*(range(len(ladder.widths)) for ladder in self.ladders))
        return (np.array(at, np.int64) for at in places)

    def _neighbours(self) -> Iterator[NDArray[np.int64]]:
        steps = [
            (group, step)
            for group, ladder in enumerate(self.ladders)
            for step in (1, -1)
            if 0 <= self.at[group] + step < len(ladder.widths)
        ]
        yield from (self._moved(step) for step in steps)
        for one, other in combinations(steps, 2):
            if one[0] != other[0]:
                yield self._moved(one, other)
