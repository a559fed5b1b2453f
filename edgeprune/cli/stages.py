# SPDX-License-Identifier: Apache-2.0
"""``prune``, ``finetune``, ``quantize``, ``export``: each stage alone, from file to file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli import asked, show
from edgeprune.cli import options as opt
from edgeprune.cli import pruning as cut
from edgeprune.cli.console import progress
from edgeprune.job import DataSource, Source, Task
from edgeprune.target import find_target

if TYPE_CHECKING:
    from edgeprune.report.schema import StageReport
    from edgeprune.single import Options, Stage

__all__ = ["add_to"]

_PRUNE = "Example:\n\n  edgeprune prune model.pt2 --data photos/ --ratio 0.5 -o pruned.pt2"
_FINETUNE = (
    "Example:\n\n"
    "  edgeprune finetune pruned.pt2 --data photos/ --teacher model.pt2 --epochs 5 -o tuned.pt2"
)
_QUANTIZE = "Example:\n\n  edgeprune quantize tuned.pt2 --data photos/ -t rpi4 -o small.pt2"
_EXPORT = "Example:\n\n  edgeprune export small.pt2 --data photos/ -t rpi4 -o artifacts/"

Teacher = Annotated[
    Path | None,
    typer.Option(
        "--teacher",
        metavar="MODEL",
        help="The model to distill from, and to hold the result against.",
    ),
]


Reference = Annotated[
    Path | None,
    typer.Option(
        "--reference",
        metavar="MODEL",
        help="The float model that MODEL was quantized from: files are held against it too.",
    ),
]
Held = Annotated[
    Path | None,
    typer.Option(
        "--ticket",
        metavar="FILE",
        help="Weights that are zero in this ticket's mask stay zero.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog=_PRUNE)(prune)
    app.command(epilog=_FINETUNE)(finetune)
    app.command(epilog=_QUANTIZE)(quantize)
    app.command(epilog=_EXPORT)(export)


def prune(
    model: opt.ModelArgument,
    output: opt.OutputOption,
    data: opt.DataOption = None,
    limit: opt.LimitOption = None,
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
    target: opt.TargetOption = "host",
    recipe: opt.RecipeOption = None,
    ticket: opt.TicketOption = None,
    ratio: cut.RatioOption = None,
    macs: cut.MacsOption = None,
    params: cut.ParamsOption = None,
    importance: cut.ImportanceOption = None,
    scope: cut.ScopeOption = None,
    multiple: cut.MultipleOption = None,
    exclude: cut.ExcludeOption = None,
    attention: cut.AttentionOption = None,
    grouped: cut.GroupedOption = None,
    allow_depth: cut.AllowDepthOption = False,
    no_recover: cut.NoRecoverOption = False,
    overwrite: opt.OverwriteOption = False,
    json: opt.JsonOption = False,
    seed: opt.SeedOption = None,
    threads: opt.ThreadsOption = None,
) -> None:
    """Remove the least important channels of a model, for real, and save what is left.

    With --ticket its channels go, or its zeros are put into the weights.
    """
    changes = asked.prune_changes(
        ratio,
        macs,
        params,
        importance,
        scope,
        multiple,
        exclude,
        attention,
        grouped,
        allow_depth,
        no_recover,
    )
    chosen = asked.recipe(recipe, {"seed": seed, **changes})
    source = asked.source(model, arch, state_key, allow_surplus, input_shape, trust_pickle)
    own = asked.data_source(data, limit)
    task = _task(source, own, target, output, overwrite, chosen.seed, threads)
    asked.only_ticket(ticket, changes)
    if ticket is not None:
        from edgeprune.tickets.use import as_stage

        _run(task, as_stage(ticket, chosen), chosen.prune, json)
        return
    from edgeprune.prune import prune as stage

    _run(task, stage, chosen.prune, json)


def finetune(
    model: opt.ModelArgument,
    output: opt.OutputOption,
    data: opt.DataOption = None,
    limit: opt.LimitOption = None,
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
    teacher: Teacher = None,
    ticket: Held = None,
    target: opt.TargetOption = "host",
    recipe: opt.RecipeOption = None,
    epochs: opt.EpochsOption = None,
    lr: opt.LrOption = None,
    optimizer: opt.OptimizerOption = None,
    batch_size: opt.BatchSizeOption = None,
    distill: opt.DistillOption = None,
    patience: opt.PatienceOption = None,
    overwrite: opt.OverwriteOption = False,
    json: opt.JsonOption = False,
    seed: opt.SeedOption = None,
    threads: opt.ThreadsOption = None,
) -> None:
    """Train a model on labels, on a teacher's outputs, or on both."""
    changes = asked.finetune_changes(epochs, lr, optimizer, batch_size, distill, patience)
    chosen = asked.recipe(recipe, {"seed": seed, **changes})
    source = asked.source(model, arch, state_key, allow_surplus, input_shape, trust_pickle)
    own = asked.data_source(data, limit)
    task = _task(source, own, target, output, overwrite, chosen.seed, threads)
    if teacher is not None:
        task = replace(task, teacher=replace(source, path=teacher))
    task = replace(task, ticket=ticket)
    from edgeprune.finetune import finetune as stage

    _run(task, stage, chosen.finetune, json)


