# SPDX-License-Identifier: Apache-2.0
"""``edgeprune compress``: a model, a device, and the proof."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeprune.cli import asked, reach, show, whole
from edgeprune.cli import options as opt
from edgeprune.cli import pruning as cut
from edgeprune.cli.console import page, progress
from edgeprune.errors import InputError
from edgeprune.job import Job
from edgeprune.recipe import Recipe
from edgeprune.target import find_target

if TYPE_CHECKING:
    from edgeprune.report.schema import RunReport

__all__ = ["add_to"]


_EXAMPLES = """Examples:

  edgeprune compress

  edgeprune compress model.pt2 --target rpi4 --data photos/

  edgeprune compress weights.pt --arch mynet.models:resnet20 --data cifar10=cifar/ -t rpi5

  edgeprune compress model.pt2 --target rpi4 --data photos/ --device ssh://pi@board

  edgeprune compress sparse.pt2 --target rpi4 --data photos/ --ticket ticket.safetensors

  edgeprune compress model.pt2 -t stm32h7 --max-size 200kB --ratio 0.5 --dry-run
"""

Model = Annotated[
    Path | None,
    typer.Argument(
        metavar="[MODEL]",
        show_default=False,
        help="A .pt2 program or a state dict (.pt, .pth, .safetensors). None: all "
        "models and targets of the project file (edgeprune.toml).",
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        metavar="TARGET",
        show_default=False,
        help="The device: a name (`edgeprune targets list`) or a .toml file; may be repeated.",
    ),
]
AllowUnmeasured = Annotated[
    bool,
    typer.Option(
        "--allow-unmeasured",
        help="End with 0 though a budget could not be measured (a device that isn't here).",
        rich_help_panel=opt.BUDGETS,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        help="Results go to FOLDER/TARGET/.",
        show_default="out",
        rich_help_panel=opt.RUN,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an existing result.", rich_help_panel=opt.RUN)
]
KeepWork = Annotated[
    bool,
    typer.Option(
        "--keep-work",
        help="Keep the work folder (FOLDER/.TARGET.work) with the model after each stage.",
        rich_help_panel=opt.RUN,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the plan; write nothing.", rich_help_panel=opt.RUN),
]
NoProfile = Annotated[
    bool,
    typer.Option("--no-profile", help="Measure no latency and no memory.", rich_help_panel=opt.RUN),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=_EXAMPLES)(compress)


def compress(
    model: Model = None,
    target: Targets = None,
    data: opt.DataOption = None,
    limit: opt.LimitOption = None,
    arch: opt.ArchOption = None,
    state_key: opt.StateKeyOption = None,
    allow_surplus: opt.SurplusOption = False,
    input_shape: opt.ShapeOption = None,
    trust_pickle: opt.TrustOption = False,
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
    epochs: opt.EpochsOption = None,
    lr: opt.LrOption = None,
    optimizer: opt.OptimizerOption = None,
    batch_size: opt.BatchSizeOption = None,
    distill: opt.DistillOption = None,
    patience: opt.PatienceOption = None,
    numerics: opt.NumericsOption = None,
    format: opt.FormatOption = None,
    batch: opt.BatchOption = None,
    max_size: opt.MaxSizeOption = None,
    max_latency: opt.MaxLatencyOption = None,
    max_memory: opt.MaxMemoryOption = None,
    max_drop: opt.MaxDropOption = None,
    allow_unmeasured: AllowUnmeasured = False,
    out: Out = None,
    overwrite: Overwrite = False,
    resume: opt.ResumeOption = False,
    keep_work: KeepWork = False,
    dry_run: DryRun = False,
    no_profile: NoProfile = False,
    device: reach.DeviceOption = None,
    json: opt.JsonOption = False,
    seed: opt.SeedOption = None,
    threads: opt.ThreadsOption = None,
) -> None:
    """Take a trained model to a device's artifacts, with proof.

    It is pruned, fine-tuned, quantized and exported; what comes out is measured, and judged
    against the device's budgets. A --ticket takes the place of pruning. Without a model all that
    the project file names is done.
    """
    changes = {
        "seed": seed,
        **asked.prune_changes(
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
        ),
        **asked.finetune_changes(epochs, lr, optimizer, batch_size, distill, patience),
        "quantize.numerics": asked.numerics(numerics),
        "export.formats": format,
        "export.batch": asked.batch(batch),
    }
    wishes = whole.Wishes(
        targets=tuple(dict.fromkeys(target or ())),
        budgets={"size": max_size, "latency": max_latency, "memory": max_memory, "drop": max_drop},
        recipe=recipe,
        changes=changes,
        limit=limit,
        device=device,
        alone={"--data": data, "--arch": arch, "--input-shape": input_shape, "--out": out}
        | {"--state-key": state_key, "--allow-surplus": allow_surplus or None, "--ticket": ticket},
    )
    like = Job(
        asked.source(model or Path(), arch, state_key, allow_surplus, input_shape, trust_pickle),
        find_target("host"),  # until each run has its own
        Recipe(),
        out=out or Path("out"),
        threads=asked.use_threads(threads),
        profile=not no_profile,
        overwrite=overwrite,
        resume=resume,
        keep_work=keep_work,
        ticket=asked.only_ticket(ticket, changes),
    )
    jobs = whole.jobs(wishes, like) if model is None else _jobs(wishes, like, data)
    raise typer.Exit(_preview(jobs, json) if dry_run else _run(jobs, json, allow_unmeasured))


def _jobs(wishes: whole.Wishes, like: Job, data: str | None) -> list[Job]:
    """One run for each target of the model on the command line."""
    if not wishes.targets:
        raise InputError(
            "--target: name the device (`edgeprune targets list`), or name no MODEL for all that "
            "the project file has"
        )
    if wishes.device is not None and len(wishes.targets) > 1:
        raise InputError("--device: is one target's; name one --target, or run once for each")
    job = replace(
        like,
        recipe=asked.recipe(wishes.recipe, wishes.changes),
        data=asked.data_source(data, wishes.limit),
    )
    targets = [asked.with_budgets(find_target(name), **wishes.budgets) for name in wishes.targets]
    return [
        replace(
            job,
            target=each,
            device=reach.of_target(wishes.device, each) if job.profile else None,
        )
        for each in targets
    ]


def _preview(jobs: list[Job], as_json: bool) -> int:
    from edgeprune.cli.plan import as_data, render
    from edgeprune.preview import preview

    plans = [preview(job, progress()) for job in jobs]
    if as_json:
        show.as_json(show.one_or_all([as_data(plan) for plan in plans]))
    else:
        for plan in plans:
            render(plan)
    return 0


def _run(jobs: list[Job], as_json: bool, allow_unmeasured: bool) -> int:
    from edgeprune.gate import passed
    from edgeprune.pipeline import compress
    from edgeprune.report import render_terminal

    reach.check(job.device for job in jobs)
    reports: list[RunReport] = []
    for job in jobs:
        report = compress(job, progress())
        reports.append(report)
        if not as_json:
            render_terminal(report, page())
            typer.echo(f"\n{job.out / report.target}")
        _warn(report, allow_unmeasured)
    if as_json:
        show.as_json(show.one_or_all([report.model_dump(mode="json") for report in reports]))
    complete = not any(report.missing for report in reports)
    return 0 if complete and all(passed(r.verdicts, allow_unmeasured) for r in reports) else 1


def _warn(report: RunReport, allow_unmeasured: bool) -> None:
    budgets = {v.budget for v in report.verdicts if v.outcome == "not measured"}
    if budgets and not allow_unmeasured:
        print(
            f"warning: {report.target}: not measured: {', '.join(sorted(budgets))}; that is no "
            "pass, so the exit code is 1; --allow-unmeasured accepts it",
            file=sys.stderr,
        )
