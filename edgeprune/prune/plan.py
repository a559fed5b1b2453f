# SPDX-License-Identifier: Apache-2.0
"""Which channels go: decided here, from scores and a ratio, before anything is edited."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import ceil, gcd, lcm

import numpy as np

from edgeprune.channels import Branch, Group, Groups, Totals, cut, without
from edgeprune.channels.groups import Bools
from edgeprune.errors import InputError, nearest
from edgeprune.prune.allocate import SCOPES, Costs, Goal, Ladder, ladder_widths, meet
from edgeprune.prune.allocate.sensitivity import Curves
from edgeprune.prune.criteria import Scores
from edgeprune.prune.depth import BranchPlan, Depth, Wanted, concentrate
from edgeprune.recipe import PruneOptions, Scope

__all__ = ["GroupPlan", "PrunePlan", "decide", "goal_of", "ladders", "scope_of", "untouched"]

_FLOOR = 0.1
"""Share of a group that a global ranking always leaves, so that no layer becomes a bottleneck."""


@dataclass(frozen=True)
class GroupPlan:
    """What happens to one group."""

    name: str
    before: int
    after: int
    note: str = ""


@dataclass(frozen=True)
class PrunePlan:
    """The whole decision: widths before and after, the channels and the residual branches that go,
    the costs that follow."""

    importance: str
    groups: tuple[GroupPlan, ...]
    removed: Bools
    """Channels that are cut out of what stays; those inside of a branch that goes aren't among
    them."""
    before: Totals
    after: Totals
    branches: tuple[BranchPlan, ...] | None = None
    """Every residual branch, where whole ones may go."""
    gone: tuple[Branch, ...] = ()
    """The branches that go."""
    goal: Goal | None = None
    """What was to be left, where that was asked for."""
    scope: Scope = "uniform"
    """How much goes where."""

    @property
    def ratio(self) -> float:
        """The share of prunable channels that really goes, after rounding."""
        gone = sum(group.before - group.after for group in self.groups)
        return gone / self.removed.size if self.removed.size else 0.0


def untouched(groups: Groups, importance: str, options: PruneOptions) -> PrunePlan:
    """The plan that removes nothing.

    Raises:
        InputError: An exclusion matches no parameter.
    """
    excluded = _excluded(groups, options.exclude)
    plans = tuple(
        GroupPlan(group.name, group.size, group.size, "excluded" if group.name in excluded else "")
        for group in groups.groups
    )
    return PrunePlan(importance, plans, groups.keep_all(), groups.totals(), groups.totals())


def decide(
    groups: Groups,
    scores: Scores,
    importance: str,
    options: PruneOptions,
    multiple: int,
    depth: Depth | None = None,
    curves: Curves | None = None,
) -> PrunePlan:
    """Choose the channels to remove, and the branches.

    Args:
        groups: The analysis of the model.
        scores: One for each channel; NaN keeps a channel's whole group.
        importance: The name of the criterion, for the record.
        options: Ratio, scope and exclusions.
        multiple: Channel counts are rounded to this where the group allows it.
        depth: The residual branches that may go whole; ``None`` where none may.
        curves: What each group was measured to lose, for the scope ``sensitivity``.

    Raises:
        InputError: An exclusion matches no parameter.
    """
    notes = _notes(groups, scores, importance, options.exclude)
    goal = goal_of(options)
    searched = goal is not None or scope_of(options) not in ("uniform", "global")
    if searched:
        wanted = _searched(groups, scores, notes, options, multiple, curves or {})
    else:
        wanted = _wanted(groups, scores, notes, options)
    gone: tuple[Branch, ...] = ()
    branches = None
    if depth is not None:
        gone, wanted, branches = concentrate(groups, wanted, depth, options)
    within = {name: branch.name for branch in gone for name in branch.groups}
    removed = groups.keep_all()
    plans = []
    for group, most in zip(groups.groups, wanted, strict=True):
        if group.name in within:
            note = f"goes with the branch {within[group.name]}"
            plans.append(GroupPlan(group.name, group.size, 0, note))
            continue
        keep, note = int(most), notes.get(group.name, "")
        if not note and not searched:
            step = _step(groups, group, multiple)
            keep = _rounded(float(most), group.size, step)
            note = "" if keep % step == 0 else f"{group.size} channels don't divide by {step}"
        order = np.argsort(scores[group.channels], kind="stable")
        removed[group.channels[order[: group.size - keep]]] = True
        plans.append(GroupPlan(group.name, group.size, keep, note))
    after = groups.totals(removed)
    if depth is not None and gone:
        after = without(groups, cut(depth.model, groups, gone)).totals(removed)
    before = groups.totals()
    parts = (importance, tuple(plans), removed, before, after, branches, gone, goal)
    return PrunePlan(*parts, scope_of(options))


def goal_of(options: PruneOptions) -> Goal | None:
    """What is to be left, where the options say so; ``None`` where the ratio counts."""
    if options.macs is not None:
        return Goal("macs", options.macs)
    return None if options.params is None else Goal("parameters", options.params)


def scope_of(options: PruneOptions) -> Scope:
    """The scope; ``auto`` is ``uniform`` here, as only the stage knows whether there is data."""
    return "uniform" if options.scope == "auto" else options.scope


def ladders(groups: Groups, multiple: int) -> list[tuple[int, ...]]:
    """The widths that each group may have, the widest first."""
    return [
        ladder_widths(group.size, _step(groups, group, multiple), _FLOOR) for group in groups.groups
    ]


def _searched(
    groups: Groups,
    scores: Scores,
    notes: dict[str, str],
    options: PruneOptions,
    multiple: int,
    curves: Curves,
) -> Wanted:
    """How many channels of each group stay, so that the goal is met, on the multiple's grid."""
    scoped = SCOPES[scope_of(options)]
    made = []
    for group, widths in zip(groups.groups, ladders(groups, multiple), strict=True):
        own = (group.size,) if group.name in notes else widths
        losses = (scoped.loss(group, scores[group.channels], group.size - w, curves) for w in own)
        made.append(Ladder(own, tuple(losses)))
    free = sum(g.size for g in groups.groups if g.name not in notes)
    whole = Goal("channels", 1 - options.ratio * free / max(groups.channels, 1))
    goal = goal_of(options) or whole
    return meet(goal, Costs(groups), made, per_cost=scoped.per_cost).astype(np.float64)


