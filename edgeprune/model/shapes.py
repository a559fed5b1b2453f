# SPDX-License-Identifier: Apache-2.0
"""Shapes and types of a model's inputs: from text, from data, as example tensors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgeprune.errors import InputError, ModelError, nearest

__all__ = ["InputShape", "Shapes", "batched", "examples", "fit", "parse_shape", "resized", "zeros"]

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "int64": torch.int64,
    "int32": torch.int32,
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


Shapes = Sequence[InputShape | tuple[int, ...] | str]
"""Shapes in any of the ways that ``load`` takes them."""


def parse_shape(text: str) -> InputShape:
    """Read ``1x3x224x224`` or, with a type, ``1x16:int64``.

    Raises:
        InputError: It is neither.
    """
    sizes, colon, name = text.strip().partition(":")
    try:
        shape = tuple(int(size) for size in sizes.lower().split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(
            f"--input-shape {text}: give whole numbers from 1, batch first, such as 1x3x224x224"
        )
    if colon and name not in _DTYPES:
        raise InputError(
            f"--input-shape {text}: unknown type '{name}'{nearest(name, _DTYPES)}; "
            f"allowed: {', '.join(_DTYPES)}"
        )
    return InputShape(shape, _DTYPES.get(name))


def zeros(specs: Iterable[tuple[Sequence[int], torch.dtype]]) -> tuple[Tensor, ...]:
    """A tensor of zeros for each shape and type."""
    return tuple(torch.zeros(tuple(shape), dtype=dtype) for shape, dtype in specs)


def examples(
    example: tuple[Tensor, ...] | None,
    shapes: Shapes | None,
    dtypes: Sequence[torch.dtype],
) -> tuple[Tensor, ...] | None:
    """Example inputs from real ones or from ``shapes``, if any.

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
    fit(example, said, "--input-shape", "the data gives")
    return example


def _shape(given: InputShape | tuple[int, ...] | str) -> InputShape:
    if isinstance(given, InputShape):
        return given
    return parse_shape(given) if isinstance(given, str) else InputShape(tuple(given))


def batched(example: Sequence[Tensor]) -> list[bool]:
    """Which inputs have a batch: those whose first dimension equals the first input's."""
    if not example or not example[0].ndim:
        return [False] * len(example)
    return [t.ndim > 0 and t.shape[0] == example[0].shape[0] for t in example]


def resized(example: Sequence[Tensor], batch: int) -> tuple[Tensor, ...]:
    """Zeros like ``example`` with another batch size."""
    return zeros(
        ((batch, *t.shape[1:]) if has else t.shape, t.dtype)
        for t, has in zip(example, batched(example), strict=True)
    )


def fit(
    wanted: Sequence[Tensor],
    given: Sequence[Tensor] | None,
    source: str,
    owner: str = "the model takes",
) -> None:
    """Check that ``given`` inputs are what ``owner`` says, but for the batch size.

    Raises:
        ModelError: Another count, shape or type; ``source`` says who gave them.
    """
    if given is None:
        return
    takes, gives = ([_say(t) for t in side] for side in (wanted, given))
    if takes != gives:
        raise ModelError(
            f"{owner} {' and '.join(takes)}, but {source} gives {' and '.join(gives)} "
            "(batch left out)"
        )


def _say(tensor: Tensor) -> str:
    sizes = "x".join(str(int(s)) for s in tensor.shape[1:]) or "single numbers"
    return f"{sizes} {str(tensor.dtype).removeprefix('torch.')}"
