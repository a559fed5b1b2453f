# SPDX-License-Identifier: Apache-2.0
"""Arrays in memory: checked once, then handed out by rows."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.data.fitting import Placed, fitted, is_picture, place, rows_first, takes_integers
from edgeprune.data.layout import EVALUATION_NAMES, TRAIN_NAMES, choose_splits
from edgeprune.data.pool import Found, Rows
from edgeprune.data.spec import DataSpec, Layout, Source
from edgeprune.errors import DataError, calling, nearest
from edgeprune.model import Wanted
from edgeprune.progress import Progress, Silent

__all__ = [
    "ArrayPool",
    "as_arrays",
    "checked",
    "found_arrays",
    "layout_of",
    "name_columns",
]

INPUT_NAMES = ("x", "X", "images", "image", "data", "inputs", "pixel_values")
TOKEN_NAMES = ("input_ids", "attention_mask", "token_type_ids")
LABEL_NAMES = ("y", "Y", "labels", "label", "target", "targets")
_SLICE = 4096
"""Rows looked at together, so that a check needs little memory beside the array."""


@dataclass(frozen=True)
class ArrayPool:
    """Arrays of as many samples, one an input, and the labels. A pool and its samples in one."""

    inputs: tuple[NDArray[Any], ...]
    labels: Rows | None
    axes: tuple[int | None, ...] = (0,)
    """The axis of the samples of each input; ``None`` where one value serves all samples."""
    left_out: tuple[str, ...] = ()

    @property
    def sample_bytes(self) -> int:
        """Nothing more: the arrays are in memory already."""
        return 0

    def __len__(self) -> int:
        """Count of samples."""
        pairs = zip(self.inputs, self.axes, strict=True)
        return next(len(rows_first(array, axis)) for array, axis in pairs if axis is not None)

    @property
    def sample_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of one sample of each input."""
        return tuple(
            tuple(size for place, size in enumerate(array.shape) if place != axis)
            for array, axis in zip(self.inputs, self.axes, strict=True)
        )

    def load(self, rows: Rows, *, keep: bool, progress: Progress) -> "ArrayPool":
        """Copy ``rows`` out."""
        labels = None if self.labels is None else self.labels[rows]
        return ArrayPool(self._rows(rows), labels, self.axes)

    def take(self, rows: Rows) -> tuple[tuple[Tensor, ...], Rows]:
        """The inputs of ``rows``."""
        return tuple(torch.from_numpy(array) for array in self._rows(rows)), rows

    def _rows(self, rows: Rows) -> tuple[NDArray[Any], ...]:
        return tuple(
            array if axis is None else np.take(array, rows, axis)
            for array, axis in zip(self.inputs, self.axes, strict=True)
        )

    def notes(self) -> tuple[str, ...]:
        """What was left out."""
        return self.left_out


def found_arrays(
    read: Callable[[str], NDArray[Any]],
    names: Sequence[str],
    spec: DataSpec,
    where: str,
    wanted: Sequence[Wanted] = (),
) -> Found:
    """Splits, inputs and labels among named arrays.

    With splits the names carry them: ``x_train`` or ``train_x``. Only the arrays that are used are
    read, and brought to what the model takes where ``wanted`` tells it.

    Raises:
        DataError: Nothing usable is there, or an array is unusable (see ``checked``).
    """
    source = spec.source
    train, evaluation, said = choose_splits(_split_names(names, source), source, where, "arrays")
    splits = (train,) if evaluation is None else (train, evaluation)
    parts = [_part(read, _columns(names, split), spec, where, wanted) for split in splits]
    if len(parts) > 1:
        _alike(parts[0], parts[1], where)
    notes = [*said, *dict.fromkeys(note for part in parts for note in part.left_out)]
    first, axes = parts[0].inputs[0], parts[0].axes
    layout = layout_of(first, source, where) if axes[0] == 0 else None
    if source.layout is None and layout not in (None, "NCHW"):
        notes.append(f"the axes of the arrays were taken for {layout}")
    return Found(
        train=parts[0],
        evaluation=parts[1] if len(parts) > 1 else None,
        classes=source.classes if isinstance(source.classes, tuple) else None,
        shape=parts[0].sample_shapes[0],
        eight_bit=is_picture(first) and not takes_integers(wanted[0] if wanted else None),
        layout=layout,
        preprocessing=spec.preprocessing,
        facts=tuple(
            _fact(f"{split}/{i}", array)
            for split, part in zip(splits, parts, strict=True)
            for i, array in enumerate((*part.inputs, part.labels))
            if array is not None
        ),
        notes=tuple(notes),
        axes=axes,
    )


