# SPDX-License-Identifier: Apache-2.0
"""Classes: an output that ends in softmax, that labels fit, or that is a decision itself."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.errors import DataError
from edgeprune.tasks.kind import ACCURACY, AGREEMENT, Metric

__all__ = ["Classes", "check_range", "share"]

_NO_DECISION = -1
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Classes:
    """One decision a sample or position: the largest along ``axis``.

    Trained by cross-entropy to the labels; distilled by T^2 * KL(dense || this), both
    distributions at temperature T (Hinton et al. 2015).
    """

    axis: int | None = 1
    """``None``: the output holds whole numbers, which are decisions."""
    groups: tuple[int, ...] = ()
    """Sizes of the softmaxes along ``axis`` where there are several."""
    labelled: bool = False
    normalised: bool = False
    """Whether the output is probabilities though no softmax stands before it."""

    @property
    def metric(self) -> Metric:
        """Accuracy with labels, else agreement."""
        return ACCURACY if self.labelled else AGREEMENT

    @property
    def trainable(self) -> bool:
        """Whether there are scores of classes."""
        return self.axis is not None

    tempered = True
    text = "cross-entropy to the labels"
    distill_text = "KL divergence of the classes"

    def learn(self, found: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy.

        Raises:
            DataError: A label is outside the classes.
        """
        scores = self._first(found)
        check_range(labels, scores.shape[1])
        return F.cross_entropy(scores, labels.long())

    def distill(self, found: Tensor, dense: Tensor, temperature: float) -> Tensor:
        """T^2 * KL, summed over classes and averaged over everything else."""
        pairs = zip(self._parts(found), self._parts(dense), strict=True)
        return torch.stack([_soft(one, other, temperature) for one, other in pairs]).sum()

    def own(self, found: Tensor) -> Tensor:
        """Cross-entropy to the output's own decisions."""
        parts = self._parts(found)
        losses = [F.cross_entropy(part, part.detach().argmax(1)) for part in parts]
        return torch.stack(losses).sum()

    def decide(self, found: Tensor) -> Tensor | None:
        """The largest of each."""
        if self.axis is None:
            return found
        return torch.stack([part.argmax(1) for part in self._parts(found)], 1).squeeze(1)

    def score(
        self, found: NDArray[Any], dense: NDArray[Any], labels: NDArray[Any] | None
    ) -> NDArray[np.float64]:
        """The share of each sample's decisions that are right, or are the dense model's."""
        mine = self._decisions(found)
        wanted = labels if self.labelled and labels is not None else self._decisions(dense)
        return share((mine == wanted) & (mine != _NO_DECISION))

    def _decisions(self, output: NDArray[Any]) -> NDArray[np.int64]:
        """Without ``axis``, or with an index a softmax in its place; -1 where a value isn't
        finite."""
        if self.axis is None:
            return output.astype(np.int64)
        cuts = np.cumsum(self.groups)[:-1]
        decisions = []
        for part in np.split(output, cuts, self.axis) if len(cuts) else (output,):
            found = np.asarray(part.argmax(self.axis), np.int64)
            found[~np.isfinite(part).all(self.axis)] = _NO_DECISION
            decisions.append(found)
        return decisions[0] if len(decisions) == 1 else np.stack(decisions, self.axis)

    def _first(self, found: Tensor) -> Tensor:
        assert self.axis is not None
        scores = found.clamp_min(_SMALLEST).log() if self.normalised else found
        return scores.movedim(self.axis, 1)

    def _parts(self, found: Tensor) -> tuple[Tensor, ...]:
        scores = self._first(found)
        return torch.split(scores, list(self.groups), 1) if len(self.groups) > 1 else (scores,)


def _soft(found: Tensor, dense: Tensor, temperature: float) -> Tensor:
    student = F.log_softmax(found / temperature, 1)
    teacher = F.log_softmax(dense / temperature, 1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1).mean()
    return divergence * temperature**2


def check_range(labels: Tensor, classes: int) -> None:
    """See that labels are classes.

    Raises:
        DataError: One is outside.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"label {low if low < 0 else high} is outside 0..{classes - 1}, the classes of the "
            "model's output"
        )


def share(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of each sample's decisions, ``[N, ...]`` to ``[N]``."""
    return np.asarray(right.reshape(len(right), -1).mean(1), np.float64)
