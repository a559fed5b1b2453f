# SPDX-License-Identifier: Apache-2.0
"""Probabilities of their own: an output that ends in sigmoid."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.tasks.classes import check_range, share
from edgeprune.tasks.kind import ACCURACY, Metric
from edgeprune.tasks.values import Values

__all__ = ["Probabilities"]


@dataclass(frozen=True)
class Probabilities:
    """Trained by binary cross-entropy, to the labels or to the dense model's probabilities.

    Without labels they are judged as values: nothing says that one half is where they decide.
    """

    values: Values
    labels: Literal["none", "index", "binary"] = "none"
    """``index``: a label names the class along axis 1 that is true; ``binary``: labels are 0 and 1,
    for one output a sample or for each element."""

    @property
    def labelled(self) -> bool:
        """Whether the data's labels are about this output."""
        return self.labels != "none"

    @property
    def metric(self) -> Metric:
        """Accuracy with labels, else fidelity."""
        return ACCURACY if self.labelled else self.values.metric

    trainable = True
    tempered = True
    text = "binary cross-entropy to the labels"
    distill_text = "KL divergence of each probability"

    def learn(self, found: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy, summed over classes.

        Where one class is true its mean with the cross-entropy over all classes: binary alone first
        learns that most aren't true, long before it tells which one is.

        Raises:
            DataError: A label is outside the classes.
        """
        if self.labels == "index":
            check_range(labels, found.shape[1])
            wanted = F.one_hot(labels.long(), found.shape[1]).to(found.dtype)
            return (_summed(found, wanted) + F.cross_entropy(found, labels.long())) / 2
        check_range(labels, 2)
        return _summed(found, labels.reshape(found.shape).to(found.dtype))

    def distill(self, found: Tensor, dense: Tensor, temperature: float) -> Tensor:
        """T^2 * KL of each probability, as for classes."""
        wanted = (dense / temperature).sigmoid()
        loss = _summed(found / temperature, wanted) - _summed(dense / temperature, wanted)
        return loss * temperature**2

    def own(self, found: Tensor) -> Tensor:
        """Binary cross-entropy to the output's own decisions."""
        return _summed(found, (found.detach() > 0).to(found.dtype))

    def decide(self, found: Tensor) -> Tensor | None:
        """The likeliest class, or what is more likely than not; none without labels."""
        if self.labels == "none":
            return None
        return found.argmax(1) if self.labels == "index" else (found > 0).long()

    def score(
        self, found: NDArray[Any], dense: NDArray[Any], labels: NDArray[Any] | None
    ) -> NDArray[np.float64]:
        """The share of right decisions, or of the variance kept."""
        if self.labels == "none" or labels is None:
            return self.values.score(found, dense, labels)
        finite = np.isfinite(found)
        if self.labels == "index":
            return share((found.argmax(1) == labels) & finite.all(1))
        return share(((found > 0.5) == labels.reshape(found.shape)) & finite)


def _summed(found: Tensor, wanted: Tensor) -> Tensor:
    """Summed over the classes of ``[N, C]``, averaged over everything else."""
    loss = F.binary_cross_entropy_with_logits(found, wanted, reduction="none")
    return loss.sum(1).mean() if loss.ndim == 2 else loss.mean()
