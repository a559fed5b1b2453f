# SPDX-License-Identifier: Apache-2.0
"""Optimal Brain Damage (LeCun et al. 1990), with the diagonal of the empirical Fisher matrix for
that of the Hessian (Theis et al. 2018, Faster gaze prediction with dense networks and Fisher
pruning)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from edgeprune.prune.criteria.criterion import Scores, Subject
from edgeprune.prune.criteria.gradients import products
from edgeprune.prune.criteria.slices import Slices

__all__ = ["Fisher", "fisher"]


class Fisher:
    """The mean over batches, gathered one by one."""

    def __init__(self, subject: Subject) -> None:
        self.slices = Slices(subject)
        self.scores: Scores = np.zeros(subject.groups.channels + len(subject.branches))
        self._count = 0

    def add(self, size: int, found: Mapping[str, Tensor]) -> None:
        """Take in one batch's products of weight and gradient.

        The square of a batch's mean gradient is about that of one sample's, divided by the size of
        the batch, since gradients of a trained network add up to little.
        """
        self._count += size
        each = self.slices.sums({n: size / 2 * v**2 for n, v in found.items()})
        self.scores = self.scores + (each - self.scores) * size / self._count


def fisher(subject: Subject) -> Scores:
    """The increase of the loss when the weights of a channel, or a branch, are set to zero, to
    second order and each weight alone: half the sum of gradient^2 weight^2, of one sample.

    Raises:
        DataError: A label is outside the classes of the model's output, or an index in the data
            outside the model's table.
        InputError: No output has a gradient.
    """
    result = Fisher(subject)
    for size, found in products(subject, "fisher"):
        result.add(size, found)
    return result.scores
