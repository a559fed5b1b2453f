# SPDX-License-Identifier: Apache-2.0
"""FPGM: He et al. 2019, Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
Acceleration."""

from __future__ import annotations

import numpy as np
import torch

from edgeprune.prune.criteria.criterion import Scores, Subject
from edgeprune.prune.criteria.slices import Slices, weights

__all__ = ["fpgm"]


def fpgm(subject: Subject) -> Scores:
    """The sum of the distances of a channel's weights to those of all others of its group:
    what lies near the geometric median, the others can stand for. Branches get NaN."""
    groups, values = subject.groups, weights(subject)
    group_of = np.zeros(groups.channels, np.int64)
    for number, group in enumerate(groups.groups):
        group_of[group.channels] = number
    squares = [np.zeros((group.size, group.size)) for group in groups.groups]
    for (name, dim), label in Slices(subject).labels.items():
        if name not in values:
            continue
        rows = values[name].double().movedim(dim, 0).reshape(label.size, -1)
        for number in np.unique(group_of[label[label >= 0]]):
            channels = groups.groups[number].channels
            mine = np.flatnonzero(np.isin(label, channels))
            mine = mine[np.argsort(label[mine], kind="stable")]
            each = rows[torch.from_numpy(mine)].reshape(channels.size, -1)
            squares[number] += torch.cdist(each, each).square().numpy()
    scores = np.full(groups.channels + len(subject.branches), np.nan)
    for group, square in zip(groups.groups, squares, strict=True):
        scores[np.sort(group.channels)] = np.sqrt(square).sum(1)
    return scores
