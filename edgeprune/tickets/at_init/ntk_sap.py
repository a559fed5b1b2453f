# SPDX-License-Identifier: Apache-2.0
"""NTK-SAP: spectrum-aware pruning by the tangent kernel (Wang, Li and Sun 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from edgeprune.context import Context
from edgeprune.finetune import write_state
from edgeprune.mask import Mask, Network
from edgeprune.model import Model
from edgeprune.tasks import logits
from edgeprune.tickets.at_init.inputs import gaussian
from edgeprune.tickets.at_init.steps import (
    Start,
    begin,
    check_scores,
    descend,
    finish,
    normalise_by_batch,
    put,
)
from edgeprune.tickets.found import Found, Work
from edgeprune.tickets.initial import fresh_state
from edgeprune.tickets.ledger import Ledger
from edgeprune.tickets.options import TicketOptions
from edgeprune.tickets.scores import Scores
from edgeprune.tickets.streams import generator

__all__ = ["EPSILON", "ITERATIONS", "Kernel", "find", "gate_gradients", "squared_difference"]

ITERATIONS = 20
"""In the released script for ResNet-20 on CIFAR-10."""
EPSILON = 0.01
"""The deviation of the perturbation, in the released code."""


def find(model: Model, options: TicketOptions, context: Context, work: Work) -> Found:
    """Keep the weights on which the trace of the tangent kernel depends most, in 20 steps.

    The trace (the nuclear norm, as the kernel has no negative eigenvalue) is ||J||_F^2, estimated
    by a finite difference: E ||f(x; m * w) - f(x; m * (w + d))||^2 over d ~ N(0, epsilon^2). A
    weight's score is the absolute derivative of its sum by the weight's gate m. The kernel is to
    stay as it is at any weights, so each batch draws new ones (normal with variance 2 / fan_in; He
    et al. 2015), new perturbations and, as the method needs no data, new normal inputs: the model's
    own weights count for nothing, and neither does data. Token ids are uniform over the table's
    rows.

    Batch norms first take the statistics of the batch, which are then held for both networks, as
    in the released code. What no mask covers begins as in a new network and isn't perturbed.
    Outputs that end in softmax or sigmoid are taken before that, as in training.

    Raises:
        InputError: A density that can't be met, or scores that are zero or overflow.
    """
    start = begin(model, options)
    kernel = Kernel.of(start, options, context)

    def score(mask: Mask, step: int) -> Scores:
        return kernel.scores(mask, step, start.ledger)

    steps = options.at_init.iterations or ITERATIONS
    mask, steps = descend(start, options, context, score, steps)
    details = {"iterations": steps, "samples": kernel.samples, "epsilon": EPSILON}
    return finish(start, mask, details)


@dataclass(frozen=True)
class Kernel:
    """Three copies of the network: one takes the batch's statistics, two are compared."""

    model: Model
    network: Network
    warm: nn.Module
    still: nn.Module
    moved: nn.Module
    samples: int
    batch: int
    seed: int

    @classmethod
    def of(cls, start: Start, options: TicketOptions, context: Context) -> Kernel:
        """As the options say; a model with a fixed batch gets whole batches."""
        model, wanted = start.model, options.at_init.samples
        fixed = model.fixed_batch
        batch = fixed or min(options.train.batch_size, wanted)
        state = fresh_state(start.model, context.seed)
        warm, still, moved = (logits(model) for _ in range(3))
        for module in (warm, still, moved):
            write_state(module, state)
        if batch > 1:
            normalise_by_batch(warm, momentum=1.0)
        samples = -(-wanted // batch) * batch if fixed else wanted
        return cls(model, start.network, warm, still, moved, samples, batch, context.seed)

    def scores(self, mask: Mask, step: int, ledger: Ledger) -> Scores:
        """|d/dm| of the summed squared differences, over all batches of a step.

        Raises:
            InputError: All are zero.
        """
        total = {name: torch.zeros(kept.shape) for name, kept in mask.keep.items()}
        with ledger.clock():
            for place, first in enumerate(range(0, self.samples, self.batch)):
                random = generator(self.seed, "ntk-sap", step, place)
                count = min(self.batch, self.samples - first)
                weights, moved = self._draw(random)
                inputs = gaussian(self.model, count, random)
                put(self.warm, weights, mask)
                self._take_statistics(inputs)
                for name, value in self._gradients(weights, moved, mask, inputs).items():
                    total[name] += value
                ledger.forward(count, mask)
                for _ in range(2):
                    ledger.gradient(count, mask)
        scores = {name: value.abs() * mask.keep[name] for name, value in total.items()}
        check_scores(scores, "ntk-sap")
        return scores

    def _draw(self, random: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        weights, moved = {}, {}
        for layer in self.network.layers:
            deviation = sqrt(2 * layer.shape[layer.out_dim] / layer.size)
            weights[layer.name] = torch.randn(layer.shape, generator=random) * deviation
            noise = torch.randn(layer.shape, generator=random)
            moved[layer.name] = weights[layer.name] + EPSILON * noise
        return weights, moved

    @torch.no_grad()
    def _take_statistics(self, inputs: tuple[Tensor, ...]) -> None:
        self.warm(*inputs)
        taken = dict(self.warm.named_buffers(remove_duplicate=False))
        for module in (self.still, self.moved):
            for name, buffer in module.named_buffers(remove_duplicate=False):
                buffer.copy_(taken[name])

    def _gradients(
        self,
        weights: dict[str, Tensor],
        moved: dict[str, Tensor],
        mask: Mask,
        inputs: tuple[Tensor, ...],
    ) -> dict[str, Tensor]:
        one = put(self.still, weights, mask)
        two = put(self.moved, moved, mask)
        apart = squared_difference(self.still(*inputs), self.moved(*inputs))
        found = torch.autograd.grad(apart, [*one, *two], materialize_grads=True)
        return gate_gradients(mask, weights, found[: len(one)], moved, found[len(one) :])


def squared_difference(one: Tensor | Sequence[Tensor], two: Tensor | Sequence[Tensor]) -> Tensor:
    """The squared distance of two networks' float outputs, summed over samples."""
    pairs = zip(_floats(one), _floats(two), strict=True)
    return torch.stack([(a - b).square().sum() for a, b in pairs]).sum()


def gate_gradients(
    mask: Mask,
    weights: Mapping[str, Tensor],
    by_weights: Sequence[Tensor],
    moved: Mapping[str, Tensor],
    by_moved: Sequence[Tensor],
) -> dict[str, Tensor]:
    """The derivative by the gates m, that both m * w and m * (w + d) share, from those by the two
    products."""
    pairs = zip(mask.keep, by_weights, by_moved, strict=True)
    return {name: a * weights[name] + b * moved[name] for name, a, b in pairs}


def _floats(given: Tensor | Sequence[Tensor]) -> list[Tensor]:
    outputs = (given,) if isinstance(given, Tensor) else tuple(given)
    return [o for o in outputs if o.is_floating_point()]
