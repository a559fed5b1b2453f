# SPDX-License-Identifier: Apache-2.0
"""What a criterion is given, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeprune.channels import Branch, Groups
from edgeprune.data import Batch
from edgeprune.model import Model
from edgeprune.tasks import Kind

__all__ = ["Criterion", "Samples", "Scores", "Subject"]

Scores = NDArray[np.float64]
"""One for each channel, then one for each branch, higher is dearer; NaN where a criterion has
nothing to say."""


@dataclass(frozen=True)
class Samples:
    """Training data, to be gone through once."""

    batches: Iterator[Batch]
    kinds: Sequence[Kind]
    """What the outputs are: the loss is the sum over them."""
    total: int
    """Of all batches."""
    advance: Callable[[int], None] = lambda _: None
    """Called with the size of each batch that is done."""


@dataclass(frozen=True)
class Subject:
    """The model whose channels and branches are scored."""

    model: Model
    groups: Groups
    branches: Sequence[Branch] = ()
    seed: int = 0
    samples: Samples | None = None
    """Given to each criterion that says that it needs them."""

    @property
    def drawn(self) -> Samples:
        """The samples of a criterion that needs them."""
        assert self.samples is not None
        return self.samples


@dataclass(frozen=True)
class Criterion:
    """One way to score."""

    score: Callable[[Subject], Scores]
    needs: Literal["weights", "samples", "gradients"] = "weights"
    """``samples``: inputs too; ``gradients``: those, and a loss of which to take gradients."""
