# SPDX-License-Identifier: Apache-2.0
"""What ``compress`` would do, as far as it can be known without doing it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgeprune.channels import Totals
from edgeprune.context import Context
from edgeprune.figure import Figure
from edgeprune.inputs import choose_numerics, open_inputs, require_float
from edgeprune.job import Job
from edgeprune.progress import Progress, Silent
from edgeprune.prune import PrunePlan, plan
from edgeprune.quantize import Choice
from edgeprune.step import weigh
from edgeprune.tickets.use import TicketInUse, effect, open_ticket
from edgeprune.workspace import check

__all__ = ["Preview", "preview"]


@dataclass(frozen=True)
class Preview:
    """The decisions of a run, before it."""

    job: Job
    dense: dict[str, Figure]
    """Parameters, MACs and bytes of the model as loaded."""
    samples: dict[str, int] | None
    """In each part of the data; ``None`` without data."""
    prune: PrunePlan | None
    """``None`` where a ticket takes its place."""
    ticket: TicketInUse | None
    before: Totals
    after: Totals
    """What the shapes cost, once pruned."""
    numerics: Choice


def preview(job: Job, progress: Progress | None = None) -> Preview:
    """Load the model, plan the pruning, decide the numerics; writes nothing.

    Raises:
        InputError: The model, the data, an option or the output folder can't be used.
    """
    progress = progress or Silent()
    check(job.out, job.target.name, overwrite=True)
    torch.set_num_threads(job.threads)
    seed = job.recipe.seed
    opened, data = open_inputs(job.source, job.data, seed, progress)
    dense = opened.model
    context = Context(job.target, job.out, data, dense, seed, job.threads, progress)
    require_float(dense, job.source)
    choice, *_ = choose_numerics(job, dense, data)
    samples = None if data is None else data.sizes
    ticket = open_ticket(job.ticket, job.recipe, dense)
    if ticket is not None:
        does = effect(dense, ticket)
        return Preview(job, weigh(dense), samples, None, ticket, does.before, does.after, choice)
    cut = plan(dense, job.recipe.prune, context)
    return Preview(job, weigh(dense), samples, cut, None, cut.before, cut.after, choice)
