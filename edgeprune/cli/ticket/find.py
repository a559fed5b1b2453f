# SPDX-License-Identifier: Apache-2.0
"""``edgeprune ticket find``."""

from __future__ import annotations

import typer

from edgeprune.cli import asked, show
from edgeprune.cli import options as opt
from edgeprune.cli.console import progress
from edgeprune.cli.ticket import options as own
from edgeprune.cli.ticket import shown
from edgeprune.tickets.catalogue import CATALOGUE

__all__ = ["add_to"]

_EXAMPLES = """Examples:

  edgeprune ticket find model.pt2 --data photos/ --density 0.1 --fresh -o t.safetensors

  edgeprune ticket find model.pt2 -d photos/ -m rigl --density 0.1 -o t.safetensors --trained s.pt2

  edgeprune ticket find model.pt2 -m random --alloc erk --density 0.05 -o t.safetensors

  edgeprune ticket find model.pt2 -d photos/ -m one-shot --pattern 2:4 --dry-run -o t.safetensors

Methods:

"""
_METHODS = "\n\n".join(
    f"  {name}: {entry.about} ({entry.paper})" for name, entry in CATALOGUE.items()
)


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES + _METHODS)(find)


def find(
    model: opt.ModelArgument,
    output: opt.OutputOption,
    data: opt.DataOption = None,
    limit: opt.LimitOption = None,
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
    method: own.MethodOption = None,
    density: own.DensityOption = None,
    alloc: own.AllocOption = None,
    criterion: own.CriterionOption = None,
    pattern: own.PatternOption = None,
    exclude: own.ExcludeOption = None,
    fresh: own.FreshOption = False,
    epochs: own.EpochsOption = None,
    lr: own.LrOption = None,
    optimizer: own.OptimizerOption = None,
    batch_size: own.BatchSizeOption = None,
    rewind: own.RewindOption = None,
    rate: own.RateOption = None,
    samples: own.SamplesOption = None,
    iterations: own.IterationsOption = None,
    recipe: own.RecipeOption = None,
    trained: own.TrainedOption = None,
    overwrite: opt.OverwriteOption = False,
    resume: opt.ResumeOption = False,
    dry_run: own.DryRunOption = False,
    json: opt.JsonOption = False,
    seed: opt.SeedOption = None,
    threads: opt.ThreadsOption = None,
) -> None:
    """Find a ticket: which weights (or channels) live, and the weights to start from.

    What is written is one safetensors file, the ticket, with its report beside it as .json.
    """
    chosen = own.options(
        recipe,
        {
            "method": method,
            "density": density,
            "alloc": alloc,
            "criterion": criterion,
            "pattern": pattern,
            "exclude": exclude or None,
            "fresh": fresh or None,
            "train.epochs": epochs,
            "train.learning_rate": lr,
            "train.optimizer": optimizer,
            "train.batch_size": batch_size,
            "imp.rewind": rewind,
            "imp.rate": rate,
            "at_init.samples": samples,
            "at_init.iterations": iterations,
        },
        data=data is not None,
    )
    source = asked.source(model, arch, state_key, allow_surplus, input_shape, trust_pickle)
    found_data, cores = asked.data_source(data, limit), asked.use_threads(threads)
    from edgeprune.tickets.runner import FindTask
    from edgeprune.tickets.runner import find as run

    task = FindTask(
        source,
        found_data,
        output,
        seed=seed or 0,
        threads=cores,
        overwrite=overwrite,
        resume=resume,
        options=chosen,
        trained=trained,
    )
    if dry_run:
        from edgeprune.tickets.plan import plan

        shown.plan(plan(task, progress()), as_json=json)
        return
    report = run(task, progress())
    if json:
        show.as_json(report.model_dump(mode="json"))
    else:
        shown.report(report, output.parent)
