# SPDX-License-Identifier: Apache-2.0
"""``edgeprune ticket train``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from edgeprune.cli import asked, show
from edgeprune.cli import options as opt
from edgeprune.cli.console import progress
from edgeprune.cli.ticket import options as own
from edgeprune.cli.ticket import shown
from edgeprune.errors import DataError

__all__ = ["add_to"]

_EXAMPLES = """Examples:

  edgeprune ticket train model.pt2 t.safetensors --data photos/ --epochs 20 -o sparse.pt2

  edgeprune ticket train model.pt2 t.safetensors --data photos/ -o sparse.pt2 --resume

  edgeprune ticket train model.pt2 t.safetensors --data photos/ --control shuffled -o control.pt2
"""

Control = Annotated[
    Literal["reinitialised", "random-mask", "shuffled"] | None,
    typer.Option(
        "--control",
        help="Train what the ticket must beat: the same mask with newly drawn weights, another "
        "mask with its layer densities, or mask and weights shuffled within each layer.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES)(train)


def train(
    model: opt.ModelArgument,
    ticket: own.TicketArgument,
    output: opt.OutputOption,
    data: opt.DataOption = None,
    limit: opt.LimitOption = None,
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
    control: Control = None,
    epochs: own.EpochsOption = None,
    lr: own.LrOption = None,
    optimizer: own.OptimizerOption = None,
    batch_size: own.BatchSizeOption = None,
    recipe: own.TrainRecipeOption = None,
    overwrite: opt.OverwriteOption = False,
    resume: opt.ResumeOption = False,
    json: opt.JsonOption = False,
    seed: opt.SeedOption = None,
    threads: opt.ThreadsOption = None,
) -> None:
    """Train the network of a ticket: from its own start (or the model's weights), zeros held.

    What is written is the trained network as .pt2, with its report beside it as .json.
    """
    chosen = own.training(
        recipe,
        {
            "train.epochs": epochs,
            "train.learning_rate": lr,
            "train.optimizer": optimizer,
            "train.batch_size": batch_size,
        },
    )
    source = asked.source(model, arch, state_key, allow_surplus, input_shape, trust_pickle)
    found_data, cores = asked.data_source(data, limit), asked.use_threads(threads)
    if found_data is None:
        raise DataError("ticket train learns from data: name it with --data")
    from edgeprune.tickets.runner import TrainTask
    from edgeprune.tickets.runner import train as run

    task = TrainTask(
        source,
        found_data,
        output,
        seed=seed or 0,
        threads=cores,
        overwrite=overwrite,
        resume=resume,
        ticket=ticket,
        control=control,
        options=chosen.train,
    )
    report = run(task, progress())
    if json:
        show.as_json(report.model_dump(mode="json"))
    else:
        shown.report(report, output.parent)
