# SPDX-License-Identifier: Apache-2.0
"""How much each channel matters, and each residual branch: one file a criterion, beside its paper.

A channel owns slices of several parameters; its score is a sum over all of them (group importance,
Fang et al. 2023, DepGraph, section 3.3), so coupled layers are judged together. A branch owns all
parameters that nothing else uses; magnitudes are means over its weights, so that its size, of
which the costs speak, doesn't decide. A weight that the graph computes from parameters (weight
norm) counts as it is computed, in their place.
"""

from collections.abc import Mapping

from edgeprune.prune.criteria.activation import apoz, wanda
from edgeprune.prune.criteria.bn_scale import batch_norm_scale, batch_norm_weights
from edgeprune.prune.criteria.chance import random
from edgeprune.prune.criteria.criterion import Criterion, Samples, Scores, Subject
from edgeprune.prune.criteria.fisher import fisher
from edgeprune.prune.criteria.magnitude import l1, l2, lamp
from edgeprune.prune.criteria.median import fpgm
from edgeprune.prune.criteria.surgeon import obs
from edgeprune.prune.criteria.taylor import taylor, taylor_abs

__all__ = ["CRITERIA", "Criterion", "Samples", "Scores", "Subject", "batch_norm_weights"]

CRITERIA: Mapping[str, Criterion] = {
    "l1": Criterion(l1),
    "l2": Criterion(l2),
    "taylor": Criterion(taylor, needs="gradients"),
    "taylor-abs": Criterion(taylor_abs, needs="gradients"),
    "fisher": Criterion(fisher, needs="gradients"),
    "obs": Criterion(obs, needs="gradients"),
    "wanda": Criterion(wanda, needs="samples"),
    "apoz": Criterion(apoz, needs="samples"),
    "bn-scale": Criterion(batch_norm_scale),
    "fpgm": Criterion(fpgm),
    "lamp": Criterion(lamp),
    "random": Criterion(random),
}
"""All of them, by their names in a recipe."""
