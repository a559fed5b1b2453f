# SPDX-License-Identifier: Apache-2.0
"""What fine-tuning minimises: decided once from the outputs, then computed batch by batch."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeprune.data import Batch
from edgeprune.errors import DataError, InputError
from edgeprune.finetune.loop import Loss, Score
from edgeprune.recipe import FinetuneOptions, Precision
from edgeprune.tasks import AGREEMENT, Kind, Task

__all__ = ["Objective", "bind", "decide", "outputs_of"]


@dataclass(frozen=True)
class Objective:
    """The loss of a run: the sum of its outputs'.

    An output that labels are about: ``(1 - distill) * (loss to the labels) + distill * (loss to the
    dense model's)``. Any other: the loss to the dense model's, where there is one.
    """

    outputs: tuple[Kind, ...]
    distill: float
    """Weight of the dense model; 1 where no labels are used."""
    temperature: float
    notes: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether labels are used."""
        return any(output.labelled for output in self.outputs)

    @property
    def metric(self) -> str | None:
        """What a right prediction means; absent where nothing is decided."""
        names = [o.metric.name for o in self.outputs if o.metric.decisions]
        return next(
            (o.metric.name for o in self.outputs if o.labelled), names[0] if names else None
        )

    @property
    def text(self) -> str:
        """The loss in words."""
        if len(self.outputs) == 1:
            return self._words(self.outputs[0])
        return "; ".join(f"output {i}: {self._words(o)}" for i, o in enumerate(self.outputs))

    def _words(self, output: Kind) -> str:
        weight = self.distill if output.labelled else float(self.distill > 0)
        if not output.trainable:
            return "not trained"
        teacher = f"{weight:g} x distillation from the dense model ({output.distill_text}"
        teacher += f", temperature {self.temperature:g})" if output.tempered else ")"
        if not weight:
            return f"1 x {output.text}" if output.labelled else "not trained"
        if weight == 1:
            return teacher
        return f"{1 - weight:g} x {output.text} + {teacher}"


def outputs_of(
    module: nn.Module, batch: Batch, fixed: int | None, precision: Precision = "float32"
) -> tuple[Tensor, ...]:
    """All outputs of a captured module for a batch: it gives a tensor or a tuple of them.

    With ``bfloat16`` products are computed in it, as ``torch.autocast`` chooses them, and outputs
    are float32 again, for the loss to be computed in.

    A module that takes batches of ``fixed`` samples only gets a smaller batch filled up with its
    last sample; the filling is cut off the outputs.

    Raises:
        DataError: An index in the data is outside the model's table.
    """
    inputs, count = batch.inputs, len(batch)
    filling = 0 if fixed is None else fixed - count
    if filling:
        inputs = batch.take(torch.arange(count + filling).clamp(max=count - 1)).inputs
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
    try:
        with mixed:
            given = module(*inputs)
    except IndexError as error:
        raise DataError(
            f"fine-tune: {error}: a token id, or another index in the data, is larger than the "
            "model's table"
        ) from error
    outputs = (given,) if isinstance(given, Tensor) else tuple(given)
    outputs = tuple(o.float() if o.dtype == torch.bfloat16 else o for o in outputs)
    if filling:
        outputs = tuple(o[:count] if o.ndim and len(o) == fixed else o for o in outputs)
    return outputs


def decide(task: Task, options: FinetuneOptions, teacher: bool) -> Objective:
    """Choose the loss.

    Args:
        task: What the outputs are.
        options: ``distill`` and ``temperature``.
        teacher: Whether there is a dense model.

    Raises:
        InputError: There is nothing to learn from.
    """
    if not any(output.trainable for output in task.outputs):
        raise InputError("fine-tune: the model has no output of a floating type, so no gradient")
    labelled = any(o.labelled and o.trainable for o in task.outputs)
    distill, why = _distill(labelled, options, teacher)
    left = [i for i, o in enumerate(task.outputs) if o.trainable and not o.labelled]
    if not distill and left:
        named = ", ".join(str(i) for i in left)
        why = (*why, f"outputs that labels aren't about aren't trained without distill: {named}")
    return Objective(task.outputs, distill, options.temperature, (*task.notes, *why))


def bind(
    objective: Objective,
    teacher: nn.Module | None,
    fixed: int | None,
    precision: Precision = "float32",
) -> Loss:
    """The objective as a function of a module and a batch; the teacher runs without gradient.

    Module and teacher give what stands before a softmax or sigmoid (``tasks.logits``). ``fixed`` is
    the batch size that they insist on, if they do.
    """

    def loss(module: nn.Module, batch: Batch) -> Score:
        outputs = outputs_of(module, batch, fixed, precision)
        targets: tuple[Tensor, ...] = ()
        if teacher is not None and objective.distill > 0:
            with torch.no_grad():
                targets = outputs_of(teacher, batch, fixed, precision)
            _check_finite(targets)
        if objective.labelled and batch.labels is None:
            raise DataError("fine-tune: a batch has no labels, though the first one had")
        total = _total(objective, outputs, targets, batch.labels)
        return Score(total, len(batch), *_right(objective, outputs, targets, batch.labels))

    return loss


def _total(
    objective: Objective,
    outputs: tuple[Tensor, ...],
    targets: tuple[Tensor, ...],
    labels: Tensor | None,
) -> Tensor:
    parts = []
    for place, kind in enumerate(objective.outputs):
        weight = objective.distill if kind.labelled else 1.0
        if not kind.trainable:
            continue
        if targets and weight:
            soft = kind.distill(outputs[place], targets[place], objective.temperature)
            parts.append(weight * soft)
        if kind.labelled and labels is not None and weight < 1:
            parts.append((1 - weight) * kind.learn(outputs[place], labels))
    return torch.stack(parts).sum()


def _right(
    objective: Objective,
    outputs: tuple[Tensor, ...],
    targets: tuple[Tensor, ...],
    labels: Tensor | None,
) -> tuple[int, int]:
    """How many decisions are right, and of how many: of the first output that labels are about, or
    else that decides anything."""
    able = [(i, kind) for i, kind in enumerate(objective.outputs) if kind.trainable]
    about = [(i, kind) for i, kind in able if kind.labelled]
    for place, kind in about + [(i, k) for i, k in able if k.metric == AGREEMENT and targets]:
        found = kind.decide(outputs[place])
        truth = labels if kind.labelled else kind.decide(targets[place])
        if found is not None and truth is not None:
            return int((found == truth.reshape(found.shape)).sum()), found.numel()
    return 0, 0


def _check_finite(targets: tuple[Tensor, ...]) -> None:
    for place, target in enumerate(targets):
        if not bool(target.isfinite().all()):
            rows = int((~target.isfinite()).reshape(len(target), -1).any(1).sum())
            raise InputError(
                f"fine-tune: the dense model gives NaN or infinity for {rows} of {len(target)} "
                f"training samples, in output {place}: there is nothing to learn from that; mend "
                "the model, or leave those samples out"
            )


def _distill(
    labelled: bool, options: FinetuneOptions, teacher: bool
) -> tuple[float, tuple[str, ...]]:
    if labelled and teacher:
        return (0.5 if options.distill is None else options.distill), ()
    if labelled and options.distill:
        raise InputError("fine-tune: distill above 0 takes a dense model as teacher; none is given")
    if labelled:
        note = "no dense model is given: trained on the labels alone"
        return 0.0, (note,) * (options.distill is None)
    if not teacher or options.distill == 0:
        raise InputError(
            "fine-tune: nothing to learn from: without labels that are classes of the model's "
            "first output it takes the dense model as teacher, and distill above 0"
        )
    if options.distill is not None and options.distill < 1:
        return 1.0, (f"distill {options.distill:g} taken as 1: there are no usable labels",)
    return 1.0, ()