def _notes(
    groups: Groups, scores: Scores, importance: str, exclude: tuple[str, ...]
) -> dict[str, str]:
    """The groups that stay whole, and why."""
    excluded = _excluded(groups, exclude)
    unscored = {g.name for g in groups.groups if np.isnan(scores[g.channels]).any()}
    return dict.fromkeys(unscored, f"{importance} has no score for it") | dict.fromkeys(
        excluded, "excluded"
    )


def _wanted(groups: Groups, scores: Scores, notes: dict[str, str], options: PruneOptions) -> Wanted:
    """How many channels of each group are to stay, before rounding."""
    excluded = {name for name, note in notes.items() if note == "excluded"}
    survivors = _survivors(groups, scores, excluded, options)
    wanted = []
    for group in groups.groups:
        most = group.size * (1 - options.ratio)
        if survivors is not None:
            most = max(int(survivors[group.channels].sum()), ceil(_FLOOR * group.size))
        wanted.append(group.size if group.name in notes else most)
    return np.array(wanted, np.float64)


def _relative(scores: Scores) -> Scores:
    mean = scores.mean()
    return scores / mean if mean > 0 else scores


def _survivors(
    groups: Groups, scores: Scores, excluded: set[str], options: PruneOptions
) -> Bools | None:
    """In global scope, the channels that a ranking over all groups keeps; each score counts
    relative to its group's mean, as layers differ in scale."""
    if scope_of(options) == "uniform":
        return None
    relative = np.full(groups.channels, np.nan)
    for group in groups.groups:
        if group.name not in excluded:
            relative[group.channels] = _relative(scores[group.channels])
    ranked = np.argsort(relative, kind="stable")[: int((~np.isnan(relative)).sum())]
    kept = ~groups.keep_all()
    kept[ranked[: round(options.ratio * ranked.size)]] = False
    return kept


def _step(groups: Groups, group: Group, multiple: int) -> int:
    """Channels by which the group's width must change so that every tensor's size stays a multiple:
    a head that owns 16 rows needs no rounding to 8."""
    steps = []
    for key in group.members:
        label = groups.labels[key]
        per_channel = int(np.isin(label, group.channels).sum()) // group.size
        steps.append(multiple // gcd(multiple, max(per_channel, 1)))
    return lcm(*steps)


def _rounded(wanted: float, size: int, step: int) -> int:
    if size < step:
        step = 1
    nearest_multiple = max(round(wanted / step), 1) * step
    return size if nearest_multiple > size else nearest_multiple


def _excluded(groups: Groups, patterns: tuple[str, ...]) -> set[str]:
    names = sorted({name for group in groups.groups for name, _ in group.members})
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in groups.walk.states):
            raise InputError(
                f"--exclude '{pattern}' matches no parameter{nearest(pattern, names)}; "
                "`edgeprune inspect` lists them"
            )
    return {
        group.name
        for group in groups.groups
        if any(fnmatchcase(name, p) for name, _ in group.members for p in patterns)
    }
