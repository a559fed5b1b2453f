# SPDX-License-Identifier: Apache-2.0
"""GraSP: preserve the strength of the gradient (Wang, Zhang and Grosse 2020)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from edgeprune.context import Context
from edgeprune.data import Batch
from edgeprune.finetune.loop import Score
from edgeprune.mask import Mask
from edgeprune.model import Model
from edgeprune.tickets.at_init.steps import batches, check_scores, find_on_data
from edgeprune.tickets.found import Found, Work
from edgeprune.tickets.options import TicketOptions
from edgeprune.tickets.scores import Probe, Scores, mean_gradients

__all__ = ["find", "preservation"]


def find(model: Model, options: TicketOptions, context: Context, work: Work) -> Found:
    """Remove the weights whose removal raises the norm of the gradient, or lowers it least.

    Setting weight w to zero changes ||g||^2 by 2 S to first order, S = -w * (H g). The weights
    with the largest S go, as in the released code, so the score is w * (H g) = -S: higher
    lives. g and H are those of the weights that a mask may cover, of the loss at outputs divided
    by the temperature (200 in the paper). One step, unless ``iterations`` says more: then the
    score is taken again in the pruned network.

    Batch norms use the statistics of the batch, as in the released code, and dropout is off.

    Raises:
        InputError: Nothing to learn from, a density that can't be met, or all scores are zero.
        DataError: There is no data, or it doesn't fit the model.
    """
    temperature = options.at_init.temperature

    def score(probe: Probe, mask: Mask) -> Scores:
        return preservation(probe, mask, temperature)

    return find_on_data(model, options, context, score, temperature=temperature)


def preservation(probe: Probe, mask: Mask, temperature: float) -> Scores:
    """Score w * (H g) of the network as it is, divided by the sum of its absolute values.

    Raises:
        InputError: All are zero.
    """
    named = dict(probe.module.named_parameters(remove_duplicate=False))
    weights = {layer.name: named[layer.name] for layer in probe.ledger.network.layers}
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        product = _hessian_gradient(probe, mask, weights, temperature)
    scores = {name: weights[name].detach() * product[name] for name in weights}
    total = check_scores(scores, "grasp")
    return {name: value / total for name, value in scores.items()}


def _hessian_gradient(
    probe: Probe, mask: Mask, weights: Mapping[str, Tensor], temperature: float
) -> dict[str, Tensor]:
    """H g by weight: the gradient of g(w) . g with the second g held constant (Pearlmutter 1994),
    batch by batch. It is counted as two gradients."""

    def loss(module: nn.Module, batch: Batch) -> Score:
        return probe.loss(_Tempered(module, temperature), batch)

    held = mean_gradients(probe.module, loss, batches(probe), probe.ledger, mask)
    leaves = list(weights.values())
    total = {name: torch.zeros_like(value) for name, value in held.items()}
    samples = 0
    with probe.ledger.clock():
        for batch in batches(probe):
            found = torch.autograd.grad(
                loss(probe.module, batch).loss, leaves, create_graph=True, materialize_grads=True
            )
            pairs = zip(found, (held[name] for name in weights), strict=True)
            overlap = torch.stack([(g * h).sum() for g, h in pairs]).sum()
            if overlap.requires_grad:
                moved = torch.autograd.grad(overlap, leaves, materialize_grads=True)
                for name, value in zip(weights, moved, strict=True):
                    total[name] += len(batch) * value
            samples += len(batch)
            for _ in range(2):
                probe.ledger.gradient(len(batch), mask, dense_weights=True)
    return {name: value / samples for name, value in total.items()}


class _Tempered(nn.Module):
    """A network whose float outputs are divided by a temperature."""

    def __init__(self, module: nn.Module, temperature: float) -> None:
        super().__init__()
        self.module, self.temperature = module, temperature

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = self.module(*inputs)
        outputs = (given,) if isinstance(given, Tensor) else tuple(given)
        return tuple(o / self.temperature if o.is_floating_point() else o for o in outputs)
