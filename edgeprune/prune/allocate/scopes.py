# SPDX-License-Identifier: Apache-2.0
"""How much goes where: what each scope takes a narrower group to lose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgeprune.channels import Group
from edgeprune.prune.allocate.sensitivity import Curves
from edgeprune.prune.criteria import Scores
from edgeprune.recipe import Scope

__all__ = ["SCOPES", "Scoped"]

Loss = Callable[[Group, Scores, int, Curves], float]
"""Of a group, given the scores of its channels, when so many of them go, the least first."""


@dataclass(frozen=True)
class Scoped:
    """One scope."""

    loss: Loss
    per_cost: bool
    """Whether a loss is held against the cost that it saves, or the channels."""


def _uniform(group: Group, scores: Scores, gone: int, curves: Curves) -> float:
    """Its slope is the share that goes: so that grows alike everywhere."""
    return gone**2 / (2 * group.size)


def _ranked(group: Group, scores: Scores, gone: int, curves: Curves) -> float:
    """The scores that go, in units of the group's mean, as layers differ in scale."""
    return float(np.sort(scores)[:gone].sum() / max(scores.mean(), np.finfo(float).tiny))


def _measured(group: Group, scores: Scores, gone: int, curves: Curves) -> float:
    return curves[group.name](gone) if gone else 0.0


SCOPES: Mapping[Scope, Scoped] = {
    "uniform": Scoped(_uniform, per_cost=False),
    "global": Scoped(_ranked, per_cost=False),
    "cost": Scoped(_ranked, per_cost=True),
    "sensitivity": Scoped(_measured, per_cost=True),
}
"""All of them, by their names in a recipe."""