def _part(
    read: Callable[[str], NDArray[Any]],
    columns: dict[str, str],
    spec: DataSpec,
    where: str,
    wanted: Sequence[Wanted],
) -> ArrayPool:
    inputs, labels = name_columns(list(columns), spec.source, where, wanted)
    arrays = {columns[name]: read(columns[name]) for name in inputs}
    known = None if labels is None else (columns[labels], read(columns[labels]))
    return checked(arrays, known, spec, where, wanted)


def _split_names(names: Sequence[str], source: Source) -> list[str]:
    """Splits that array names carry, as ``x_train`` and ``train_x`` do."""
    wanted = [name for name in (source.train, source.evaluation) if name]
    found = [name for name in (*TRAIN_NAMES, *EVALUATION_NAMES) if _carrying(names, name)]
    both = {name in TRAIN_NAMES for name in found} == {True, False}
    if not both and len({a for name in found for a in _carrying(names, name).values()}) < len(
        names
    ):
        found = []  # one such name among others is an array's own, as in val_index
    return [*found, *(name for name in wanted if name not in found and _carrying(names, name))]


def _carrying(names: Sequence[str], split: str) -> dict[str, str]:
    found = {}
    for name in names:
        if name.endswith(f"_{split}"):
            found[name.removesuffix(f"_{split}")] = name
        elif name.startswith(f"{split}_"):
            found[name.removeprefix(f"{split}_")] = name
    return found


def _columns(names: Sequence[str], split: str | None) -> dict[str, str]:
    """Array by its name without the split."""
    return {name: name for name in names} if split is None else _carrying(names, split)


def name_columns(
    names: Sequence[str], source: Source, where: str, wanted: Sequence[Wanted] = ()
) -> tuple[tuple[str, ...], str | None]:
    """Which of ``names`` are the inputs, and which the labels: as the spec says, as the model's
    inputs are called (``wanted``), or as is usual.

    Raises:
        DataError: A name of the spec isn't there, or the inputs can't be told without it.
    """
    for name in (*source.inputs, *([source.labels] if source.labels else [])):
        if name not in names:
            raise DataError(
                f"{where}: no array or column '{name}'{nearest(name, names)}; "
                f"there: {', '.join(names)}"
            )
    labels = source.labels or next((name for name in LABEL_NAMES if name in names), None)
    if source.inputs:
        return source.inputs, labels if labels not in source.inputs else None
    own = tuple(entry.name for entry in wanted if entry.name is not None and entry.name in names)
    if len(own) == len(wanted) > 0 and labels not in own:
        return own, labels
    if tokens := tuple(name for name in TOKEN_NAMES if name in names):
        return tokens, labels
    usual = [name for name in INPUT_NAMES if name in names]
    rest = usual or [name for name in names if name != labels]
    if len(rest) != 1:
        raise DataError(
            f"{where}: can't tell the inputs among {', '.join(names) or 'none'}; "
            f"name one of them {' or '.join(INPUT_NAMES[:3])}, or give source.inputs in a spec"
        )
    return (rest[0],), labels


def checked(
    inputs: Mapping[str, NDArray[Any]],
    labels: tuple[str, NDArray[Any]] | None,
    spec: DataSpec,
    where: str,
    wanted: Sequence[Wanted] = (),
) -> ArrayPool:
    """Arrays that every batch can rely on: of the types that the model takes, or where those
    aren't known ``float32``, ``int64``, ``bool`` or 8-bit images.

    Rows with a value that isn't finite, or with a label outside the range, are an error, or are
    left out and counted where the spec says ``on_error = "skip"``.

    Args:
        inputs: One array an input, by name.
        labels: Name and class indices, ``[N]`` or ``[N, 1]``.
        spec: Gives the classes and what to do about bad rows.
        where: The source, for messages.
        wanted: What the model takes, where that is known.

    Raises:
        DataError: A wrong type or shape, counts that differ, no rows, or a bad row.
    """
    known = None if labels is None or not labels[1].ndim else len(labels[1])
    placed = place(inputs, wanted, spec.source.batch_axis, known, where)
    arrays, said = _typed(placed, wanted, where)
    rows = {
        n: rows_first(a, axis) for (n, a), axis in zip(arrays.items(), placed.axes, strict=True)
    }
    first = next(n for n, axis in zip(arrays, placed.axes, strict=True) if axis is not None)
    count = len(rows[first])
    if count == 0:
        raise DataError(f"{where}: array '{first}' has no rows")
    for name, array in arrays.items():
        if array.size == 0:  # of any number of rows, which would each be looked at
            raise DataError(f"{where}: array '{name}' has shape {list(array.shape)}, so no values")
    good = np.ones(count, np.bool_)
    for (name, array), axis in zip(rows.items(), placed.axes, strict=True):
        if axis is not None and len(array) != count:
            raise DataError(
                f"{where}: array '{name}' has {len(array)} rows and '{first}' has {count}"
            )
        good &= _finite_rows(array, f"{where}: array '{name}'", spec.skips and axis is not None)
    numbers = None
    if labels is not None:
        what = f"{where}: labels '{labels[0]}'"
        numbers = _labels(labels[1], what, count)
        good &= _in_range(numbers, spec, what)
    pool = ArrayPool(tuple(arrays.values()), numbers, placed.axes, said)
    if good.all():
        return pool
    if not good.any():
        raise DataError(f"{where}: no row of '{first}' can be used")
    kept = pool.load(np.flatnonzero(good), keep=True, progress=Silent())
    bad = count - len(kept)
    return replace(kept, left_out=(*said, f"{bad} rows with bad values or labels were left out"))


