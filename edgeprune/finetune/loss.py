# SPDX-License-Identifier: Apache-2.0
"""What fine-tuning minimises: decided once from the outputs, then computed batch by batch."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.data import Batch
from edgeprune.errors import DataError, InputError
from edgeprune.finetune.loop import Loss, Score
from edgeprune.recipe import FinetuneOptions, Precision

__all__ = ["Objective", "bind", "decide", "outputs_of"]


@dataclass(frozen=True)
class Objective:
    """The loss of a run.

    ``classes``: ``(1 - distill) * CE(labels) + distill * T^2 * KL(teacher || student)`` over axis 1
    of the first output, both distributions at temperature T (Hinton et al. 2015).
    ``outputs``: mean squared error to the teacher's outputs, summed over all outputs of a floating
    type.
    """

    kind: Literal["classes", "outputs"]
    distill: float
    """Weight of the teacher; 1 for ``outputs``."""
    temperature: float
    labelled: bool
    """Whether right and wrong is judged by labels, or by the teacher's largest output."""
    notes: tuple[str, ...] = ()

    @property
    def metric(self) -> str | None:
        """What a right prediction means; absent where there are no classes."""
        if self.kind == "outputs":
            return None
        return "accuracy" if self.labelled else "agreement with the dense model"

    @property
    def text(self) -> str:
        """The loss in words."""
        if self.kind == "outputs":
            return "mean squared error to the dense model's outputs"
        labels = f"{1 - self.distill:g} x cross-entropy to the labels"
        teacher = (
            f"{self.distill:g} x distillation from the dense model (temperature "
            f"{self.temperature:g})"
        )
        if self.distill == 0:
            return labels
        return teacher if self.distill == 1 else f"{labels} + {teacher}"


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


def decide(
    outputs: tuple[Tensor, ...], labels: Tensor | None, options: FinetuneOptions, teacher: bool
) -> Objective:
    """Choose the loss from the shapes of one batch.

    The first output has a class axis (axis 1, of two classes or more) where its shape is (batch,
    classes), or where the labels have its shape without that axis.

    Args:
        outputs: The model's, of one batch.
        labels: Of the same batch.
        options: ``distill`` and ``temperature``.
        teacher: Whether there is a dense model.

    Raises:
        InputError: There is nothing to learn from.
    """
    if not any(o.is_floating_point() for o in outputs):
        raise InputError("fine-tune: the model has no output of a floating type, so no gradient")
    first = outputs[0]
    labels, notes = _usable(labels, first)
    labelled = labels is not None
    classes = labelled or (first.is_floating_point() and first.ndim == 2 and first.shape[1] > 1)
    distill, why = _distill(labelled, options, teacher)
    kind: Literal["classes", "outputs"] = "classes" if classes else "outputs"
    return Objective(kind, distill, options.temperature, labelled, (*notes, *why))


def bind(
    objective: Objective,
    teacher: nn.Module | None,
    fixed: int | None,
    precision: Precision = "float32",
) -> Loss:
    """The objective as a function of a module and a batch; the teacher runs without gradient.

    ``fixed`` is the batch size that module and teacher insist on, if they do.
    """

    def loss(module: nn.Module, batch: Batch) -> Score:
        outputs = outputs_of(module, batch, fixed, precision)
        targets: tuple[Tensor, ...] = ()
        if teacher is not None and objective.distill > 0:
            with torch.no_grad():
                targets = outputs_of(teacher, batch, fixed, precision)
            _check_finite(targets)
        if objective.kind == "outputs":
            return Score(_match(outputs, targets), len(batch))
        return _classify(objective, outputs[0], targets, batch.labels)

    return loss


def _check_finite(targets: tuple[Tensor, ...]) -> None:
    for place, target in enumerate(targets):
        if not bool(target.isfinite().all()):
            rows = int((~target.isfinite()).reshape(len(target), -1).any(1).sum())
            raise InputError(
                f"fine-tune: the dense model gives NaN or infinity for {rows} of {len(target)} "
                f"training samples, in output {place}: there is nothing to learn from that; mend "
                "the model, or leave those samples out"
            )


def _usable(labels: Tensor | None, first: Tensor) -> tuple[Tensor | None, tuple[str, ...]]:
    if labels is None:
        return None, ()
    scores = first.ndim > 1 and first.shape[1] > 1 and first.is_floating_point()
    whole = not labels.is_floating_point()
    if scores and whole and labels.shape == (*first.shape[:1], *first.shape[2:]):
        return labels, ()
    text = (
        f"labels not used: {labels.dtype} of shape {tuple(labels.shape)} are no classes of the "
        f"model's first output, {first.dtype} of shape {tuple(first.shape)}"
    )
    return None, (text,)


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


def _classify(
    objective: Objective, logits: Tensor, targets: tuple[Tensor, ...], labels: Tensor | None
) -> Score:
    loss = logits.new_zeros(())
    truth = None
    if targets:
        truth = targets[0].argmax(1)
        loss = loss + objective.distill * _soft(logits, targets[0], objective.temperature)
    if objective.labelled:
        if labels is None:
            raise DataError("fine-tune: a batch has no labels, though the first one had")
        _check_range(labels, logits.shape[1])
        truth = labels.long()
        if objective.distill < 1:
            loss = loss + (1 - objective.distill) * F.cross_entropy(logits, truth)
    assert truth is not None
    right = int((logits.argmax(1) == truth).sum())
    return Score(loss, logits.shape[0], right, truth.numel())


def _soft(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """T^2 * KL, summed over classes and averaged over everything else."""
    student = F.log_softmax(logits / temperature, 1)
    teacher = F.log_softmax(targets / temperature, 1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1).mean()
    return divergence * temperature**2


def _match(outputs: tuple[Tensor, ...], targets: tuple[Tensor, ...]) -> Tensor:
    pairs = [(o, t) for o, t in zip(outputs, targets, strict=True) if o.is_floating_point()]
    return torch.stack([F.mse_loss(o, t) for o, t in pairs]).sum()


def _check_range(labels: Tensor, classes: int) -> None:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"fine-tune: label {low if low < 0 else high} is outside 0..{classes - 1}, the classes "
            "of the model's output"
        )
