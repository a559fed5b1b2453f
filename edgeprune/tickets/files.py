# SPDX-License-Identifier: Apache-2.0
"""What finding and training tickets share: what they open, how they score, where they write.

t.safetensors      the ticket
t.json             its report
.t.safetensors.work/, .t.safetensors.lock    while a run is under way
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edgeprune.context import Context
from edgeprune.data import Data
from edgeprune.errors import DataError, OutputError
from edgeprune.figure import Figure
from edgeprune.finetune import with_state
from edgeprune.finetune.loop import evaluate
from edgeprune.finetune.loss import bind
from edgeprune.finetune.plan import make_plan
from edgeprune.inputs import make_judge, open_inputs, require_float
from edgeprune.job import DataSource, Source
from edgeprune.model import Event, Model, runner
from edgeprune.profiler.machine import describe, versions
from edgeprune.progress import Progress
from edgeprune.recipe import FinetuneOptions
from edgeprune.target import find_target
from edgeprune.tasks import logits
from edgeprune.tickets.catalogue import CATALOGUE
from edgeprune.tickets.initial import fresh_state
from edgeprune.tickets.options import TicketOptions
from edgeprune.tickets.report import TicketReport, held_out_figures, now, read_report
from edgeprune.tickets.training import default_rate
from edgeprune.workspace import work_folder
from edgeprune.writing import Content, check_place, save, save_all

__all__ = [
    "READY",
    "Begun",
    "Task",
    "begin",
    "check_places",
    "common",
    "done_before",
    "identity",
    "one_training",
    "publish",
    "ready",
    "samples_of",
    "scores",
]

READY = "ready.json"
"""In the work folder: all files of the result are there and whole."""
_PIECE = 1 << 20
"""Bytes that are copied at once."""


@dataclass(frozen=True)
class Task:
    """What both have in common."""

    source: Source
    data: DataSource | None
    output: Path
    seed: int = 0
    threads: int = 1
    overwrite: bool = False
    resume: bool = False


@dataclass(frozen=True)
class Begun:
    """What is known before any work."""

    given: Model
    """As in the file."""
    model: Model
    """As given to the method: perhaps with newly drawn weights."""
    context: Context
    """Without a folder yet."""
    notes: tuple[str, ...]


def begin(task: Task, options: TicketOptions | None, progress: Progress) -> Begun:
    """Open the model and the data, and draw new weights where they are asked for.

    Raises:
        InputError: One of them can't be used, or the method needs data and there is none.
    """
    if options is not None and task.data is None and CATALOGUE[options.method].data:
        raise DataError(f"{options.method} learns from data: name it with --data")
    torch.set_num_threads(task.threads)
    torch.manual_seed(task.seed)
    progress.say("> load")
    opened, data = open_inputs(task.source, task.data, task.seed, progress)
    require_float(opened.model, task.source)
    model = opened.model
    if options is not None and options.fresh:
        drawn = fresh_state(model, task.seed)
        model = with_state(model, drawn, Event("fresh", {}, {"seed": task.seed}))
    target, folder = find_target("host"), task.output.parent
    context = Context(target, folder, data, seed=task.seed, threads=task.threads, progress=progress)
    return Begun(opened.model, model, context, opened.notes)


def samples_of(options: FinetuneOptions, model: Model, data: Data, context: Context) -> int:
    """How many samples one dense training with these options sees."""
    plan = make_plan(model, default_rate(options), replace(context, dense=None), data)
    return options.epochs * min(plan.steps * plan.batch_size, data.sizes["train"])


def one_training(options: FinetuneOptions) -> str:
    """The yardstick of costs in words."""
    return f"one dense training of {options.epochs} epoch{'s' * (options.epochs != 1)}"


def scores(trained: Model, begun: Begun, options: FinetuneOptions) -> dict[str, Figure]:
    """Loss and score on the held-out part; score and drop on the evaluation part, apart."""
    context, data = begun.context, begun.context.data
    figures: dict[str, Figure] = {}
    if data is None:
        return figures
    plan = make_plan(trained, default_rate(options), replace(context, dense=None), data)
    if plan.held_out:
        loss = bind(plan.objective, None, plan.fixed)
        batches = data.holdout(plan.batch_size)
        totals = evaluate(logits(trained), batches, loss, lambda: None)
        figures |= held_out_figures(totals, plan.objective.metric)
    judge = make_judge(begun.given, context, only_labels=True)
    if judge is not None:
        figures |= judge.figures(runner(trained, context.threads))
    return figures


def identity(begun: Begun, task: Task, facts: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides the result, by names that a person can read."""
    data = begun.context.data
    return {
        "model": begun.given.fingerprint(),
        "data": None if data is None else data.fingerprint,
        "seed": task.seed,
        "threads": task.threads,
        "versions": versions(),
        **facts,
    }


