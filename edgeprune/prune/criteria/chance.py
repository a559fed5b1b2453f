# SPDX-License-Identifier: Apache-2.0
"""The baseline that every criterion must beat."""

import numpy as np

from edgeprune.prune.criteria.criterion import Scores, Subject

__all__ = ["random"]


def random(subject: Subject) -> Scores:
    """Uniform scores."""
    count = subject.groups.channels + len(subject.branches)
    return np.random.default_rng(subject.seed).random(count)
