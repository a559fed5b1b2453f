# SPDX-License-Identifier: Apache-2.0
"""Which output of a model is what: from how its graph ends, from the labels, and from what the
model answers to some training samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.data import Data
from edgeprune.errors import DataError
from edgeprune.tasks.classes import Classes
from edgeprune.tasks.endings import Ending
from edgeprune.tasks.kind import Arrays, Kind, Runner
from edgeprune.tasks.probabilities import Probabilities
from edgeprune.tasks.values import Spread, Values

__all__ = ["Task", "read"]

_SAMPLES, _BATCH = 256, 32
_SUM_ERROR = 1e-3
"""By how much the sum of probabilities may miss one."""
_DEVIATIONS = 3.0
"""Standard deviations by which more labels must be right than by chance."""

Labels = Literal["index", "binary"]


@dataclass(frozen=True)
class Task:
    """What each output of a model is."""

    outputs: tuple[Kind, ...]
    notes: tuple[str, ...] = ()
    """What isn't obvious of it."""

    @property
    def labelled(self) -> tuple[int, ...]:
        """The outputs that the data's labels are about."""
        return tuple(i for i, output in enumerate(self.outputs) if output.labelled)


def read(
    data: Data, run: Runner, ends: Sequence[Ending] = (), *, only_labels: bool = False
) -> Task:
    """Tell what the outputs of a model are.

    Classes are

    - what ends in softmax or log-softmax, what stands before one that is an output too, and what
      sums to one along an axis;
    - whole numbers;
    - what the labels fit: an output with as many classes along axis 1 as the data has, or with
      more where its largest value is the label more often than chance has it. Of several outputs
      those that end in softmax come first.

    What ends in sigmoid is probabilities, with labels where they fit. Everything else is values: an
    embedding ``[N, 256]``, boxes, anchors and maps tell nothing of classes.

    Args:
        data: Its training samples are looked at.
        run: The model, dense as a rule.
        ends: How its outputs end; absent: all open.
        only_labels: Whether there is nothing but labels to learn from (the model isn't trained):
            then they belong to the first output whose shape they fit.

    Raises:
        DataError: A label is outside the classes of the model's only output.
    """
    seen = _Seen.of(data, run)
    if len(ends) != len(seen.first):
        ends = [Ending()] * len(seen.first)
    found = [_probable(output, end) for output, end in zip(seen.first, ends, strict=True)]
    chosen, notes = _about_labels(seen, found, only_labels)
    kinds = (
        _kind(seen, place, end, place in chosen, ends[place]) for place, end in enumerate(found)
    )
    return Task(tuple(kinds), notes)


@dataclass
class _Seen:
    """What the model answers to some training samples; more are looked at when they are needed."""

    data: Data
    run: Runner
    first: Arrays
    labels: NDArray[np.int64] | None
    classes: int
    """How many the data has; 0 without labels."""
    more: list[tuple[Arrays, NDArray[np.int64] | None]] = field(default_factory=list)

    @classmethod
    def of(cls, data: Data, run: Runner) -> _Seen:
        batch = next(iter(data.calibration(_BATCH, _BATCH)))
        labels = None if batch.labels is None else batch.labels.numpy()
        names = len(data.classes or ()), (data.largest_label or 0) + 1
        first = run(tuple(part.numpy() for part in batch.inputs))
        return cls(data, run, first, labels, 0 if labels is None else max(names))

    def spread(self, place: int) -> Spread:
        """Of an output over the samples."""
        spread = Spread(max(1, self.first[place].ndim))
        for outputs in self._all():
            spread.add(outputs[0][place])
        return spread

    def knows(self, place: int, axis: int | None) -> bool:
        """Whether an output's largest values are the labels more often than by chance."""
        pairs = []
        for outputs, labels in self._all():
            output = outputs[place]
            pairs.append((output if axis is None else output.argmax(axis), labels))
        mine = np.concatenate([pair[0].reshape(-1) for pair in pairs])
        true = np.concatenate([pair[1].reshape(-1) for pair in pairs])  # type: ignore[union-attr]
        values, places = np.unique(np.concatenate([mine, true]), return_inverse=True)
        shares = [
            np.bincount(part, minlength=len(values)) / len(true)
            for part in np.split(places.reshape(-1), 2)
        ]
        chance = float((shares[0] * shares[1]).sum())
        noise = np.sqrt(chance * (1 - chance) / len(true))
        return bool((mine == true).mean() > chance + _DEVIATIONS * noise + 1 / len(true))

    def _all(self) -> list[tuple[Arrays, NDArray[np.int64] | None]]:
        if not self.more:
            for batch in self.data.calibration(_BATCH, _SAMPLES):
                labels = None if batch.labels is None else batch.labels.numpy()
                self.more.append((self.run(tuple(p.numpy() for p in batch.inputs)), labels))
        return self.more


