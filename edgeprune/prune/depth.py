# SPDX-License-Identifier: Apache-2.0
"""Which residual branches go whole: the ratio, concentrated on the least important of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from edgeprune.channels import Branch, Groups, cut
from edgeprune.model import Model
from edgeprune.prune.criteria import Scores
from edgeprune.recipe import PruneOptions

__all__ = ["BranchPlan", "Depth", "Wanted", "concentrate", "fully_within"]

Wanted = NDArray[np.float64]
"""For each group, how many channels are to stay, before rounding."""

_EXACT = 1e-9
"""Shares of channels are sums of floats: so much more than a whole number is that number."""


@dataclass(frozen=True)
class BranchPlan:
    """What happens to one residual branch."""

    name: str
    goes: bool
    importance: float | None
    """``None`` where the criterion has nothing to say, so that it stays."""
    macs: int
    parameters: int
    bytes: int
    note: str = ""
    """Why it stays, where it isn't for its importance."""


@dataclass(frozen=True)
class Depth:
    """The residual branches that may go, each with its score."""

    model: Model
    branches: tuple[Branch, ...]
    scores: Scores


@dataclass(frozen=True)
class _Stage:
    """Branches that are alike: they add to one stream, with the same kinds of layers."""

    branches: tuple[Branch, ...]
    numbers: tuple[int, ...]
    """Their places among all."""


def concentrate(
    groups: Groups, wanted: Wanted, depth: Depth, options: PruneOptions
) -> tuple[tuple[Branch, ...], Wanted, tuple[BranchPlan, ...]]:
    """Let whole branches go for the channels that would go from the inside of all of them.

    In each set of alike branches the inner channels that are to go are added up. The least
    important branches go whole as long as their own inner channels fit into that sum; what is left
    of it thins the other branches, each in proportion to what it was to lose. Branches without
    inner channels (one layer) count one each, and the ratio says how many go.

    Args:
        groups: The analysis of the dense model.
        wanted: What stays of each group without depth pruning; whole branches need no rounding,
            so it is what was asked for, not what a channel multiple makes of it.
        depth: The branches.
        options: The ratio, and the exclusions: a branch that uses such a parameter stays.

    Returns:
        The branches that go, what stays of each group then (zero inside of these), and the
        plan of every branch.
    """
    place = {group.name: i for i, group in enumerate(groups.groups)}
    sizes = np.array([group.size for group in groups.groups], np.float64)
    wanted = wanted.copy()
    notes = {
        b.name: note
        for b, score in zip(depth.branches, depth.scores, strict=True)
        if (note := _stays(b, float(score), options.exclude))
    }
    gone: list[Branch] = []
    for stage in _stages(depth.branches):
        here = [b for b in stage.branches if not fully_within(b, gone)]
        inner = {b.name: [place[name] for name in b.groups] for b in here}
        all_inner = sorted({i for own in inner.values() for i in own})
        loss = float((sizes - wanted)[all_inner].sum())
        score = {
            b.name: depth.scores[n] for b, n in zip(stage.branches, stage.numbers, strict=True)
        }
        free = sorted((b for b in here if b.name not in notes), key=lambda b: score[b.name])
        amount, cost = _amount(here, inner, sizes, loss, options.ratio)
        take = _fitting(free, amount, cost)
        while take and _severs(depth.model, groups, [*gone, *take]):
            notes[take.pop().name] = "without it an input or an output would be cut off"
        gone += take
        _thin_the_rest(wanted, sizes, loss, all_inner, {i for b in take for i in inner[b.name]})
    plans = tuple(
        BranchPlan(
            b.name,
            fully_within(b, gone),
            None if np.isnan(score) else float(score),
            b.macs,
            b.parameters,
            b.bytes,
            notes.get(b.name, ""),
        )
        for b, score in zip(depth.branches, depth.scores, strict=True)
    )
    order = {b.name: n for n, b in enumerate(depth.branches)}
    return tuple(sorted(gone, key=lambda b: order[b.name])), wanted, plans


def fully_within(branch: Branch, others: Iterable[Branch]) -> bool:
    """Whether ``branch`` is one of ``others`` or nested in one."""
    return any(branch.add == other.add or branch.add in other.nodes for other in others)


def _stays(branch: Branch, score: float, exclude: tuple[str, ...]) -> str:
    if any(fnmatchcase(name, pattern) for name in branch.uses for pattern in exclude):
        return "excluded"
    return "no score for it" if np.isnan(score) else ""


def _stages(branches: Sequence[Branch]) -> list[_Stage]:
    """The sets of alike branches; what holds others comes before these."""
    found: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for number, branch in enumerate(branches):
        found.setdefault((branch.stage, branch.kind), []).append(number)
    stages = [_Stage(tuple(branches[n] for n in own), tuple(own)) for own in found.values()]
    holders = {b.add: sum(b.add in other.nodes for other in branches) for b in branches}
    return sorted(stages, key=lambda stage: max(holders[b.add] for b in stage.branches))


def _amount(
    here: list[Branch], inner: dict[str, list[int]], sizes: Wanted, loss: float, ratio: float
) -> tuple[float, dict[str, float]]:
    """How much of a set may go, and how much each branch is of it."""
    if not all(inner.values()):
        return ratio * len(here), dict.fromkeys(inner, 1.0)
    return loss, {name: float(sizes[own].sum()) for name, own in inner.items()}


def _fitting(branches: list[Branch], amount: float, cost: dict[str, float]) -> list[Branch]:
    """The first of ``branches`` that together cost at most ``amount``."""
    taken: list[Branch] = []
    for branch in branches:
        amount -= cost[branch.name]
        if amount < -_EXACT:
            break
        taken.append(branch)
    return taken


def _severs(model: Model, groups: Groups, branches: Sequence[Branch]) -> bool:
    try:
        cut(model, groups, branches)
    except ValueError:
        return True
    return False


def _thin_the_rest(
    wanted: Wanted, sizes: Wanted, loss: float, inner: list[int], gone: set[int]
) -> None:
    """Keep nothing of the groups in ``gone``, and so much more of the other ``inner`` ones that
    ``loss`` channels go in all, in place."""
    if not gone:
        return
    rest = [i for i in inner if i not in gone]
    whole = list(gone)
    left = max(loss - float(sizes[whole].sum()), 0.0)
    planned = float((sizes - wanted)[rest].sum())
    wanted[whole] = 0
    if planned > 0:
        wanted[rest] = sizes[rest] - (sizes - wanted)[rest] * min(left / planned, 1.0)
