# SPDX-License-Identifier: Apache-2.0
"""How much each channel matters, and each residual branch: one file a criterion, beside its paper.

A channel owns slices of several parameters; its score is a sum over all of them (group importance,
Fang et al. 2023, DepGraph, section 3.3), so coupled layers are judged together. A branch owns all
parameters that nothing else uses; magnitudes are means over its weights, so that its size, of
which the costs speak, doesn't decide. A weight that the graph computes from parameters (weight
norm) counts as it is computed, in their place.
"""

from collections.abc import Mapping

from edgeprune.prune.criteria.bn_scale import batch_norm_scale, batch_norm_weights
from edgeprune.prune.criteria.chance import random
from edgeprune.prune.criteria.criterion import Criterion, Samples, Scores, Subject
from edgeprune.prune.criteria.magnitude import l1, l2
from edgeprune.prune.criteria.taylor import taylor

__all__ = ["CRITERIA", "Criterion", "Samples", "Scores", "Subject", "batch_norm_weights"]

CRITERIA: Mapping[str, Criterion] = {
    "l1": Criterion(l1),
    "l2": Criterion(l2),
    "taylor": Criterion(taylor, needs="gradients"),
    "bn-scale": Criterion(batch_norm_scale),
    "random": Criterion(random),
}
"""All of them, by their names in a recipe."""
