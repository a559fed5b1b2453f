# SPDX-License-Identifier: Apache-2.0
"""Magnitude: Li et al. 2017, Pruning Filters for Efficient ConvNets, section 3.1."""

from __future__ import annotations

import numpy as np

from edgeprune.channels import evaluate, find_computed
from edgeprune.prune.criteria.criterion import Scores, Subject
from edgeprune.prune.criteria.slices import marked, means, parameters, sum_slices

__all__ = ["l1", "l2"]


def l1(subject: Subject) -> Scores:
    """The L1 norm of all weights that a channel owns; of a branch the mean absolute weight."""
    return _norm(subject, 1)


def l2(subject: Subject) -> Scores:
    """The L2 norm of all weights that a channel owns; of a branch the root of the mean square."""
    return _norm(subject, 2)


def _norm(subject: Subject, power: int) -> Scores:
    model, groups = subject.model, subject.groups
    computed = find_computed(model, groups)
    weights = parameters(model, groups) | marked(evaluate(model, computed.labels))
    powers = {n: w.abs() ** power for n, w in weights.items() if n not in computed.replaced}
    total = np.append(sum_slices(groups, powers, computed), means(subject.branches, powers))
    return np.asarray(total ** (1 / power), np.float64)