def _probable(output: NDArray[Any], end: Ending) -> Ending:
    """An open output that is probabilities by its values is as one that ends in softmax."""
    if end.kind != "open" or output.dtype.kind != "f" or not (output >= 0).all():
        return end
    for axis in sorted({1, output.ndim - 1} - {0}):
        if axis < output.ndim and output.shape[axis] > 1:
            sums = output.sum(axis, dtype=np.float64)
            if np.abs(sums - 1).max() < _SUM_ERROR:
                return Ending("softmax", axis, (output.shape[axis],))
    return end


def _about_labels(
    seen: _Seen, ends: Sequence[Ending], only_labels: bool
) -> tuple[frozenset[int], tuple[str, ...]]:
    """The outputs that the labels are about, and why there is none."""
    if seen.labels is None:
        return frozenset(), ()
    _check_labels(seen)
    fits = [i for i, end in enumerate(ends) if _fits(seen, i, end)]
    whole = {i for i in fits if seen.first[i].dtype.kind in "iub"}
    sure = [i for i in fits if ends[i].groups]
    for tier in (sure, [i for i in fits if i not in whole and i not in sure]):
        exact = [i for i in tier if _size(seen, i, ends[i]) in (1, seen.classes)]
        known = exact if len(exact) == 1 else [i for i in tier if _knows(seen, i, ends[i])]
        known = known or exact[:1] or (tier[:1] if only_labels or (tier is sure) else [])
        if known:
            return frozenset(known) | whole, ()
    if whole:
        return frozenset(whole), ()
    shapes = ", ".join(str(list(output.shape)) for output in seen.first)
    text = (
        f"labels not used: {seen.classes} classes aren't evidently what the model's outputs "
        f"({shapes}) tell"
    )
    return frozenset(), (text,)


def _check_labels(seen: _Seen) -> None:
    """Labels outside of a classifier's only output are a mistake of the data."""
    (output, *others), labels = seen.first, seen.labels
    if others or output.ndim != 2 or output.dtype.kind != "f" or labels is None:
        return
    count, largest = output.shape[1], seen.data.largest_label
    if labels.ndim == 1 and count > 1 and largest is not None and largest >= count:
        names = seen.data.classes
        name = f" ('{names[largest]}')" if names and largest < len(names) else ""
        raise DataError(
            f"data {seen.data.name}: label {largest}{name} is outside the model's output, "
            f"which has {count} classes (0 to {count - 1})"
        )


def _fits(seen: _Seen, place: int, end: Ending) -> bool:
    """Whether labels could be about an output, by its shape."""
    output, labels = seen.first[place], seen.labels
    assert labels is not None
    if output.dtype.kind in "iub":
        return output.shape == labels.shape
    if end.kind == "sigmoid" and _labels(seen, place) == "binary":
        return output.size == labels.size and seen.classes <= 2 and output.ndim > 0
    axis = _axis(output, end)
    if axis is None or len(end.groups) > 1 or output.shape[axis] < max(2, seen.classes):
        return False
    return labels.shape == (*output.shape[:axis], *output.shape[axis + 1 :])


def _labels(seen: _Seen, place: int) -> Labels:
    """How labels speak of probabilities."""
    output, labels = seen.first[place], seen.labels
    return "index" if labels is not None and output.size > labels.size else "binary"


def _axis(output: NDArray[Any], end: Ending) -> int | None:
    """The axis that classes would have."""
    if end.groups:
        return end.axis
    return 1 if output.ndim > 1 and output.dtype.kind == "f" else None


def _size(seen: _Seen, place: int, end: Ending) -> int:
    output = seen.first[place]
    if end.kind == "sigmoid" and _labels(seen, place) == "binary":
        return 1
    axis = _axis(output, end)
    return 0 if axis is None else output.shape[axis]


def _knows(seen: _Seen, place: int, end: Ending) -> bool:
    if _size(seen, place, end) == 1:
        return True
    return seen.knows(place, _axis(seen.first[place], end))


def _kind(seen: _Seen, place: int, end: Ending, labelled: bool, graph: Ending) -> Kind:
    output = seen.first[place]
    if output.dtype.kind in "iub":
        return Classes(None, (), labelled)
    if end.kind == "sigmoid":
        how: Labels | Literal["none"] = _labels(seen, place) if labelled else "none"
        return Probabilities(Values(seen.spread(place).variance()), how)
    if end.groups or labelled:
        axis = _axis(output, end)
        return Classes(axis, end.groups, labelled, normalised=end is not graph)
    return Values(seen.spread(place).variance())
