# SPDX-License-Identifier: Apache-2.0
"""Running a model on numpy batches, and counting what it holds."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgeprune.errors import ModelError
from edgeprune.model.carrier import Input, Model, Output
from edgeprune.model.grid import fused
from edgeprune.model.program import identity, reason

__all__ = ["Arrays", "parameters", "runner", "state_bytes"]

Arrays = tuple[NDArray[np.generic], ...]


def parameters(model: Model) -> int:
    """How many trainable values the model has; tied ones count once.

    Parameters that quantization turned into integer buffers are no longer trainable.
    """
    return sum(t.numel() for t in _unique(model) if isinstance(t, nn.Parameter))


def state_bytes(model: Model) -> int:
    """Bytes of all parameters, buffers and constants as they are stored; tied ones count once."""
    return sum(t.numel() * t.element_size() for t in _unique(model))


def _unique(model: Model) -> list[Tensor]:
    state = (*model.program.state_dict.values(), *model.program.constants.values())
    return list({identity(t): t for t in state if isinstance(t, Tensor)}.values())


def runner(model: Model, threads: int | None = None) -> Callable[[Arrays], Arrays]:
    """A function that runs the model: batches of its inputs in, all its outputs out.

    Args:
        model: Any model. One with a static batch runs chunk by chunk, the last one filled up with
            copies of its last sample.
        threads: CPU threads while it runs; ``None``: torch's own setting.

    Returns:
        A function over arrays of a type that converts to the input's own, with the samples along
        ``Input.batch_axis``. Its results have their samples first, whatever ``Output.batch_axis``
        is, so that they can be told apart; an output without a batch is as it is. It raises
        ModelError where count, shape or type don't fit, or an index is outside its table.
    """
    module = fused(model.module())

    def forward(chunk: tuple[Tensor, ...]) -> list[Tensor]:
        before = torch.get_num_threads()
        try:
            if threads is not None:
                torch.set_num_threads(threads)
            with torch.no_grad():
                return [o for o in pytree.tree_leaves(module(*chunk)) if isinstance(o, Tensor)]
        except IndexError as error:
            raise ModelError(
                f"the model can't run on these inputs: {reason(error)}; a token id, or another "
                "index in the data, is larger than the model's table"
            ) from error
        finally:
            if threads is not None:
                torch.set_num_threads(before)

    def run(arrays: Arrays) -> Arrays:
        given = _tensors(model.inputs, arrays)
        outputs = forward(given) if model.dynamic_batch else _by_chunks(model, given, forward)
        return tuple(
            _array(value if spec.batch_axis is None else value.movedim(spec.batch_axis, 0))
            for value, spec in zip(outputs, model.outputs, strict=True)
        )

    return run


def _tensors(inputs: tuple[Input, ...], arrays: Arrays) -> tuple[Tensor, ...]:
    """The arrays as tensors of the inputs' types (copies: a graph may work in place).

    Raises:
        ModelError: They don't fit.
    """
    if len(arrays) != len(inputs):
        raise ModelError(f"the model takes {len(inputs)} inputs, not {len(arrays)}")
    found = []
    for spec, array in zip(inputs, arrays, strict=True):
        sample = tuple(n for place, n in enumerate(array.shape) if place != spec.batch_axis)
        if sample != spec.sample or array.ndim != len(spec.shape):
            each = "all samples" if spec.batch_axis is None else "each sample"
            raise ModelError(f"input '{spec.name}' takes {spec.sample} for {each}, not {sample}")
        value = torch.tensor(np.asarray(array, order="C"))
        if value.is_floating_point() and not spec.dtype.is_floating_point:
            raise ModelError(f"input '{spec.name}' takes {spec.dtype}, not {array.dtype}")
        found.append(value.to(spec.dtype))
    axes = [spec.batch_axis for spec in inputs]
    if len({t.shape[a] for t, a in zip(found, axes, strict=True) if a is not None}) > 1:
        raise ModelError("the inputs have batches of different sizes")  # torch may crash on them
    return tuple(found)


def _by_chunks(
    model: Model,
    given: tuple[Tensor, ...],
    forward: Callable[[tuple[Tensor, ...]], list[Tensor]],
) -> list[Tensor]:
    """Run a batch of any size through a static one.

    Raises:
        ModelError: An output has no batch to put together.
    """
    size, axes = model.fixed_batch, model.batch_axes
    count = next((t.shape[a] for t, a in zip(given, axes, strict=True) if a is not None), None)
    if size is None or count is None:
        return forward(given)
    pieces = []
    for start in range(0, count, size):
        rows = torch.arange(start, start + size).clamp(max=count - 1)
        pieces.append(
            forward(
                tuple(
                    t if a is None else t.index_select(a, rows)
                    for t, a in zip(given, axes, strict=True)
                )
            )
        )
    columns = zip(zip(*pieces, strict=True), model.outputs, strict=True)
    return [_together(list(parts), spec, size, count) for parts, spec in columns]


def _together(parts: list[Tensor], spec: Output, size: int, count: int) -> Tensor:
    if spec.batch_axis is not None:
        return torch.cat(parts, spec.batch_axis).narrow(spec.batch_axis, 0, count)
    if len(parts) == 1:
        return parts[0]
    raise ModelError(
        f"output '{spec.name}' of shape {tuple(parts[0].shape)} has no dimension of the batch of "
        f"{size}, so {count} samples can't be put together: run {size} at a time"
    )


def _array(output: Tensor) -> NDArray[np.generic]:
    if output.dtype == torch.bfloat16:
        output = output.float()  # numpy has no bfloat16
    array: NDArray[np.generic] = output.detach().numpy()
    return array
