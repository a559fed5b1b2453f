# SPDX-License-Identifier: Apache-2.0
"""How much each weight matters: one score a weight, higher lives.

The formulas are functions of tensors alone; ``Probe`` gets the gradients that some of them need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from edgeprune.context import Context
from edgeprune.data import Batch, Data
from edgeprune.finetune.loop import Loss
from edgeprune.finetune.loss import bind
from edgeprune.finetune.plan import make_plan
from edgeprune.mask import Mask, Network
from edgeprune.model import Model
from edgeprune.tasks import logits
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import Criterion, TicketOptions
from edgeprune.tickets.streams import generator
from edgeprune.tickets.training import Training, need_data

__all__ = [
    "Probe",
    "Scores",
    "fisher",
    "magnitude",
    "mean_gradients",
    "movement",
    "random",
    "saliency",
    "score",
    "squared_gradients",
]

Scores = Mapping[str, Tensor]
"""By name of a weight, of its shape."""


def magnitude(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``|w|`` (Han et al. 2015, Learning both Weights and Connections)."""
    return {name: weight.detach().abs() for name, weight in weights.items()}


def random(network: Network, seed: int) -> dict[str, Tensor]:
    """Uniform numbers: the baseline that every criterion must beat. Each weight tensor has a
    stream of its own."""
    return {
        layer.name: torch.rand(
            layer.shape, dtype=torch.float64, generator=generator(seed, "random", layer.name)
        )
        for layer in network.layers
    }


def saliency(weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``|g * w|``: how much the loss changes when the weight becomes zero, to first order
    (Mozer and Smolensky 1989 and Molchanov et al. 2017 for whole units).

    SNIP's connection sensitivity (Lee et al. 2019) is this score at initialisation divided by its
    sum over all weights, which changes no ranking: SNIP is this criterion, ranked globally, before
    any training.
    """
    return {name: (gradients[name] * weights[name].detach()).abs() for name in gradients}


def fisher(weights: Mapping[str, Tensor], squared: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``w^2 * E[g^2] / 2``: Optimal Brain Damage's ``h w^2 / 2`` (LeCun et al. 1990) with the
    diagonal of the empirical Fisher matrix, the mean squared gradient of single samples, for the
    Hessian's (Theis et al. 2018, Fisher Pruning)."""
    return {name: weights[name].detach().square() * squared[name] / 2 for name in squared}


def movement(
    so_far: Mapping[str, Tensor], weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """``so_far - w * g`` of one training step: weights that move away from zero gain
    (Sanh et al. 2020, Movement Pruning, the learning rate of the scores left out)."""
    return {
        name: so_far[name] - weights[name].detach() * gradient
        for name, gradient in gradients.items()
    }


@dataclass(frozen=True)
class Probe:
    """What a data-driven score looks at: a network in eval mode, the objective of its training, and
    training samples. Each pass is counted in ``ledger``."""

    module: nn.Module
    loss: Loss
    data: Data
    ledger: Ledger
    samples: int
    batch_size: int
    seed: int

    @classmethod
    def of(cls, model: Model, options: TicketOptions, context: Context, ledger: Ledger) -> Probe:
        """Look at a copy of ``model`` with ``options.at_init.samples`` samples.

        Raises:
            DataError: There is no data, or it doesn't fit the model.
            InputError: There is nothing to learn from.
        """
        data = need_data(context, f"{options.method}")
        plan = make_plan(model, options.train, replace(context, dense=None), data)
        loss = bind(plan.objective, None, plan.fixed)
        samples, seed = options.at_init.samples, context.seed
        return cls(logits(model), loss, data, ledger, samples, plan.batch_size, seed)

    @classmethod
    def on(cls, training: Training, samples: int) -> Probe:
        """Look at a network under training, which the caller puts in eval mode."""
        loss = bind(training.plan.objective, None, training.plan.fixed)
        size, seed = training.plan.batch_size, training.context.seed
        return cls(training.module, loss, training.data, training.ledger, samples, size, seed)

    def batches(self, size: int | None = None) -> Iterator[Batch]:
        """The samples, the same each time."""
        return self.data.sample_train(size or self.batch_size, self.samples, self.seed)

    def gradients(self, mask: Mask | None = None) -> dict[str, Tensor]:
        """The gradient of the mean loss over all samples, by weight that a mask may cover."""
        return mean_gradients(self.module, self.loss, self.batches(), self.ledger, mask)

    def squared_gradients(self, mask: Mask | None = None) -> dict[str, Tensor]:
        """The mean over samples of the squared gradient of each one's loss."""
        return squared_gradients(self.module, self.loss, self.batches(1), self.ledger, mask)


def score(
    criterion: Criterion,
    weights: Mapping[str, Tensor],
    network: Network,
    seed: int,
    probe: Callable[[], Probe],
    mask: Mask | None = None,
) -> dict[str, Tensor]:
    """The scores of a network as it is now.

    Args:
        criterion: Any but ``movement``, which is a sum over a training.
        weights: At least those of the network's layers.
        network: Its layers.
        seed: Of random scores.
        probe: Called where gradients are needed.
        mask: In force, for the count of costs.
    """
    own = {layer.name: weights[layer.name].detach() for layer in network.layers}
    if criterion == "magnitude":
        return magnitude(own)
    if criterion == "random":
        return random(network, seed)
    if criterion == "saliency":
        return saliency(own, probe().gradients(mask))
    if criterion == "fisher":
        return fisher(own, probe().squared_gradients(mask))
    raise ValueError(f"'{criterion}' is no score of a single moment")


def mean_gradients(
    module: nn.Module,
    loss: Loss,
    batches: Iterable[Batch],
    ledger: Ledger,
    mask: Mask | None = None,
) -> dict[str, Tensor]:
    """The gradient of the mean loss over all samples, of each weight of ``ledger.network``.

    Args:
        module: In eval mode; its own ``grad`` fields are left alone.
        loss: A mean over the samples of a batch.
        batches: Training samples.
        ledger: Counts the passes.
        mask: In force, for the count; the gradients of masked weights are given too but not
            counted, since a weight that is gone needs no score.
    """
    total, samples = _sums(module, loss, batches, ledger, mask, squared=False)
    return {name: value / samples for name, value in total.items()}


def squared_gradients(
    module: nn.Module,
    loss: Loss,
    batches: Iterable[Batch],
    ledger: Ledger,
    mask: Mask | None = None,
) -> dict[str, Tensor]:
    """The mean over ``batches``, of one sample each, of the squared gradient: the diagonal of the
    empirical Fisher matrix. Arguments as ``mean_gradients``."""
    total, samples = _sums(module, loss, batches, ledger, mask, squared=True)
    return {name: value / samples for name, value in total.items()}


def _sums(
    module: nn.Module,
    loss: Loss,
    batches: Iterable[Batch],
    ledger: Ledger,
    mask: Mask | None,
    *,
    squared: bool,
) -> tuple[dict[str, Tensor], int]:
    named = dict(module.named_parameters(remove_duplicate=False))
    weights = {layer.name: named[layer.name] for layer in ledger.network.layers}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    samples = 0
    with ledger.clock():
        for batch in batches:
            score = loss(module, batch)
            found = torch.autograd.grad(score.loss, list(weights.values()), allow_unused=True)
            for name, gradient in zip(total, found, strict=True):
                if gradient is not None:
                    part = gradient.square() if squared else gradient
                    total[name] += score.samples * part.detach()
            samples += score.samples
            ledger.gradient(score.samples, mask)
    return total, samples
