# SPDX-License-Identifier: Apache-2.0
"""The whole of edgeprune on one page: ``compress`` takes a model through all stages, in order.

A stage is a function ``(model, options, context) -> (model, report)``; ``run.step`` calls it,
weighs what comes out, and seals it in the work folder, so that a killed run can go on from there.
"""

from __future__ import annotations

from functools import partial

import torch

from edgeprune.clock import Clock
from edgeprune.context import Context
from edgeprune.data import Data
from edgeprune.errors import InputError
from edgeprune.evidence import measure, record_health, result_files, run_report
from edgeprune.export import export
from edgeprune.finetune import finetune
from edgeprune.inputs import choose_numerics, make_judge, open_inputs, require_float
from edgeprune.job import Job
from edgeprune.lowering import lower
from edgeprune.model import Model
from edgeprune.profiler.machine import versions
from edgeprune.progress import Progress, Silent
from edgeprune.prune import prune
from edgeprune.recipe import ExportOptions
from edgeprune.report import read_report
from edgeprune.report.schema import RunReport, StageReport
from edgeprune.step import Run, Step, weigh
from edgeprune.tickets.use import TicketInUse, open_ticket, use_ticket
from edgeprune.workspace import Workspace, chain, check, claim

__all__ = ["compress"]


def compress(job: Job, progress: Progress | None = None) -> RunReport:
    """Take a model to a device's artifacts in ``<out>/<target>/``.

    The dense model is exported before any training: its files are the yardstick of the final
    ones, and a model that can't be exported is found out early.

    Raises:
        InputError: The model, the data, an option or the output folder can't be used.
        CheckFailed: An artifact differs from its model.
        DeviceError: A measuring process died.
    """
    clock, progress = Clock(), progress or Silent()
    out, name, recipe = job.out, job.target.name, job.recipe
    check(out, name, overwrite=job.overwrite or job.resume)
    torch.set_num_threads(job.threads)

    progress.say(f"> load {job.source.path.name} for {name}")
    opened, data = open_inputs(job.source, job.data, recipe.seed, progress)
    dense = opened.model
    require_float(dense, job.source)
    # What the target can't take is refused before any work.
    numerics = choose_numerics(job, dense, data)
    ticket = open_ticket(job.ticket, recipe, dense)
    loading = StageReport(stage="load", seconds=clock.running, notes=opened.notes)

    root = _root_key(job, dense, data)
    flags = {"overwrite": job.overwrite, "resume": job.resume, "keep": job.keep_work}
    with claim(out, name, _run_key(job, root, ticket), **flags) as work:
        if job.resume and work.published():
            progress.say(f"{work.result}: was done before the interruption")
            return read_report(work.result / "report.json")
        run = _run(job, work, dense, data, ticket, progress, clock)

        loaded = _loaded(run, dense, root, loading)
        if ticket is None:
            pruned = run.step("prune", prune, recipe.prune, loaded)
        else:
            pruned = run.step("ticket", partial(use_ticket, ticket), ticket.options, loaded)
        yardstick = run.step("dense", _export_dense, recipe.export, loaded)
        tuned = run.step("finetune", finetune, recipe.finetune, pruned)
        small, final = lower(run, recipe, numerics, tuned)

        figures = measure(job, run, yardstick, final)
        steps = (loaded, pruned, tuned, small, final)
        recorded = record_health(run, final)
        clock.lap("judge")
        report = run_report(job, run, steps, figures)
        work.publish(result_files(report, run, final, recorded))
    return report


def _root_key(job: Job, dense: Model, data: Data | None) -> str:
    """The hash of all that every stage depends on."""
    facts = job.target.model_dump(mode="json", exclude={"budgets", "reach"})
    samples = None if data is None else data.fingerprint
    return chain(dense.fingerprint(), facts, samples, job.recipe.seed, job.threads, versions())


def _run_key(job: Job, root: str, ticket: TicketInUse | None) -> str:
    """The hash of all that the result depends on: the run's name."""
    budgets = job.target.budgets.model_dump(mode="json")
    used = None if ticket is None else ticket.options.model_dump(mode="json")
    return chain(root, job.recipe.model_dump(mode="json"), used, budgets, job.profile)


def _run(
    job: Job,
    work: Workspace,
    dense: Model,
    data: Data | None,
    ticket: TicketInUse | None,
    progress: Progress,
    clock: Clock,
) -> Run:
    seed, threads = job.recipe.seed, job.threads
    held = None if ticket is None else ticket.held
    context = Context(job.target, work.folder, data, dense, seed, threads, progress, held)
    return Run(work, context, make_judge(dense, context), clock)


def _export_dense(
    model: Model, options: ExportOptions, context: Context
) -> tuple[Model, StageReport]:
    """The dense model's own files.

    Raises:
        InputError: One can't be made: none could be made of the compressed model either.
    """
    model, report = export(model, options, context)
    for missing in report.missing:
        raise InputError(f"dense {missing.file}: {missing.reason}")
    return model, report


def _loaded(run: Run, dense: Model, key: str, loading: StageReport) -> Step:
    """The loaded model as the step that all others follow."""
    own = None if run.judge is None else run.judge.dense()
    figures = weigh(dense) | ({} if own is None else {"score": own})
    report = loading.model_copy(update={"figures": figures})
    run.clock.lap("load")
    return Step(dense, report, run.work.folder, key)
