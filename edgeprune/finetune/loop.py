# SPDX-License-Identifier: Apache-2.0
"""The training loop, and its counterpart that only looks. Both know no stage, file or option."""

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeprune.data import Batch
from edgeprune.errors import InputError

__all__ = ["Loss", "Score", "Step", "Totals", "evaluate", "train"]


@dataclass(frozen=True)
class Score:
    """What a loss says of one batch: ``loss`` is a mean over its ``samples`` (a scalar tensor that
    carries the gradient); ``right`` of ``judged`` predictions met their target."""

    loss: Tensor
    samples: int
    right: int = 0
    judged: int = 0


@dataclass
class Totals:
    """Scores added up."""

    loss: float = 0.0
    samples: int = 0
    right: int = 0
    judged: int = 0

    def add(self, score: Score) -> None:
        """Count one more batch."""
        self.loss += score.loss.item() * score.samples
        self.samples += score.samples
        self.right += score.right
        self.judged += score.judged

    @property
    def mean_loss(self) -> float:
        """Over samples; NaN where there are none."""
        return self.loss / self.samples if self.samples else math.nan

    @property
    def percent(self) -> float | None:
        """Share of right predictions; absent where none was judged."""
        return 100 * self.right / self.judged if self.judged else None


@dataclass(frozen=True)
class Step:
    """An optimizer step that was done: how many there were with it, its rate, its batch's score."""

    done: int
    rate: float
    score: Score


Loss = Callable[[nn.Module, Batch], Score]


def train(
    module: nn.Module,
    batches: Iterable[tuple[int, Batch]],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    after_step: Callable[[Step], None],
    seed: int,
) -> None:
    """Train ``module`` in place on ``batches``, which are numbered by their global step from 0.

    Random numbers inside the module (dropout) depend on ``seed`` and the step's number only, so a
    run that starts again at any step goes on exactly as it would have. The caller's own random
    state is left as it was.

    Args:
        module: In training mode already; its parameters are the optimizer's.
        batches: Number and batch of each step.
        loss: Gives the score of the module on a batch.
        optimizer: Its rate is set before each step, in all groups.
        schedule: Learning rate by step number.
        after_step: Called after each update of the weights.
        seed: Of the module's random numbers.

    Raises:
        InputError: The loss is no longer finite.
    """
    with torch.random.fork_rng(devices=[]):
        for number, batch in batches:
            torch.manual_seed(_step_seed(seed, number))
            rate = schedule(number)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            score = loss(module, batch)
            value = score.loss.item()
            if not math.isfinite(value) and not number:
                raise InputError(
                    f"fine-tune: the loss is {value} before any step: the model gives NaN or "
                    "infinity, or much too large values, for training samples"
                )
            if not math.isfinite(value):
                raise InputError(
                    f"fine-tuning diverged: the loss is {value} at step {number + 1}, with "
                    f"learning rate {rate:.3g}; set a lower learning_rate or a longer warmup"
                )
            score.loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            after_step(Step(number + 1, rate, score))


@torch.no_grad()
def evaluate(
    module: nn.Module, batches: Iterable[Batch], loss: Loss, after_batch: Callable[[], None]
) -> Totals:
    """Add up the scores of ``module``, which is in eval mode already, on ``batches``."""
    totals = Totals()
    for batch in batches:
        totals.add(loss(module, batch))
        after_batch()
    return totals


def _step_seed(seed: int, step: int) -> int:
    # Hashed, since torch's CPU generator keeps the low 32 bits of a seed only.
    return int.from_bytes(hashlib.sha256(f"{seed}:{step}".encode()).digest()[:4])
