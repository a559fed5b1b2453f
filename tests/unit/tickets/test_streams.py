# SPDX-License-Identifier: Apache-2.0
"""Streams of random numbers: each draw has its own."""

import torch

from edgeprune.mask import look
from edgeprune.tickets.initial import fresh_state
from edgeprune.tickets.scores import random
from edgeprune.tickets.streams import generator
from tests.unit.tickets.small import network


def test_generators_of_seeds_alike_in_their_low_bits_differ() -> None:
    drawn = [torch.rand(1, generator=generator(seed, "a")).item() for seed in (0, 2**32, 1)]
    assert len(set(drawn)) == 3


def test_a_random_mask_does_not_depend_on_the_weights_of_the_same_seed() -> None:
    """A score in double precision takes two numbers of the generator, a weight one: so a score is
    set beside the two weights that the same stream would give."""
    net, weights = look(network()), fresh_state(network(), 5)
    scores, pairs = [], []
    for name, drawn in random(net, 5).items():
        half = drawn.numel() // 2
        scores.append(drawn.flatten()[:half])
        weight = weights[name].flatten()[: 2 * half].double()
        pairs.append((weight / weight.std()).reshape(half, 2))
    together = torch.cat([torch.cat(scores)[:, None], torch.cat(pairs)], 1)
    apart = torch.corrcoef(together.T)[0, 1:].abs()
    assert len(together) > 3000
    assert float(apart.max()) < 5 / len(together) ** 0.5
