# SPDX-License-Identifier: Apache-2.0
"""First-order Taylor: Molchanov et al. 2019, Importance Estimation for Neural Network Pruning."""

from __future__ import annotations

import numpy as np

from edgeprune.prune.criteria.criterion import Scores, Subject
from edgeprune.prune.criteria.gradients import products
from edgeprune.prune.criteria.slices import Slices, biases

__all__ = ["taylor", "taylor_abs"]


def taylor(subject: Subject) -> Scores:
    """The squared change of the loss when a channel is set to zero, to first order, (sum of
    gradient times weight)^2, averaged over batches (eq. 8 with a channel, or a branch, as the
    unit).

    Raises:
        DataError: A label is outside the classes of the model's output, or an index in the data
            outside the model's table.
        InputError: No output has a gradient.
    """
    slices, total, count = Slices(subject), np.zeros(1), 0
    for size, found in products(subject, "taylor"):
        count += size
        total = total + (slices.sums(found) ** 2 - total) * size / count
    return total


def taylor_abs(subject: Subject) -> Scores:
    """The sum of |gradient times weight| over all weights that a channel, or a branch, owns,
    averaged over batches; biases don't count.

    Raises:
        DataError: As ``taylor``.
        InputError: As ``taylor``.
    """
    slices, left_out, total, count = Slices(subject), biases(subject.model), np.zeros(1), 0
    for size, found in products(subject, "taylor-abs"):
        count += size
        sizes = {n: v.abs() for n, v in found.items() if n not in left_out}
        total = total + (slices.sums(sizes) - total) * size / count
    return total
