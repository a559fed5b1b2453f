# SPDX-License-Identifier: Apache-2.0
"""Batch norms' scales: Liu et al. 2017, Learning Efficient Convolutional Networks through Network
Slimming."""

from __future__ import annotations

import numpy as np
import torch

from edgeprune.model import Model
from edgeprune.prune.criteria.criterion import Scores, Subject
from edgeprune.prune.criteria.slices import Slices, weights

__all__ = ["batch_norm_scale", "batch_norm_weights"]


def batch_norm_scale(subject: Subject) -> Scores:
    """The sum of |gamma| of the batch norms on a channel, and the mean of those in a branch.

    Channels and branches without batch norm get NaN.
    """
    names, slices = batch_norm_weights(subject.model), Slices(subject)
    scales = {n: p.abs() for n, p in weights(subject).items() if n in names}
    present = slices.sums({n: torch.ones_like(p) for n, p in scales.items()})
    return np.where(present > 0, slices.means(scales), np.nan)


def batch_norm_weights(model: Model) -> set[str]:
    """The scales of all batch norms, by name."""
    names = model.program.graph_signature.inputs_to_parameters
    return {
        names[node.args[1].name]
        for node in model.program.graph.nodes
        if node.op == "call_function"
        and "batch_norm" in str(node.target)
        and isinstance(node.args[1], torch.fx.Node)
        and node.args[1].name in names
    }
