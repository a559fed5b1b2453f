# SPDX-License-Identifier: Apache-2.0
"""What an artifact is run on while it is measured: seeded random numbers, or real inputs.

Runs on the device: standard library and numpy, Python 3.8 or newer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import InputError, naming
from edgeprune.profiler.npz import opened
from edgeprune.profiler.runtime import TensorSpec

__all__ = ["job_inputs", "random_inputs", "real_inputs"]

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]


def job_inputs(specs: Sequence[TensorSpec], job: dict[str, Any]) -> list[Array]:
    """One batch of what ``job`` (see ``worker``) wants a file with the inputs ``specs`` run on.

    Raises:
        InputError: There is none that fits.
    """
    with naming(job["path"]):
        if job["inputs"] is None:
            return random_inputs(specs, job["seed"], job.get("sizes"))
        return real_inputs(specs, Path(job["inputs"]))


def random_inputs(
    specs: Sequence[TensorSpec], seed: int, sizes: dict[str, int] | None = None
) -> list[Array]:
    """One array an input, batch 1 where the batch is dynamic.

    Other dynamic dimensions have the size that ``sizes`` has for their name, or for ``INPUT.AXIS``.

    Floats are standard normal. ``int8``, ``uint8`` and 16-bit integers span their range (they are
    quantized values); wider integers and booleans are 0 or 1, which is a valid index of any table.

    Raises:
        InputError: A dimension other than the batch is dynamic, and its size isn't told.
    """
    generator = np.random.default_rng(seed)
    return [_random(spec, generator, sizes or {}) for spec in specs]


def real_inputs(specs: Sequence[TensorSpec], path: Path, *, whole: bool = False) -> list[Array]:
    """Arrays of the ``.npz`` file ``path``: by the inputs' names, else in the order of the file.

    An array with more samples than a batch is cut to one batch (one sample where the batch is
    dynamic), unless all of it is wanted (``whole``). Images saved as NCHW are turned where the
    input is NHWC, and the other way round.

    Raises:
        InputError: The file can't be read, or its arrays don't fit the inputs.
    """
    wanted = [spec.name for spec in specs]
    with opened(path) as file:
        names = wanted
        if not all(name in file.names for name in wanted):
            if len(file.names) != len(wanted):
                raise InputError(
                    f"{path}: holds {', '.join(file.names)}, the inputs are "
                    f"{', '.join(wanted)}; name the arrays so"
                )
            names = list(file.names)
        size = specs[0].shape[0] if specs and specs[0].shape else None
        return [
            _fit(spec, file.read(names[index]), path, size, whole)
            for index, spec in enumerate(specs)
        ]


def _random(spec: TensorSpec, generator: np.random.Generator, given: dict[str, int]) -> Array:
    shape: list[int] = []
    for axis, dim in enumerate(spec.shape):
        place = f"{spec.name}.{axis}"
        batch = dim == "batch" or axis == 0
        size = dim if isinstance(dim, int) else given.get(place, given.get(dim, 1 if batch else 0))
        if not size and isinstance(dim, str):
            raise InputError(
                f"input {spec.name} has a dynamic dimension '{dim}' of unknown size: "
                f"give its size (--size {place}=N) or real inputs (.npz)"
            )
        shape.append(size)
    sizes = tuple(shape)
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return generator.standard_normal(sizes).astype(dtype)
    if dtype.kind == "b" or dtype.itemsize > 2:
        return generator.integers(0, 2, size=sizes).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, size=sizes, endpoint=True).astype(dtype)


def _fit(spec: TensorSpec, array: Array, path: Path, size: int | str | None, whole: bool) -> Array:
    candidates = [array]
    if array.ndim == 4:
        candidates += [array.transpose(0, 2, 3, 1), array.transpose(0, 3, 1, 2)]
    for candidate in candidates:
        axis = _batch_axis(spec.shape, candidate.shape, size)
        dim = spec.shape[axis] if axis < min(len(spec.shape), candidate.ndim) else None
        batch = dim if isinstance(dim, int) else 1
        if dim is not None and candidate.shape[axis] > batch and not whole:
            candidate = candidate.take(range(batch), axis)
        given = candidate.shape
        if whole and dim is not None:
            given = (*given[:axis], batch, *given[axis + 1 :])
        if _same(spec.shape, given) and np.can_cast(
            candidate.dtype, spec.dtype, casting="same_kind"
        ):
            return np.ascontiguousarray(candidate.astype(spec.dtype)).reshape(candidate.shape)
    wanted = "x".join(map(str, spec.shape)) or "scalar"
    found = "x".join(map(str, array.shape)) or "scalar"
    raise InputError(
        f"{path}: input {spec.name} is {spec.dtype} {wanted}, the array is {array.dtype} {found}"
    )


def _batch_axis(
    wanted: tuple[int | str, ...], given: tuple[int, ...], size: int | str | None
) -> int:
    """Where an array has its samples: at the axis that is called the batch, at the only one that
    differs from the input's, if that has the batch ``size``, else at the first."""
    if "batch" in wanted:
        return wanted.index("batch")
    if len(wanted) != len(given):
        return 0
    pairs = [(dim, axis) for axis, dim in enumerate(wanted) if not isinstance(dim, str)]
    other = [axis for dim, axis in pairs if dim != given[axis]]
    return other[0] if len(other) == 1 and wanted[other[0]] == size else 0


def _same(wanted: tuple[int | str, ...], given: tuple[int, ...]) -> bool:
    return len(wanted) == len(given) and all(
        isinstance(dim, str) or dim == given[axis] for axis, dim in enumerate(wanted)
    )
