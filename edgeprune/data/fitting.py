# SPDX-License-Identifier: Apache-2.0
"""Arrays brought to what a model takes: their type, and the axis of their samples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune.data.spec import BatchAxis
from edgeprune.errors import DataError
from edgeprune.model import Wanted

__all__ = ["Placed", "fitted", "is_picture", "place", "rows_first", "takes_integers", "unstacked"]

Array = NDArray[Any]
_FLOATS: dict[torch.dtype, type[np.floating[Any]]] = {
    torch.float16: np.float16,
    torch.float64: np.float64,
}
"""NumPy's types beside float32; it has no bfloat16."""


@dataclass(frozen=True)
class Placed:
    """Arrays along the model's own axes."""

    arrays: dict[str, Array]
    axes: tuple[int | None, ...]
    """The axis of the samples of each; ``None`` where one value serves all samples."""


def place(
    arrays: Mapping[str, Array],
    wanted: Sequence[Wanted],
    given: tuple[BatchAxis, ...],
    count: int | None,
    where: str,
) -> Placed:
    """Find the samples' axis of each array, and move it to where the model has its batch.

    Args:
        arrays: One an input, by name.
        wanted: What the model takes; empty where that isn't known yet.
        given: The spec's ``source.batch_axis``; empty: found out.
        count: How many samples there must be; ``None``: what most arrays agree on.
        where: The source, for messages.

    Raises:
        DataError: ``given`` doesn't fit, or no array has samples.
    """
    needs = list(wanted) if len(wanted) == len(arrays) else [None] * len(arrays)
    if given:
        ways = _said(arrays, needs, given, where)
    else:
        options = [list(_options(a, n)) for a, n in zip(arrays.values(), needs, strict=True)]
        ways = _agreeing(list(arrays.values()), options, count)
    if all(own is None for own, _ in ways):
        raise DataError(
            f"{where}: no input has an axis of samples: {', '.join(arrays)} is a single value"
        )
    moved: dict[str, Array] = {}
    for (name, array), (own, axis), need in zip(arrays.items(), ways, needs, strict=True):
        what = f"{where}: array '{name}'"
        if own is not None and axis is None:
            moved[name] = _one_for_all(array, own, need, what)
        else:
            moved[name] = array if own is None or axis is None else np.moveaxis(array, own, axis)
    return Placed(moved, tuple(axis for _, axis in ways))


_Way = tuple[int | None, int | None]
"""The samples' axis in the data, and in the model."""


def _said(
    arrays: Mapping[str, Array],
    needs: Sequence[Wanted | None],
    given: tuple[BatchAxis, ...],
    where: str,
) -> list[_Way]:
    if len(given) != len(arrays):
        raise DataError(
            f"{where}: source.batch_axis has {len(given)} entries for {len(arrays)} inputs "
            f"({', '.join(arrays)})"
        )
    ways: list[_Way] = []
    for (name, array), need, said in zip(arrays.items(), needs, given, strict=True):
        own = None if said == "none" else int(said)
        if own is not None and own >= array.ndim:
            raise DataError(
                f"{where}: source.batch_axis is {own} for array '{name}', which has {array.ndim} "
                "dimensions"
            )
        ways.append((own, own if need is None or need.fixed or own is None else need.axis))
    return ways


def _options(array: Array, need: Wanted | None) -> Iterator[_Way]:
    """Where the samples of an array may be, best first; the first axis where nothing fits."""
    if array.ndim == 0:
        yield None, None
        return
    if need is None:
        yield 0, 0
        return
    shape, axis = need.shape, need.axis
    if axis is None and _fits(array.shape, shape):
        yield None, None
    axes = range(len(shape)) if need.fixed else () if axis is None else (axis,)
    for own in sorted(axes, key=lambda place: (place != axis, place)):
        if own < array.ndim and _fits(_without(array.shape, own), _without(shape, own)):
            yield own, own
    if _fits(array.shape[1:], shape if axis is None else _without(shape, axis)):
        yield 0, axis
    if axis is not None and need.fixed and _fits(array.shape, shape):
        yield None, None
    yield 0, 0


def _agreeing(
    arrays: Sequence[Array], options: Sequence[list[_Way]], count: int | None
) -> list[_Way]:
    """The best options that agree on how many samples there are; else each array's best."""
    sizes = (
        [count]
        if count is not None
        else [
            a.shape[own]
            for a, ways in zip(arrays, options, strict=True)
            for own, _ in ways
            if own is not None
        ]
    )
    for size in sizes:
        chosen = [
            next((w for w in ways if w[0] is None or a.shape[w[0]] == size), None)
            for a, ways in zip(arrays, options, strict=True)
        ]
        if all(way is not None for way in chosen):
            return [way for way in chosen if way is not None]
    return [ways[0] for ways in options]


