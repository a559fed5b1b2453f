# SPDX-License-Identifier: Apache-2.0
"""Data made by Python: the user's ``package.module:function``, and scikit-learn's digits."""

import hashlib
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.data.arrays import ArrayPool, as_arrays, checked, found_arrays, layout_of
from edgeprune.data.fitting import is_picture, takes_integers, unstacked
from edgeprune.data.pool import Found, Rows, watched
from edgeprune.data.spec import DataSpec
from edgeprune.errors import DataError, MissingExtra, calling
from edgeprune.model import Wanted
from edgeprune.progress import Progress

__all__ = ["open_digits", "open_factory"]


def open_digits(spec: DataSpec, wanted: Sequence[Wanted] = ()) -> Found:
    """The 1797 handwritten digits inside scikit-learn: ``[N, 8, 8]``, values 0 to 16.

    Raises:
        MissingExtra: scikit-learn isn't installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtra("scikit-learn", "compress") from None
    images, labels = load_digits().images, load_digits().target
    arrays: dict[str, NDArray[Any]] = {"x": images.astype(np.uint8), "y": labels}
    return found_arrays(arrays.__getitem__, list(arrays), spec, "digits", wanted)


def open_factory(
    spec: DataSpec, memory: int, seed: int, progress: Progress, wanted: Sequence[Wanted] = ()
) -> Found:
    """What the user's function returns: a dictionary of arrays, or a torch ``Dataset``.

    A dataset gives ``x``, ``(x, y)``, or ``(x, ..., y)`` for several inputs; ``y`` is an integer
    class index. It is gone through once, and kept where it fits into ``memory`` bytes. Transforms
    that draw from torch's random numbers draw from ``seed``.

    Raises:
        DataError: The function can't be imported, fails, or returns something else.
    """
    where = str(spec.source.factory)
    with _current_folder_importable(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with calling(where, DataError):
            made = _call(where)
            arrays = as_arrays(made, where) if isinstance(made, Mapping) else None
            listed = hasattr(made, "__getitem__") and hasattr(made, "__len__")
        if arrays is not None:
            return found_arrays(arrays.__getitem__, list(arrays), spec, where, wanted)
        if listed:
            return _open_dataset(made, spec, where, memory, progress, wanted)
    raise DataError(
        f"{where}: returned {type(made).__name__}; needed is a dictionary of arrays, or a torch "
        "Dataset with __getitem__ and __len__"
    )


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _call(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)()


@dataclass(frozen=True)
class _Items:
    """A torch dataset that doesn't fit into memory: its items are made when they are taken."""

    dataset: Any
    rows: Rows
    labels: Rows | None
    spec: DataSpec
    where: str
    wanted: Sequence[Wanted]
    sample_bytes: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, rows: Rows, *, keep: bool, progress: Progress) -> "_Items":
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, rows=self.rows[rows], labels=labels)

    def batch(self, rows: Rows) -> ArrayPool:
        """The items of ``rows`` as the model takes them."""
        items = [_item(self.dataset, row, self.where)[0] for row in self.rows[rows].tolist()]
        columns = _stacked(items, self.where)
        arrays, axes = unstacked(columns, self.wanted, self.spec.source.batch_axis, self.where)
        spec = _with_source(self.spec, batch_axis=axes)
        return checked(arrays, None, spec, self.where, self.wanted)

    def take(self, rows: Rows) -> tuple[tuple[Tensor, ...], Rows]:
        return tuple(torch.from_numpy(array) for array in self.batch(rows).inputs), rows

    def notes(self) -> tuple[str, ...]:
        return ()