def quantize(
    model: opt.ModelArgument,
    output: opt.OutputOption,
    data: opt.DataOption = None,
    limit: opt.LimitOption = None,
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
    target: opt.TargetOption = "host",
    recipe: opt.RecipeOption = None,
    numerics: opt.NumericsOption = None,
    overwrite: opt.OverwriteOption = False,
    json: opt.JsonOption = False,
    seed: opt.SeedOption = None,
    threads: opt.ThreadsOption = None,
) -> None:
    """Put a model into the numbers that a target runs best, or into the ones asked for."""
    chosen = asked.recipe(recipe, {"seed": seed, "quantize.numerics": asked.numerics(numerics)})
    source = asked.source(model, arch, state_key, allow_surplus, input_shape, trust_pickle)
    own = asked.data_source(data, limit)
    task = _task(source, own, target, output, overwrite, chosen.seed, threads)
    from edgeprune.quantize import quantize as stage

    _run(task, stage, chosen.quantize, json)


def export(
    model: opt.ModelArgument,
    output: opt.OutputOption,
    data: opt.DataOption = None,
    limit: opt.LimitOption = None,
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
    target: opt.TargetOption = "host",
    recipe: opt.RecipeOption = None,
    reference: Reference = None,
    format: opt.FormatOption = None,
    batch: opt.BatchOption = None,
    overwrite: opt.OverwriteOption = False,
    json: opt.JsonOption = False,
    seed: opt.SeedOption = None,
    threads: opt.ThreadsOption = None,
) -> None:
    """Write a model as ONNX and TFLite into a folder, each file run and held against the model."""
    changes = {"seed": seed, "export.formats": format, "export.batch": asked.batch(batch)}
    chosen = asked.recipe(recipe, changes)
    source = asked.source(model, arch, state_key, allow_surplus, input_shape, trust_pickle)
    own = asked.data_source(data, limit)
    task = _task(source, own, target, output, overwrite, chosen.seed, threads)
    if reference is not None:
        task = replace(task, teacher=replace(source, path=reference))
    from edgeprune.single import export_files

    report = export_files(task, chosen.export, progress())
    _print(report, task, json)
    raise typer.Exit(1 if report.missing else 0)


def _task(
    source: Source,
    data: DataSource | None,
    target: str,
    output: Path,
    overwrite: bool,
    seed: int,
    threads: int | None,
) -> Task:
    """What is asked for; made before torch is imported, which reads the number of threads then."""
    found, count = find_target(target), asked.use_threads(threads)
    return Task(source, found, output, data, seed=seed, threads=count, overwrite=overwrite)


def _run(task: Task, stage: Stage[Options], options: Options, as_json: bool) -> None:
    from edgeprune.single import run_stage

    _print(run_stage(task, stage, options, progress()), task, as_json)


def _print(report: StageReport, task: Task, as_json: bool) -> None:
    if as_json:
        show.as_json(report.model_dump(mode="json"))
        return
    show.stage(report)
    typer.echo(f"{task.output}")
