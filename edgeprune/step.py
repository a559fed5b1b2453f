# SPDX-License-Identifier: Apache-2.0
"""One step of a run: do a stage, or take it up where it was done before; and what it weighs now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile
from typing import TypeVar

import torch

from edgeprune.channels import macs
from edgeprune.clock import Clock
from edgeprune.context import Context
from edgeprune.errors import CheckFailed
from edgeprune.evaluate import Judge
from edgeprune.figure import Figure, counted
from edgeprune.inputs import watch
from edgeprune.model import Model, parameters, read, require_finite, runner, save, state_bytes
from edgeprune.report.schema import StageReport
from edgeprune.toml import Config
from edgeprune.workspace import Workspace, chain
from edgeprune.writing import write

__all__ = ["Run", "Step", "weigh"]

_OF_A_MODEL = ("parameters", "macs", "bytes", "score", "drop")

Options = TypeVar("Options", bound=Config)
Stage = Callable[[Model, Options, Context], tuple[Model, StageReport]]


@dataclass(frozen=True)
class Step:
    """A finished stage: the model that it gave, its report, its folder and its key."""

    model: Model
    report: StageReport
    folder: Path
    key: str

    def files(self) -> dict[str, Path]:
        """The artifacts that it wrote, by file name."""
        return {artifact.file: self.folder / artifact.file for artifact in self.report.artifacts}


@dataclass(frozen=True)
class Run:
    """What all steps of a run share."""

    work: Workspace
    context: Context
    judge: Judge | None
    clock: Clock

    def step(
        self,
        name: str,
        stage: Stage[Options],
        options: Options,
        before: Step,
        *,
        variant: str = "",
    ) -> Step:
        """Carry out ``stage`` on the model of ``before``, or read what it gave an earlier run.

        A ``variant`` tells several attempts at one stage of one run apart.

        A model that the stage changed always comes back from its file, so that the steps after a
        resumed one get the very same object as after an undisturbed one.
        """
        key = chain(
            before.key, name, options.model_dump(mode="json"), *([variant] if variant else [])
        )
        name = f"{name}-{variant}" if variant else name
        folder = self.work.folder / name
        model: Model | None = None
        try:
            taken_up = self.work.sealed(name, key)
            if taken_up:
                self.context.progress.say(f"> {name}: done before the interruption, taken up")
            else:
                self.context.progress.say(f"> {name}")
                model = self._carry_out(name, key, stage, options, before)
            report = StageReport.model_validate_json((folder / "report.json").read_bytes())
            if taken_up:
                self.clock.add(report.seconds)
            if model is not before.model:
                model = read(folder / "model.pt2")
            return Step(model, report, folder, key)
        finally:
            self.clock.lap(name)

    def _carry_out(
        self, name: str, key: str, stage: Stage[Options], options: Options, before: Step
    ) -> Model:
        """Do the stage and seal what it made; its report counts the seconds of all of that."""
        context = replace(self.context, folder=self.work.begin(name, key))
        torch.manual_seed(context.seed)
        start = self.clock.running
        model, report = stage(before.model, options, context)
        # More than it took now: an interrupted run trained a part of it.
        self.clock.add(max(0.0, report.seconds - (self.clock.running - start)))
        require_finite(model, name, CheckFailed)
        figures = self._figures(name, model, before) | report.figures
        kept = context.folder / "model.pt2"
        if model is before.model and (before.folder / kept.name).is_file():
            copyfile(before.folder / kept.name, kept)
        else:
            save(model, kept)
        changed = {"figures": figures, "seconds": self.clock.running}
        report = report.model_copy(update=changed)
        write(context.folder / "report.json", report.model_dump_json())
        made = [artifact.file for artifact in report.artifacts]
        self.work.seal(name, key, ["model.pt2", "report.json", *made])
        return model

    def _figures(self, name: str, model: Model, before: Step) -> dict[str, Figure]:
        """What a model weighs and how good it is; read off ``before`` where it is the same."""
        if model.program is before.model.program:
            known = before.report.figures
            return {key: known[key] for key in _OF_A_MODEL if key in known}
        data = self.context.data
        if self.judge is None or data is None:
            return weigh(model)
        run = watch(runner(model, self.context.threads), model, data, name)
        return weigh(model) | self.judge.figures(run)


def weigh(model: Model) -> dict[str, Figure]:
    """Parameters, multiply-accumulates and bytes of a model.

    The bytes are absent where the numerics are reduced: the carrier keeps float values until the
    export stores them, so only the files can say.
    """
    figures = {
        "parameters": counted(parameters(model), "parameters", "trainable values of the model"),
        "macs": counted(macs(model), "MACs", "of one sample, from the shapes in the graph"),
    }
    if model.numerics == "fp32":
        figures["bytes"] = counted(state_bytes(model), "B", "weights and buffers as stored")
    return figures