def _open_dataset(
    dataset: Any,
    spec: DataSpec,
    where: str,
    memory: int,
    progress: Progress,
    wanted: Sequence[Wanted],
) -> Found:
    with calling(where, DataError):
        count = len(dataset)
    if count == 0:
        raise DataError(f"{where}: returned an empty dataset")
    first, _ = _item(dataset, 0, where)
    keep = sum(array.nbytes for array in first) * count <= memory
    kept: list[tuple[NDArray[Any], ...]] = []
    labels: list[int | None] = []
    digest = hashlib.sha256()
    for row in watched(range(count), f"reading {where}", progress):
        inputs, label = _item(dataset, row, where)
        labels.append(label)
        for array in inputs:
            digest.update(np.ascontiguousarray(array).data)
        if keep:
            kept.append(inputs)
        elif not all(np.isfinite(array).all() for array in inputs if array.dtype.kind == "f"):
            raise DataError(f"{where}: item {row} has a value that isn't finite (NaN or infinite)")
    known = [label for label in labels if label is not None]
    if known and len(known) < len(labels):
        raise DataError(
            f"{where}: {len(known)} of {len(labels)} items have labels; all or none must"
        )
    if keep:
        return _in_memory(_stacked(kept, where), known, spec, where, wanted)
    plain = _with_source(spec, batch_axis=())
    every = {"items": np.arange(count)}
    numbers = checked(every, ("y", np.array(known)) if known else None, plain, where)
    pool = _Items(dataset, numbers.inputs[0], numbers.labels, spec, where, wanted)
    sample = pool.batch(np.arange(1))
    one, whole = sample.inputs[0], sample.axes[0] == 0
    return Found(
        train=pool,
        evaluation=None,
        classes=spec.source.classes if isinstance(spec.source.classes, tuple) else None,
        shape=sample.sample_shapes[0],
        eight_bit=is_picture(one) and not takes_integers(wanted[0] if wanted else None),
        layout=layout_of(one, spec.source, where) if whole else None,
        preprocessing=spec.preprocessing,
        facts=(f"{count} items\t{digest.hexdigest()}\t{known}",),
        notes=(*numbers.left_out, *sample.left_out),
        axes=sample.axes,
    )


def _with_source(spec: DataSpec, **changes: Any) -> DataSpec:
    return spec.model_copy(update={"source": spec.source.model_copy(update=changes)})


def _in_memory(
    columns: dict[str, NDArray[Any]],
    labels: list[int],
    spec: DataSpec,
    where: str,
    wanted: Sequence[Wanted],
) -> Found:
    arrays, axes = unstacked(columns, wanted, spec.source.batch_axis, where)
    names: dict[str, Any] = {"inputs": tuple(arrays), "train": None, "evaluation": None}
    if labels:
        arrays = {**arrays, "y": np.array(labels)}
        names["labels"] = "y"
    named = _with_source(spec, batch_axis=axes, **names)
    return found_arrays(arrays.__getitem__, list(arrays), named, where, wanted)


def _item(dataset: Any, row: int, where: str) -> tuple[tuple[NDArray[Any], ...], int | None]:
    """Inputs and label of one item."""
    with calling(f"{where}: item {row}", DataError):
        item = dataset[row]
        parts = list(item) if isinstance(item, (tuple, list)) else [item]
        if len(parts) > 1 and isinstance(parts[0], (tuple, list)):
            parts = [*parts[0], *parts[1:]]
    if not parts:
        raise DataError(f"{where}: item {row}: has no inputs")
    label = None
    if len(parts) > 1:
        last = as_arrays({"y": parts[-1]}, where)["y"]
        if last.ndim == 0 and last.dtype.kind in "iu":
            label = int(last)
            parts.pop()
        elif last.size == 1:
            raise DataError(f"{where}: item {row}: label {parts[-1]!r} is no integer class index")
    arrays = as_arrays({f"input {i}": part for i, part in enumerate(parts)}, where)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise DataError(
                f"{where}: item {row}: {name} has type {array.dtype}; "
                "allowed: tensors and arrays of floats, integers, bool"
            )
    return tuple(arrays.values()), label


def _stacked(items: list[tuple[NDArray[Any], ...]], where: str) -> dict[str, NDArray[Any]]:
    if len({len(item) for item in items}) > 1:
        raise DataError(f"{where}: items have different numbers of inputs")
    try:
        columns = [np.stack(column) for column in zip(*items, strict=True)]
    except ValueError:
        shapes = sorted({str(list(array.shape)) for item in items for array in item[:1]})
        raise DataError(
            f"{where}: items have different shapes ({', '.join(shapes[:3])}); all must be equal"
        ) from None
    return {f"input {i}": column for i, column in enumerate(columns)}
