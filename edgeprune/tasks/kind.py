# SPDX-License-Identifier: Apache-2.0
"""What every kind of output says of itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["ACCURACY", "AGREEMENT", "FIDELITY", "Arrays", "Kind", "Metric", "Runner"]

Arrays = tuple[NDArray[Any], ...]
Runner = Callable[[Arrays], Arrays]


@dataclass(frozen=True)
class Metric:
    """By what an output is judged. Values are shares of one a sample, and higher is better."""

    name: str
    how: str
    """How a sample's value comes about."""
    decisions: bool
    """Whether a sample's value is a share of decisions that are right."""


ACCURACY = Metric("accuracy", "", True)
AGREEMENT = Metric("agreement with the dense model", "", True)
FIDELITY = Metric(
    "fidelity to the dense model", "share of the variance of its outputs that is kept (R2)", False
)


class Kind(Protocol):
    """One output of a model.

    Losses take what stands before a softmax or sigmoid (``endings.logits``) and are means over
    samples; ``score`` takes outputs as the model gives them.
    """

    @property
    def labelled(self) -> bool:
        """Whether the data's labels are about this output."""

    @property
    def trainable(self) -> bool:
        """Whether it has a gradient."""

    @property
    def metric(self) -> Metric:
        """By what it is judged."""

    @property
    def text(self) -> str:
        """The loss against labels in words."""

    @property
    def distill_text(self) -> str:
        """The loss against the dense model in words."""

    @property
    def tempered(self) -> bool:
        """Whether a temperature softens the latter."""

    def learn(self, found: Tensor, labels: Tensor) -> Tensor:
        """The loss against labels, where the output is ``labelled``."""

    def distill(self, found: Tensor, dense: Tensor, temperature: float) -> Tensor:
        """The loss against what the dense model gives."""

    def own(self, found: Tensor) -> Tensor:
        """A loss without labels and dense model: against the output's own decisions, or its size.
        What a change of the output does to it is what matters."""

    def decide(self, found: Tensor) -> Tensor | None:
        """Decisions in training; ``None`` where there are none."""

    def score(
        self, found: NDArray[Any], dense: NDArray[Any], labels: NDArray[Any] | None
    ) -> NDArray[np.float64]:
        """A value a sample, ``[N]``. What isn't finite is never right, and equals nothing."""