def common(task: Task, begun: Begun, key: str, places: Mapping[str, Path]) -> dict[str, Any]:
    """What the reports of both say alike."""
    data = begun.context.data
    return {
        "run": key,
        "model": task.source.path.name,
        "fingerprint": begun.given.fingerprint(),
        "data": None if data is None else data.name,
        "seed": task.seed,
        "threads": task.threads,
        "files": _listed(places),
        "machine": describe(),
        "versions": versions(),
        "when": now(),
    }


def check_places(places: Mapping[str, Path], task: Task, suffix: str) -> None:
    """See that the files can go where they shall, before any work.

    Raises:
        OutputError: One can't.
    """
    if len({path.absolute() for path in places.values()}) < len(places):
        raise OutputError(f"{task.output}: --output and --trained name the same file")
    for role, path in places.items():
        if _same(path, task.source.path):
            raise OutputError(
                f"{path}: is the model itself, which the result would replace; choose another place"
            )
        suffixes = {"report": ".json", "trained": ".pt2"}.get(role, suffix)
        # With --resume the files may be those of the very run that is taken up.
        check_place(
            path,
            (suffixes,),
            overwrite=task.overwrite or task.resume,
            parents=path.parent == task.output.parent,
        )


def done_before(
    places: Mapping[str, Path], key: str, task: Task, progress: Progress
) -> TicketReport | None:
    """The report of this very run where it is complete; other files are refused.

    Raises:
        OutputError: A file is there that this run didn't write, and shall not be replaced.
    """
    if not task.resume:
        return None
    there = {role: path for role, path in places.items() if path.exists()}
    work, report = work_folder(task.output), read_report(places["report"])
    mine = report is not None and (report.run, report.files) == (key, _listed(places))
    if mine and len(there) == len(places) and not work.exists():
        progress.say(f"{task.output}: was done before the interruption")
        return report
    for role, path in there.items():
        if not task.overwrite and not _published(work, role, path, key):
            raise OutputError(f"{path}: is there already; --overwrite replaces it")
    return None


def _published(work: Path, role: str, path: Path, key: str) -> bool:
    """Whether the run of this work folder put the file there before it was killed."""
    if not (work / READY).exists():
        return False
    if role == "report":
        report = read_report(path)
        return report is not None and report.run == key
    return (work / role).is_file() and filecmp.cmp(work / role, path, shallow=False)


def ready(folder: Path, report: TicketReport) -> None:
    """Declare the work done: the report is the last of its files."""
    save(folder / "report", _text(report))
    save(folder / READY, "{}")


def publish(folder: Path, places: Mapping[str, Path]) -> TicketReport:
    """Put each file in its place by a rename, the report last; the report as it is there.

    The files stay in ``folder`` too, so that a run that was killed here, or could not write one of
    them, does it again when it is resumed, perhaps to other places.

    Raises:
        OutputError: A place can't be written, or what should go there isn't in ``folder``.
    """
    report = read_report(folder / "report")
    if report is None:
        raise OutputError(
            f"{folder}: the report of the finished run is damaged; leave --resume out to start anew"
        )
    files: dict[Path, Content] = {}
    for role, path in places.items():
        if not (folder / role).exists():
            raise OutputError(
                f"{path}: can't be written: the run that is resumed kept no such file; don't ask "
                "for it, or leave --resume out to start anew"
            )
        files[path] = _pieces(folder / role)
    report = report.model_copy(update={"files": _listed(places)})
    files.pop(places["report"])
    save_all({**files, places["report"]: _text(report)})
    return report


def _listed(places: Mapping[str, Path]) -> dict[str, str]:
    """The files as a report names them: relative to its own folder, so that all may move.

    Links in folders are followed, since ``..`` leads out of where a link points to.
    """
    home = places["report"].parent.resolve()
    return {
        role: Path(os.path.relpath(path.parent.resolve() / path.name, home)).as_posix()
        for role, path in places.items()
    }


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError, ValueError):  # one isn't there, or has a name that can't be
        return one.samefile(other)
    return False


def _text(report: TicketReport) -> str:
    return report.model_dump_json(indent=2) + "\n"


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
