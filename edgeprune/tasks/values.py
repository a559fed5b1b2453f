# SPDX-License-Identifier: Apache-2.0
"""Values: an output that isn't evidently classes, such as boxes, landmarks, embeddings, maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.tasks.kind import FIDELITY

__all__ = ["Spread", "Values"]

_UNLIKE = 10.0
"""Slices whose spreads differ by more than this factor are measured each by its own."""
_STILL = 1e-2
"""Least variance that errors are measured by, of the mean square: of an output that hardly varies
(by less than a tenth of its size) the rounding of its size itself would look like a loss."""
_MOST_SLICES = 65536


@dataclass(frozen=True)
class Values:
    """Trained by, and judged by, the squared error in units of the dense model's variance.

    The variance is that of the whole output over samples and elements, or of each slice along an
    axis where slices have spreads of their own (boxes in pixels beside scores below one).
    """

    variance: NDArray[np.float64]
    """Broadcasts against an output."""

    labelled = False
    metric = FIDELITY
    trainable = True
    tempered = False
    text = ""
    distill_text = "squared error in units of the variance"

    def learn(self, found: Tensor, labels: Tensor) -> Tensor:
        """Not for values.

        Raises:
            TypeError: Always.
        """
        raise TypeError("labels are never about values")

    def distill(self, found: Tensor, dense: Tensor, temperature: float) -> Tensor:
        """Mean squared error in units of the variance."""
        return ((found - dense).square() / self._scale(found)).mean()

    def own(self, found: Tensor) -> Tensor:
        """Half the mean square in units of the variance."""
        return (found.square() / self._scale(found)).mean() / 2

    def decide(self, found: Tensor) -> Tensor | None:
        """Nothing is decided."""
        return None

    def score(
        self, found: NDArray[Any], dense: NDArray[Any], labels: NDArray[Any] | None
    ) -> NDArray[np.float64]:
        """One minus each sample's squared error in units of the variance; 0 where a value isn't
        finite. It may be negative."""
        wanted, got = (np.atleast_1d(each).astype(np.float64) for each in (dense, found))
        with np.errstate(invalid="ignore", over="ignore"):
            error = (got - wanted) ** 2 / self.variance
            kept = 1 - error.reshape(len(error), -1).mean(1)
        return np.where(np.isfinite(kept), kept, 0.0)

    def _scale(self, found: Tensor) -> Tensor:
        return torch.as_tensor(self.variance, dtype=found.dtype)


@dataclass
class Spread:
    """Sums over the samples of an output, batch by batch, for its variance."""

    rank: int
    """Dimensions of the output, samples included; at least one."""
    sums: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    """By axis: count, sum and sum of squares, each by slice; axis 0 stands for all in one."""

    def add(self, output: NDArray[Any]) -> None:
        """Count a batch; samples with values that aren't finite are left out."""
        output = np.atleast_1d(output)
        flat = output.reshape(len(output), -1)
        values = output[np.isfinite(flat).all(1)].astype(np.float64)
        for axis in {0, min(1, self.rank - 1), self.rank - 1}:
            if axis and output.shape[axis] > _MOST_SLICES:
                continue
            others = tuple(i for i in range(self.rank) if i != axis or axis == 0)
            parts = [np.ones_like(values), values, values**2]
            sums = np.array([np.atleast_1d(part.sum(others)) for part in parts])
            self.sums[axis] = self.sums.get(axis, 0.0) + sums

    def variance(self) -> NDArray[np.float64]:
        """To measure errors by: positive, broadcasts against the output."""
        whole = _variance(*self.sums[0][:, 0]) or 1.0
        widest, best = _UNLIKE, np.full((1,) * self.rank, whole)
        for axis in sorted(self.sums.keys() - {0}):
            each = np.array([_variance(*slice_) or whole for slice_ in self.sums[axis].T])
            ratio = float(np.sqrt(each.max() / each.min())) if each.size else 1.0
            if ratio > widest:
                shape = [1] * self.rank
                shape[axis] = each.size
                widest, best = ratio, each.reshape(shape)
        return best


def _variance(count: float, total: float, squares: float) -> float:
    if not count:
        return 0.0
    power = squares / count
    return float(max(power - (total / count) ** 2, _STILL * power))
