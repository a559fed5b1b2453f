# SPDX-License-Identifier: Apache-2.0
"""The data of a run: batches for training, holding out, calibration and evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from edgeprune.data.pool import Rows, Samples
from edgeprune.data.spec import Augment
from edgeprune.data.split import generator, pick
from edgeprune.data.transform import Transform
from edgeprune.errors import DataError

__all__ = ["Batch", "Data"]

# First numbers of the random streams, so that no two uses draw the same numbers.
_ORDER, _AUGMENT, _CALIBRATION, _SAMPLE = 1, 2, 3, 4


@dataclass(frozen=True)
class Batch:
    """Samples as the model takes them."""

    inputs: tuple[Tensor, ...]
    """One tensor an input."""
    labels: Tensor | None
    """Class indices ``[N]``, ``int64``; ``None`` without labels."""
    axes: tuple[int | None, ...] | None = None
    """The axis of the samples of each input, ``None`` for one that serves all samples; not given:
    the first axis of each."""

    def __len__(self) -> int:
        """Count of samples."""
        pairs = zip(self.inputs, self._axes(), strict=True)
        return next(tensor.shape[axis] for tensor, axis in pairs if axis is not None)

    @property
    def sample_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of one sample of each input."""
        return tuple(
            tuple(n for place, n in enumerate(t.shape) if place != axis)
            for t, axis in zip(self.inputs, self._axes(), strict=True)
        )

    def take(self, rows: Tensor) -> "Batch":
        """The samples of ``rows``."""
        pairs = zip(self.inputs, self._axes(), strict=True)
        inputs = tuple(t if axis is None else t.index_select(axis, rows) for t, axis in pairs)
        return Batch(inputs, None if self.labels is None else self.labels[rows], self.axes)

    def _axes(self) -> tuple[int | None, ...]:
        return (0,) * len(self.inputs) if self.axes is None else self.axes


@dataclass(frozen=True, eq=False)
class Data:
    """Samples in three parts that share none: training, held out, evaluation.

    Calibration samples are training samples. Every batch is a pure function of the arguments and
    the fingerprint; nothing is drawn from a shared random state.
    """

    name: str
    classes: tuple[str, ...] | None
    """Names in label order, where the source has them."""
    preprocessing: dict[str, Any] | None
    """What turns stored values into inputs, JSON-able; ``None``: they are given as they are."""
    fingerprint: str
    """sha256 over the spec, the seed and what identifies the content; no path."""
    training: Samples
    holding: Samples
    evaluating: Samples
    transform: Transform
    augment: Augment
    """What ``augment="auto"`` means."""
    seed: int
    """Of the calibration's choice."""
    axes: tuple[int | None, ...] | None = None
    """The axis of the samples of each input, as in ``Batch``."""
    calibration_limit: int | None = None
    remarks: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether every sample has a class."""
        return self.training.labels is not None

    @property
    def sizes(self) -> dict[str, int]:
        """Samples in each part; calibration's are among training's."""
        training = len(self.training)
        limit = training if self.calibration_limit is None else self.calibration_limit
        return {
            "train": training,
            "holdout": len(self.holding),
            "calibration": min(limit, training),
            "evaluation": len(self.evaluating),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What was chosen or left out, in words; may grow while images are read on demand."""
        parts = (("training", self.training), ("holdout", self.holding))
        named = (*parts, ("evaluation", self.evaluating))
        found = [f"{name}: {note}" for name, samples in named for note in samples.notes()]
        return (*self.remarks, *found)

    @property
    def largest_label(self) -> int | None:
        """The largest class index in any part."""
        parts = (self.training, self.holding, self.evaluating)
        found = [int(p.labels.max()) for p in parts if p.labels is not None and len(p.labels)]
        return max(found, default=None)

    def train_steps(self, batch_size: int) -> int:
        """Batches in an epoch of ``train``."""
        full, rest = divmod(len(self.training), _positive(batch_size))
        return full + (rest > 1)

    def train(
        self,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        first_step: int = 0,
        augment: Literal["auto"] | Augment = "auto",
    ) -> Iterator[Batch]:
        """Shuffled training batches, from ``first_step`` on as if the ones before had been taken.

        A last batch of one sample is left out, since batch norm can't train on it; it is another
        sample each epoch.

        Raises:
            DataError: ``flip-shift`` is asked for and the input is no image, or a sample can't
                be read.
        """
        chosen = self.augment if augment == "auto" else augment
        if chosen == "flip-shift" and self.transform.layout is None:
            raise DataError(
                f"data {self.name}: augment 'flip-shift' needs images, and the first input "
                "is none; use 'none'"
            )
        steps = self.train_steps(batch_size)
        return self._train(batch_size, range(first_step, steps), (seed, epoch), chosen)

    def _train(
        self, size: int, steps: range, numbers: tuple[int, int], augment: Augment
    ) -> Iterator[Batch]:
        order = generator(_ORDER, *numbers).permutation(len(self.training))
        for step in steps:
            random = generator(_AUGMENT, *numbers, step) if augment == "flip-shift" else None
            yield self._batch(self.training, order[step * size : (step + 1) * size], random)

    def holdout(self, batch_size: int) -> Iterator[Batch]:
        """Samples of the training split that are never trained on, for early stopping."""
        return self._in_order(self.holding, np.arange(len(self.holding)), batch_size)

    def evaluation(self, batch_size: int) -> Iterator[Batch]:
        """All evaluation samples, in a fixed order."""
        return self._in_order(self.evaluating, np.arange(len(self.evaluating)), batch_size)

    def calibration(self, batch_size: int, count: int) -> Iterator[Batch]:
        """At most ``count`` training samples, evenly over the classes, the same each time."""
        count = min(_positive(count), self.sizes["calibration"])
        return self._in_order(self.training, self._pick(count, _CALIBRATION, self.seed), batch_size)

    def sample_train(self, batch_size: int, count: int, seed: int) -> Iterator[Batch]:
        """At most ``count`` training samples chosen by ``seed``, evenly over the classes."""
        return self._in_order(
            self.training, self._pick(_positive(count), _SAMPLE, seed), batch_size
        )

    def example(self) -> tuple[Tensor, ...]:
        """The inputs of one batch of two training samples."""
        found: list[Batch] = []
        for batch in self._in_order(self.training, np.arange(len(self.training)), 2):
            found.append(batch)
            if sum(len(each) for each in found) >= 2:
                break
        axes = self.axes or (0,) * len(found[0].inputs)
        columns = zip(zip(*(each.inputs for each in found), strict=True), axes, strict=True)
        return tuple(
            parts[0] if axis is None else torch.cat(parts, axis).narrow(axis, 0, 2)
            for parts, axis in columns
        )

    def _pick(self, count: int, stream: int, seed: int) -> Rows:
        rows = np.arange(len(self.training))
        return pick(rows, self.training.labels, count, generator(stream, seed))

    def _in_order(self, samples: Samples, rows: Rows, batch_size: int) -> Iterator[Batch]:
        starts = range(0, len(rows), _positive(batch_size))
        return (self._batch(samples, rows[i : i + batch_size], None) for i in starts)

    def _batch(self, samples: Samples, rows: Rows, random: np.random.Generator | None) -> Batch:
        stored, kept = samples.take(rows)
        if len(kept) == 0:
            raise DataError(f"data {self.name}: none of {len(rows)} images of a batch can be read")
        labels = None if samples.labels is None else torch.from_numpy(samples.labels[kept])
        return Batch(self.transform(stored, random), labels, self.axes)


def _positive(number: int) -> int:
    if number < 1:
        raise ValueError(f"a count of samples must be at least 1, not {number}")
    return number
