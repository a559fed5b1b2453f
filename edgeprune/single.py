# SPDX-License-Identifier: Apache-2.0
"""One stage alone, over files: the commands ``prune``, ``finetune``, ``quantize``, ``export``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from edgeprune.context import Context
from edgeprune.errors import CheckFailed, OutputError
from edgeprune.export import artifact_runner, export
from edgeprune.inputs import load_model, make_judge, open_inputs, require_float, watch
from edgeprune.job import Task
from edgeprune.model import Model, require_finite, runner, save
from edgeprune.progress import Progress
from edgeprune.recipe import ExportOptions
from edgeprune.report.schema import StageReport
from edgeprune.step import weigh
from edgeprune.tickets.use import mask_to_hold
from edgeprune.toml import Config
from edgeprune.workspace import staged
from edgeprune.writing import check_place

__all__ = ["export_files", "run_stage"]

Options = TypeVar("Options", bound=Config)
Stage = Callable[[Model, Options, Context], tuple[Model, StageReport]]


def run_stage(
    task: Task, stage: Stage[Options], options: Options, progress: Progress
) -> StageReport:
    """Carry out one stage and write the model that it gives to ``task.output``.

    Raises:
        InputError: The model, the data, an option or the output can't be used.
        CheckFailed: The stage gives weights or outputs that aren't finite.
    """
    check_place(task.output, overwrite=task.overwrite, parents=True)
    with staged(task.output) as folder:
        before, context = _open(task, folder, progress)
        require_float(before, task.source)
        judge = make_judge(context.dense or before, context)
        if judge is not None:
            judge.dense()  # a model that gives NaN is refused before any work
        after, report = stage(before, options, context)
        require_finite(after, report.stage, CheckFailed)
        figures = weigh(after)
        if judge is not None and context.data is not None:
            run = watch(runner(after, task.threads), after, context.data, report.stage)
            figures |= judge.figures(run)
        save(after, folder / "model.pt2")
        (folder / "model.pt2").replace(task.output)
    return report.model_copy(update={"figures": figures | report.figures})


def export_files(task: Task, options: ExportOptions, progress: Progress) -> StageReport:
    """Write the artifacts of a model into the folder ``task.output``.

    Raises:
        InputError: The model, an option or the output can't be used.
        CheckFailed: No artifact does what the model does; nothing is written. What is ``missing``
            in the report could not be made.
    """
    if not task.output.name:
        raise OutputError(f"{task.output}: name a folder of its own for the artifacts")
    for form in options.formats or task.target.formats:
        check_place(task.output / f"model.{form}", overwrite=task.overwrite, parents=True)
    with staged(task.output) as folder:
        model, context = _open(task, folder, progress)
        _, report = export(model, options, context, context.dense)
        figures, judge = weigh(model), make_judge(context.dense or model, context)
        if judge is not None and context.data is not None:
            for artifact in report.artifacts:
                run = artifact_runner(folder / artifact.file, model, task.threads)
                run = watch(run, model, context.data, artifact.file)
                named = judge.figures(run).items()
                figures |= {f"{key} of {artifact.file}": figure for key, figure in named}
        task.output.mkdir(exist_ok=True)
        for artifact in report.artifacts:
            (folder / artifact.file).replace(task.output / artifact.file)
    return report.model_copy(update={"figures": figures | report.figures})


def _open(task: Task, folder: Path, progress: Progress) -> tuple[Model, Context]:
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    progress.say("> load")
    opened, data = open_inputs(task.source, task.data, task.seed, progress)
    teacher = None if task.teacher is None else load_model(task.teacher, data).model
    held = None if task.ticket is None else mask_to_hold(task.ticket, opened.model)
    context = Context(task.target, folder, data, teacher, task.seed, task.threads, progress, held)
    return opened.model, context
