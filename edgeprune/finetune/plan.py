# SPDX-License-Identifier: Apache-2.0
"""What a fine-tuning run will do, decided before its first step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from edgeprune.context import Context
from edgeprune.data import Batch, Data
from edgeprune.errors import DataError, InputError
from edgeprune.finetune.loss import Objective, decide, outputs_of
from edgeprune.finetune.optimise import base_rate
from edgeprune.model import Model, runner
from edgeprune.recipe import FinetuneOptions, Precision
from edgeprune.tasks import Task, endings, read

__all__ = ["Plan", "make_plan", "nothing_to_do"]


@dataclass(frozen=True)
class Plan:
    """The decided facts of a run."""

    objective: Objective
    batch_size: int
    fixed: int | None
    """The batch size that the model or its teacher insists on."""
    steps: int
    """Optimizer steps in an epoch."""
    rate: float
    """The highest learning rate."""
    training_mode: bool
    """Whether batch norm and dropout are in training mode while the weights are trained."""
    held_out: bool
    notes: tuple[str, ...]


def nothing_to_do(options: FinetuneOptions, data: Data | None) -> str | None:
    """Why there is nothing to fine-tune, if so."""
    if data is None:
        return "no data: not fine-tuned"
    return "0 epochs: not fine-tuned" if options.epochs == 0 else None


def make_plan(model: Model, options: FinetuneOptions, context: Context, data: Data) -> Plan:
    """Decide loss, batch size, steps and rate from the model, the data and one batch of it.

    Raises:
        InputError: The model is quantized, or there is nothing to learn from.
        DataError: The data doesn't fit the model, or has too little for the options.
    """
    if model.numerics != "fp32":
        raise InputError(
            f"fine-tune: the model is quantized ({model.numerics}); fine-tune it before that stage"
        )
    fixed = _fixed_batch(model, context.dense)
    batch_size = fixed or options.batch_size
    steps, notes = _steps(data, batch_size, fixed, options)
    held_out = data.sizes.get("holdout", 0) > 0
    if options.patience is not None and not held_out:
        raise DataError("fine-tune: patience needs a held-out part of the training data; none here")
    batch = next(iter(data.sample_train(fixed or 2, fixed or 2, context.seed)))
    _check_inputs(model, batch)
    _check_outputs(model, context.dense, batch, fixed, options.precision)
    objective = decide(_task(model, context, data), options, teacher=context.dense is not None)
    if batch_size == 1:
        notes = (*notes, "batches of one sample: batch norm and dropout stay in eval mode")
    return Plan(
        objective=objective,
        batch_size=batch_size,
        fixed=fixed,
        steps=steps,
        rate=base_rate(options, batch_size),
        training_mode=batch_size > 1,  # Statistics over one sample would be none.
        held_out=held_out,
        notes=(f"loss: {objective.text}", *objective.notes, *notes, *_frozen_norms(model)),
    )


def _task(model: Model, context: Context, data: Data) -> Task:
    """What the outputs are, as the dense model has them."""
    known = context.dense or model
    run = runner(known, context.threads)
    return read(data, run, endings(known), only_labels=context.dense is None)


@torch.no_grad()
def _check_outputs(
    model: Model, dense: Model | None, batch: Batch, fixed: int | None, precision: Precision
) -> None:
    """See that the model can be computed, and gives outputs like the dense model's."""
    found = _outputs(model, batch, fixed, precision)
    if dense is None:
        return
    shapes = [
        [tuple(output.shape) for output in outputs]
        for outputs in (found, outputs_of(dense.module(), batch, fixed))
    ]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"fine-tune: the model gives outputs of shapes {shapes[0]}, its teacher {shapes[1]}: "
            "they must be the same to be learned"
        )


def _outputs(
    model: Model, batch: Batch, fixed: int | None, precision: Precision
) -> tuple[Tensor, ...]:
    if precision == "float32":
        return outputs_of(model.module(), batch, fixed)
    try:
        return outputs_of(model.module(), batch, fixed, precision)
    except (RuntimeError, AssertionError) as error:
        # A size or a type that the model's code insists on.
        first = str(error).strip().split("\n", maxsplit=1)[0]
        raise InputError(
            f"fine-tune: the model can't be computed in {precision}: {first}; set precision to "
            "float32"
        ) from error


def _fixed_batch(model: Model, dense: Model | None) -> int | None:
    models = [model] if dense is None else [model, dense]
    sizes = {m.fixed_batch for m in models if m.fixed_batch is not None}
    if len(sizes) > 1:
        raise InputError(
            f"fine-tune: model and dense model have different fixed batches: {sorted(sizes)}"
        )
    return sizes.pop() if sizes else None


def _steps(
    data: Data, batch_size: int, fixed: int | None, options: FinetuneOptions
) -> tuple[int, tuple[str, ...]]:
    samples = data.sizes["train"]
    notes: tuple[str, ...] = ()
    if fixed is None:
        steps = data.train_steps(batch_size)
    else:
        steps, left = divmod(samples, fixed)
        text = f"trained with the model's fixed batch of {fixed}, not {options.batch_size}"
        skipped = f"; {left} of {samples} samples left out in each epoch" if left else ""
        if left or fixed != options.batch_size:
            notes = (text + skipped,)
    if steps == 0:
        raise DataError(
            f"fine-tune: the training part has {samples} samples, too few for a batch of "
            f"{batch_size if fixed else 'two'}"
        )
    return steps, notes


def _check_inputs(model: Model, batch: Batch) -> None:
    wanted = [f"{i.name}: {i.dtype} (batch, {str(i.sample)[1:-1]})" for i in model.inputs]
    found = [(t.dtype, sample) for t, sample in zip(batch.inputs, batch.sample_shapes, strict=True)]
    if found != [(i.dtype, i.sample) for i in model.inputs]:
        given = [f"{dtype} (batch, {str(shape)[1:-1]})" for dtype, shape in found]
        raise DataError(
            f"fine-tune: the model takes {'; '.join(wanted)}, but the data gives {'; '.join(given)}"
        )


def _frozen_norms(model: Model) -> tuple[str, ...]:
    """Batch norms captured with momentum 0 (``momentum=None`` in PyTorch) never move their
    statistics."""
    target = torch.ops.aten.batch_norm.default
    nodes = [n for n in model.program.graph.nodes if n.target is target]
    still = sum(n.args[3] is not None and n.args[6] == 0 for n in nodes)
    if not still:
        return ()
    text = f"{still} of {len(nodes)} batch norms have momentum 0: their running statistics stay"
    return (text,)
