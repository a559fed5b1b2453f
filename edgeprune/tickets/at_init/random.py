# SPDX-License-Identifier: Apache-2.0
"""Random masks: the baseline, and with good layer densities a strong one (Liu et al. 2022)."""

from __future__ import annotations

from edgeprune.context import Context
from edgeprune.mask import Mask
from edgeprune.model import Model
from edgeprune.tickets.at_init.steps import begin, descend, finish
from edgeprune.tickets.found import Found, Work
from edgeprune.tickets.options import TicketOptions
from edgeprune.tickets.scores import Scores, random

__all__ = ["find"]


def find(model: Model, options: TicketOptions, context: Context, work: Work) -> Found:
    """Keep weights at random, with ERK's layer densities unless the options say otherwise.

    Neither data nor the weights' values count.

    Raises:
        InputError: A density that can't be met, or a pattern that doesn't fit.
    """
    start = begin(model, options)

    def score(mask: Mask, step: int) -> Scores:
        return random(start.network, context.seed)

    mask, _ = descend(start, options, context, score, steps=1)
    return finish(start, mask, {})