def _typed(
    placed: Placed, wanted: Sequence[Wanted], where: str
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """The arrays in the types that the model takes, and what was cast."""
    needs = list(wanted) if len(wanted) == len(placed.arrays) else [None] * len(placed.arrays)
    found: dict[str, NDArray[Any]] = {}
    notes = []
    for (name, array), need in zip(placed.arrays.items(), needs, strict=True):
        found[name], note = fitted(array, need, f"{where}: array '{name}'")
        notes += [note] if note else []
    return found, tuple(notes)


def _finite_rows(array: NDArray[Any], what: str, skip: bool) -> NDArray[np.bool_]:
    good = np.ones(len(array), np.bool_)
    if array.dtype.kind != "f":
        return good
    for start in range(0, len(array), _SLICE):
        part = array[start : start + _SLICE].reshape(len(array[start : start + _SLICE]), -1)
        good[start : start + _SLICE] = np.isfinite(part).all(1)
    if not skip and not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise DataError(f"{what} has a value in row {row} that isn't finite (NaN or infinite)")
    return good


def _labels(labels: NDArray[Any], what: str, count: int) -> Rows:
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1:
        raise DataError(
            f"{what} have shape {list(labels.shape)}; one class index a sample is needed"
        )
    if len(flat) != count:
        raise DataError(f"{what} have {len(flat)} rows for {count} inputs")
    if flat.dtype.kind not in "iu":
        raise DataError(f"{what} have type {flat.dtype}; they must be integer class indices")
    return flat.astype(np.int64)


def _in_range(labels: Rows, spec: DataSpec, what: str) -> NDArray[np.bool_]:
    classes = spec.source.classes
    limit = len(classes) if isinstance(classes, tuple) else classes
    good = labels >= 0
    if limit is not None:
        good &= labels < limit
    if not spec.skips and not good.all():
        row = int(np.flatnonzero(~good)[0])
        allowed = "0 and more" if limit is None else f"0 to {limit - 1}"
        raise DataError(
            f"{what}: label {labels[row]} in row {row} is out of range; allowed: {allowed}"
        )
    return good


def _alike(train: ArrayPool, evaluation: ArrayPool, where: str) -> None:
    sides = [
        [(a.dtype, list(s)) for a, s in zip(part.inputs, part.sample_shapes, strict=True)]
        for part in (train, evaluation)
    ]
    for (kind, shape), (other, size) in zip(*sides, strict=False):
        if (kind, shape) != (other, size):
            raise DataError(
                f"{where}: training samples are {kind}{shape}, evaluation samples {other}{size}"
            )
    if len(train.inputs) != len(evaluation.inputs):
        raise DataError(f"{where}: the training and evaluation splits have different inputs")
    if (train.labels is None) != (evaluation.labels is None):
        which = "training" if train.labels is None else "evaluation"
        raise DataError(f"{where}: the {which} split has no labels, but the other one has")


def layout_of(array: NDArray[Any], source: Source, where: str) -> Layout | None:
    """Axes of an array of images: the spec's, else by shape and type; ``None`` if it is none.

    Raises:
        DataError: The spec's layout has another number of axes.
    """
    if source.layout is not None:
        if len(source.layout) != array.ndim:
            raise DataError(
                f"{where}: source.layout is {source.layout}, but the first input has shape "
                f"{list(array.shape)}"
            )
        return source.layout
    if array.ndim == 3 and array.dtype == np.uint8:
        return "NHW"
    if array.ndim != 4:
        return None
    if array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        return "NHWC"
    return "NCHW"


def _fact(name: str, array: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    rows = np.atleast_1d(array)
    for start in range(0, len(rows), _SLICE):
        digest.update(np.ascontiguousarray(rows[start : start + _SLICE]).data)
    return f"{name}\t{array.dtype.str}\t{list(array.shape)}\t{digest.hexdigest()}"


def as_arrays(values: Mapping[str, Any], where: str) -> dict[str, NDArray[Any]]:
    """Values of a dictionary as arrays; tensors and sequences are taken over.

    Raises:
        DataError: A value is no array of equal rows.
    """
    found = {}
    for name, value in values.items():
        with calling(f"{where}: '{name}' is no array", DataError):  # it may be an object of theirs
            plain = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
            found[str(name)] = np.asarray(plain)
    return found
