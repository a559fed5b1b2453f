# SPDX-License-Identifier: Apache-2.0
"""SNIP: the loss's sensitivity to each connection (Lee, Ajanthan and Torr 2019)."""

from __future__ import annotations

from edgeprune.context import Context
from edgeprune.mask import Mask
from edgeprune.model import Model
from edgeprune.tickets.at_init.steps import batches, check_scores, find_on_data, weights_of
from edgeprune.tickets.found import Found, Work
from edgeprune.tickets.options import TicketOptions
from edgeprune.tickets.scores import Probe, Scores, mean_gradients, saliency

__all__ = ["find", "sensitivity"]


def find(model: Model, options: TicketOptions, context: Context, work: Work) -> Found:
    """Keep the connections that the loss depends on most, ranked over all layers.

    The paper gates each weight with c = 1 and takes s = |dL/dc| / sum |dL/dc|; as L depends on c *
    w alone, dL/dc = g * w. It prunes once. With more iterations this is iterative SNIP (de Jorge et
    al. 2021, which is also where FORCE is from): the score is taken again in the pruned network at
    each step; unlike in FORCE, what went can't come back.

    Batch norms use the statistics of the batch, as in the released code: L is the loss that
    training will see first, and a new network has no other statistics. Dropout is off.

    Raises:
        InputError: Nothing to learn from, a density that can't be met, or all scores are zero.
        DataError: There is no data, or it doesn't fit the model.
    """
    return find_on_data(model, options, context, sensitivity)


def sensitivity(probe: Probe, mask: Mask) -> Scores:
    """|g * w| of the network as it is, divided by its sum over all weights.

    Raises:
        InputError: All are zero.
    """
    gradients = mean_gradients(probe.module, probe.loss, batches(probe), probe.ledger, mask)
    scores = saliency(weights_of(probe.module), gradients)
    total = check_scores(scores, "snip")
    return {name: value / total for name, value in scores.items()}
