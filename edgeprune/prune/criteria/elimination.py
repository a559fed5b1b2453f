# SPDX-License-Identifier: Apache-2.0
"""Channels taken out one after the other, the cheapest first, with the rest fitted anew each time.

Kurtic et al. 2023, ZipLM: Inference-Aware Structured Pruning of Language Models, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Alone", "Part", "eliminate"]


@dataclass(frozen=True)
class Part:
    """Some channels in one layer that reads them: ``size`` inputs each."""

    inverse: Tensor
    weight: Tensor
    size: int

    def costs(self) -> Tensor:
        """By how much the error grows when each goes alone."""
        count = len(self.weight) // self.size
        blocks = self.inverse.reshape(count, self.size, count, self.size)
        own = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        weight = self.weight.reshape(count, self.size, -1)
        fitted: Tensor = torch.linalg.solve(own, weight)
        return (weight * fitted).sum((1, 2))

    def _inputs(self, channels: Tensor) -> Tensor:
        return (channels[:, None] * self.size + torch.arange(self.size)).reshape(-1)

    def only(self, channels: Tensor) -> Part:
        """These channels; the others stay."""
        at = self._inputs(channels)
        return Part(self.inverse[at][:, at], self.weight[at], self.size)

    def without(self, gone: Tensor, stays: Tensor) -> Part:
        """The others, after these are gone and made up for."""
        out, at = self._inputs(gone), self._inputs(stays)
        across = self.inverse[at][:, out]
        change = torch.linalg.solve(
            self.inverse[out][:, out], torch.cat([across.T, self.weight[out]], 1)
        )
        inverse = self.inverse[at][:, at].addmm_(across, change[:, : len(at)], alpha=-1)
        return Part(inverse, self.weight[at] - across @ change[:, len(at) :], self.size)


@dataclass(frozen=True)
class Alone:
    """Some channels in a layer that isn't fitted anew, and what each costs there."""

    each: Tensor

    def costs(self) -> Tensor:
        """By how much the error grows when each goes."""
        return self.each

    def only(self, channels: Tensor) -> Alone:
        """These channels."""
        return Alone(self.each[channels])

    def without(self, gone: Tensor, stays: Tensor) -> Alone:
        """The others."""
        return Alone(self.each[stays])


def eliminate(parts: Sequence[Part | Alone], count: int, step: int) -> Iterator[tuple[int, float]]:
    """The channels in the order in which they go, each with what it adds. All are ranked anew after
    every ``step`` of them; within a step only its own are."""
    left = torch.arange(count)
    while len(left):
        costs = torch.stack([part.costs() for part in parts]).sum(0)
        order = torch.argsort(costs, stable=True)
        gone, stays = order[:step], order[step:].sort().values
        if step == 1:
            yield int(left[gone]), float(costs[gone])
        else:
            inner = [part.only(gone) for part in parts]
            for place, cost in eliminate(inner, len(gone), 1):
                yield int(left[gone[place]]), cost
        if len(stays):
            parts = [part.without(gone, stays) for part in parts]
        left = left[stays]
