# SPDX-License-Identifier: Apache-2.0
"""First-order Taylor: Molchanov et al. 2019, Importance Estimation for Neural Network Pruning."""

from __future__ import annotations

import numpy as np

from edgeprune.channels import find_computed
from edgeprune.prune.criteria.criterion import Scores, Subject
from edgeprune.prune.criteria.gradients import products
from edgeprune.prune.criteria.slices import sum_slices, sums

__all__ = ["taylor"]


def taylor(subject: Subject) -> Scores:
    """The squared change of the loss when a channel is set to zero, to first order, (sum of
    gradient times weight)^2, averaged over batches (eq. 8 with a channel, or a branch, as the
    unit).

    Raises:
        DataError: A label is outside the classes of the model's output, or an index in the data
            outside the model's table.
        InputError: No output has a gradient.
    """
    groups, branches = subject.groups, subject.branches
    computed = find_computed(subject.model, groups)
    total = np.zeros(groups.channels + len(branches))
    for count, found in enumerate(products(subject, computed, "taylor"), 1):
        each = np.append(sum_slices(groups, found, computed), sums(branches, found))
        total += (each**2 - total) / count
    return total
