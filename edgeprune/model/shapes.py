# SPDX-License-Identifier: Apache-2.0
"""Shapes and types of a model's inputs: from text, from data, as example tensors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeprune.errors import InputError, ModelError, nearest

__all__ = [
    "Axes",
    "InputShape",
    "Shapes",
    "Wanted",
    "batch_axes",
    "batch_size",
    "examples",
    "fit",
    "parse_shape",
    "resized",
    "said_axes",
    "said_inputs",
    "zeros",
]

Axes = tuple[int | None, ...]
"""The axis of the samples of each input; ``None`` where one value serves all samples."""

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "bool": torch.bool,
}


@dataclass(frozen=True)
class InputShape:
    """One input as the user says it: sizes with the batch first, and a type where it matters."""

    sizes: tuple[int, ...]
    dtype: torch.dtype | None = None
    """``None``: the type of the model's own parameters."""
    batch_axis: int | None = None
    """Where the shape said ``N``; ``None``: to be found out."""


@dataclass(frozen=True)
class Wanted:
    """What a model takes at an input, as far as its file or the user tells."""

    name: str | None
    shape: tuple[int | None, ...]
    """``None`` for a size that may be any."""
    dtype: torch.dtype | None
    axis: int | None = 0
    """Of the samples; ``None``: one value serves all of them."""
    fixed: bool = False
    """Whether the batch size is fixed, so that ``axis`` is a guess."""


Shapes = Sequence[InputShape | tuple[int, ...] | str]
"""Shapes in any of the ways that ``load`` takes them."""


def parse_shape(text: str) -> InputShape:
    """Read ``1x3x224x224`` or, with a type, ``1x16:int64``; ``2xNx16`` has the samples at ``N``.

    Raises:
        InputError: It is neither.
    """
    sizes, colon, name = text.strip().partition(":")
    parts = sizes.lower().split("x")
    axis = parts.index("n") if parts.count("n") == 1 else None
    try:
        shape = tuple(1 if place == axis else int(size) for place, size in enumerate(parts))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(
            f"--input-shape {text}: give whole numbers from 1, batch first, such as 1x3x224x224, "
            "or N for the batch, such as 2xNx16"
        )
    if colon and name not in _DTYPES:
        raise InputError(
            f"--input-shape {text}: unknown type '{name}'{nearest(name, _DTYPES)}; "
            f"allowed: {', '.join(_DTYPES)}"
        )
    return InputShape(shape, _DTYPES.get(name), axis)


def zeros(specs: Iterable[tuple[Sequence[int], torch.dtype]]) -> tuple[Tensor, ...]:
    """A tensor of zeros for each shape and type."""
    return tuple(torch.zeros(tuple(shape), dtype=dtype) for shape, dtype in specs)


def examples(
    example: tuple[Tensor, ...] | None,
    shapes: Shapes | None,
    dtypes: Sequence[torch.dtype],
    axes: Axes | None = None,
) -> tuple[Tensor, ...] | None:
    """Example inputs from real ones (with the samples along ``axes``) or from ``shapes``, if any.

    A shape without a type takes that of ``dtypes`` at its place, or the last of them.

    Raises:
        InputError: A shape's text is none.
        ModelError: Real inputs and ``shapes`` contradict each other.
    """
    if shapes is None:
        return example
    given = [_shape(s) for s in shapes]
    types = [t.dtype for t in example] if example else list(dtypes)
    types += [types[-1]] * len(given)
    said = zeros((s.sizes, s.dtype or t) for s, t in zip(given, types, strict=False))
    if example is None:
        return said
    fit(example, said, "--input-shape", "the data gives", (axes, said_axes(shapes, said)))
    return example


def said_axes(shapes: Shapes, said: Sequence[Tensor]) -> Axes:
    """Where the samples are in ``said``, the examples of ``shapes``: at an ``N``, or guessed."""
    marked = [_shape(s).batch_axis for s in shapes]
    if all(axis is None for axis in marked):
        return batch_axes(said)
    ones = [0 if t.ndim and t.shape[0] == 1 else None for t in said]  # beside an N, 1 is a batch
    return tuple(axis if axis is not None else one for axis, one in zip(marked, ones, strict=True))


def _shape(given: InputShape | tuple[int, ...] | str) -> InputShape:
    if isinstance(given, InputShape):
        return given
    return parse_shape(given) if isinstance(given, str) else InputShape(tuple(given))


def said_inputs(shapes: Shapes) -> tuple[Wanted, ...]:
    """What the user says that a model takes."""
    given = [_shape(s) for s in shapes]
    axes = said_axes(given, zeros((s.sizes, torch.float32) for s in given))
    return tuple(
        Wanted(
            None,
            tuple(None if place == axis else n for place, n in enumerate(s.sizes)),
            s.dtype,
            axis,
        )
        for s, axis in zip(given, axes, strict=True)
    )


def batch_axes(example: Sequence[Tensor]) -> Axes:
    """A guess: the samples are along the first axis wherever its size is that of the first input's.

    Of the first input it is the first axis, unless that input is a scalar.
    """
    first = next((t for t in example if t.ndim), None)
    if first is None:
        return (None,) * len(example)
    return tuple(0 if t.ndim and t.shape[0] == first.shape[0] else None for t in example)


def batch_size(example: Sequence[Tensor], axes: Axes) -> int:
    """How many samples ``example`` has; 1 where no input has a batch."""
    sizes = (t.shape[axis] for t, axis in zip(example, axes, strict=True) if axis is not None)
    return next(sizes, 1)


def resized(example: Sequence[Tensor], batch: int, axes: Axes) -> tuple[Tensor, ...]:
    """Zeros like ``example`` with another batch size."""
    return zeros(
        (tuple(batch if place == axis else n for place, n in enumerate(t.shape)), t.dtype)
        for t, axis in zip(example, axes, strict=True)
    )


def fit(
    wanted: Sequence[Tensor],
    given: Sequence[Tensor] | None,
    source: str,
    owner: str = "the model takes",
    axes: tuple[Axes | None, Axes | None] = (None, None),
) -> None:
    """Check that ``given`` inputs are what ``owner`` says, but for the batch size.

    Args:
        wanted: What is needed.
        given: What there is.
        source: Who gave it, for the message.
        owner: Who needs it, for the message.
        axes: The samples' axes of either; ``None``: the first of every input.

    Raises:
        ModelError: Another count, shape, type or axis.
    """
    if given is None:
        return
    takes, gives = (
        [_say(t, axis) for t, axis in zip(side, known or (0,) * len(side), strict=True)]
        for side, known in zip((wanted, given), axes, strict=True)
    )
    if takes != gives:
        raise ModelError(
            f"{owner} {' and '.join(takes)}, but {source} gives {' and '.join(gives)} "
            "(batch left out)"
        )


def _say(tensor: Tensor, axis: int | None) -> str:
    kind = str(tensor.dtype).removeprefix("torch.")
    sizes = [str(int(size)) for size in tensor.shape]
    if axis is None:
        return f"{'x'.join(sizes) or 'a single number'} {kind} for all samples"
    if axis == 0:
        return f"{'x'.join(sizes[1:]) or 'single numbers'} {kind}"
    return f"{'x'.join([*sizes[:axis], 'N', *sizes[axis + 1 :]])} {kind}"