def _without(shape: tuple[Any, ...], axis: int) -> tuple[Any, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _fits(given: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(given) == len(wanted) and all(
        n is None or n == size for size, n in zip(given, wanted, strict=True)
    )


def _one_for_all(array: Array, own: int, need: Wanted | None, what: str) -> Array:
    """The value that all samples share, of an array that repeats it.

    Raises:
        DataError: They don't share one.
    """
    rows = np.moveaxis(array, own, 0)
    if len(rows) == 0 or not (rows == rows[:1]).all():
        shape = list(need.shape) if need is not None else []
        raise DataError(
            f"{what} has a value for each sample, but the model takes one of shape {shape} for all "
            "samples; give that one, or export the model with a batch there"
        )
    return np.asarray(rows[0])


def rows_first(array: Array, axis: int | None) -> Array:
    """A view with the samples along the first axis; one row where there are none."""
    return array[None] if axis is None else np.moveaxis(array, axis, 0)


def takes_integers(need: Wanted | None) -> bool:
    """Whether the model is known to take integers or booleans as they are."""
    return need is not None and need.dtype is not None and not need.dtype.is_floating_point


def is_picture(array: Array) -> bool:
    """Whether an array looks like pictures of 8 bits a value."""
    return array.dtype == np.uint8 and array.ndim > 2


def _usable(array: Array, what: str, kind: type[np.floating[Any]] = np.float32) -> Array:
    """``array`` as batches have it: ``kind``, ``int64``, ``bool``; 8-bit images as they are.

    Raises:
        DataError: Another type (complex, strings, objects).
    """
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what} has type {array.dtype}; allowed: floats, integers, bool")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what becomes infinite is found by the finite check
            return np.asarray(array, kind, order="C")
    if is_picture(array) or array.dtype.kind == "b":
        return np.asarray(array, order="C")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise DataError(f"{what} has values above {np.iinfo(np.int64).max}")
    return np.asarray(array, np.int64, order="C")


def fitted(array: Array, need: Wanted | None, what: str) -> tuple[Array, str | None]:
    """``array`` in the type that the model takes, and a note where whole numbers were cast.

    The very type goes through; integers of another type are cast where all values fit.

    Raises:
        DataError: The type can't be used, or a value doesn't fit.
    """
    if need is None or need.dtype is None:
        return _usable(array, what), None
    if need.dtype.is_floating_point:
        kind = _FLOATS.get(need.dtype, np.float32)
        found = _usable(array, what, kind)
        if found.dtype.kind == "f" or is_picture(found):
            return found, None
        name, exact = kind.__name__, 2 ** (np.finfo(kind).nmant + 1)
        if found.size and np.abs(found.astype(np.float64)).max() > exact:
            raise DataError(f"{what} has integers above {exact}, which {name} can't hold exactly")
        return found.astype(kind), f"{what}: {array.dtype} cast to {name}, which holds all"
    target = torch.empty(0, dtype=need.dtype).numpy().dtype
    if array.dtype == target:
        return np.asarray(array, order="C"), None
    if array.dtype.kind not in "iub":
        raise DataError(f"{what} has type {array.dtype}, but the model takes {target} there")
    low, high = (0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
    if array.size and (int(array.min()) < low or int(array.max()) > high):
        raise DataError(
            f"{what} has values of {int(array.min())} to {int(array.max())}, but the model takes "
            f"{target} there ({low} to {high})"
        )
    return np.asarray(array.astype(target), order="C"), (
        f"{what}: {array.dtype} cast to {target}, which holds all values"
    )


def unstacked(
    columns: Mapping[str, Array],
    wanted: Sequence[Wanted],
    given: tuple[BatchAxis, ...],
    where: str,
) -> tuple[dict[str, Array], tuple[BatchAxis, ...]]:
    """Samples that were stacked along the first axis, along the model's own, and those axes.

    Raises:
        DataError: ``given`` doesn't fit, or samples differ where the model takes one value.
    """
    if given and len(given) != len(columns):
        raise DataError(
            f"{where}: source.batch_axis has {len(given)} entries for {len(columns)} inputs"
        )
    needs = list(wanted) if len(wanted) == len(columns) else [None] * len(columns)
    axes: list[BatchAxis] = []
    found: dict[str, Array] = {}
    for place, ((name, column), need) in enumerate(zip(columns.items(), needs, strict=True)):
        known = 0 if need is None else need.axis
        axis = known if not given else None if given[place] == "none" else int(given[place])
        what = f"{where}: {name}"
        if axis is None:
            found[name] = _one_for_all(column, 0, need, what)
        elif axis >= column.ndim:
            raise DataError(f"{what} has no axis {axis} for its samples")
        else:
            found[name] = np.moveaxis(column, 0, axis)
        axes.append("none" if axis is None else axis)
    return found, tuple(axes)
