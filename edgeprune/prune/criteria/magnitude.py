# SPDX-License-Identifier: Apache-2.0
"""Magnitude: Li et al. 2017, Pruning Filters for Efficient ConvNets, section 3.1; LAMP: Lee et al.
2021, Layer-adaptive Sparsity for the Magnitude-based Pruning."""

from __future__ import annotations

import numpy as np

from edgeprune.prune.criteria.criterion import Scores, Subject
from edgeprune.prune.criteria.slices import Slices, weights

__all__ = ["l1", "l2", "lamp"]


def l1(subject: Subject) -> Scores:
    """The L1 norm of all weights that a channel owns; of a branch the mean absolute weight."""
    return _powers(subject, 1)


def l2(subject: Subject) -> Scores:
    """The L2 norm of all weights that a channel owns; of a branch the root of the mean square."""
    return np.asarray(np.sqrt(_powers(subject, 2)), np.float64)


def lamp(subject: Subject) -> Scores:
    """The squared L2 norm as a share of what its group still has when all smaller ones are gone;
    each group's order is that of ``l2``. Of a branch the mean square of its weights."""
    scores = _powers(subject, 2)
    for group in subject.groups.groups:
        order = group.channels[np.argsort(-scores[group.channels], kind="stable")]
        left = np.cumsum(scores[order])
        scores[order] /= np.where(left > 0, left, 1)
    return scores


def _powers(subject: Subject, power: int) -> Scores:
    powers = {n: w.abs() ** power for n, w in weights(subject).items()}
    return Slices(subject).means(powers)
