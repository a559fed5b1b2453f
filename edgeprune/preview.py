# SPDX-License-Identifier: Apache-2.0
"""What ``compress`` would do, as far as it can be known without doing it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgeprune.context import Context
from edgeprune.figure import Figure
from edgeprune.inputs import choose_numerics, open_inputs, require_float
from edgeprune.job import Job
from edgeprune.progress import Progress, Silent
from edgeprune.prune import PrunePlan, plan
from edgeprune.quantize import Choice
from edgeprune.step import weigh
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
    prune: PrunePlan
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
    choice = choose_numerics(job, dense, data)
    return Preview(
        job,
        weigh(dense),
        None if data is None else data.sizes,
        plan(dense, job.recipe.prune, context),
        choice,
    )
