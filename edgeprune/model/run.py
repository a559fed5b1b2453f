# SPDX-License-Identifier: Apache-2.0
"""Running a model on numpy batches, and counting what it holds."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgeprune.errors import ModelError
from edgeprune.model.carrier import Input, Model
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
        A function over arrays with the batch first, of a type that converts to the input's own.
        It raises ModelError where count, shape or type don't fit, or an index is outside its
        table.
    """
    module = model.module()

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
        return tuple(_array(output) for output in outputs)

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
        if array.shape[1:] != spec.shape[1:] or array.ndim != len(spec.shape):
            raise ModelError(
                f"input '{spec.name}' takes {spec.shape[1:]} for each sample, not {array.shape[1:]}"
            )
        value = torch.tensor(np.ascontiguousarray(array))
        if value.is_floating_point() and not spec.dtype.is_floating_point:
            raise ModelError(f"input '{spec.name}' takes {spec.dtype}, not {array.dtype}")
        found.append(value.to(spec.dtype))
    return tuple(found)


def _by_chunks(
    model: Model,
    given: tuple[Tensor, ...],
    forward: Callable[[tuple[Tensor, ...]], list[Tensor]],
) -> list[Tensor]:
    """Run a batch of any size through a static one.

    Raises:
        ModelError: Inputs disagree on the batch, or an output has none to put together.
    """
    shapes = [spec.shape for spec in model.inputs]
    if not shapes or not shapes[0]:
        return forward(given)
    size, count = shapes[0][0], given[0].shape[0]
    has = [bool(shape) and shape[0] == size for shape in shapes]
    if any(h and t.shape[0] != count for h, t in zip(has, given, strict=True)):
        raise ModelError("the inputs have batches of different sizes")
    pieces = []
    for start in range(0, count, size):
        rows = torch.arange(start, start + size).clamp(max=count - 1)
        pieces.append(forward(tuple(t[rows] if h else t for h, t in zip(has, given, strict=True))))
    return [_together(list(parts), size, count) for parts in zip(*pieces, strict=True)]


def _together(parts: list[Tensor], size: int, count: int) -> Tensor:
    if parts[0].ndim and parts[0].shape[0] == size:
        return torch.cat(parts)[:count]
    if len(parts) == 1:
        return parts[0]
    raise ModelError(
        f"an output of shape {tuple(parts[0].shape)} doesn't begin with the batch of {size}, so "
        f"{count} samples can't be put together: run {size} at a time"
    )


def _array(output: Tensor) -> NDArray[np.generic]:
    if output.dtype == torch.bfloat16:
        output = output.float()  # numpy has no bfloat16
    array: NDArray[np.generic] = output.detach().numpy()
    return array
