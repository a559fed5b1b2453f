# SPDX-License-Identifier: Apache-2.0
"""Optimal Brain Surgeon with the inputs' Gram matrices: what a channel's removal costs after the
layers that read it are fitted anew to what stays.

Hassibi and Stork 1993, Second order derivatives for network pruning: Optimal Brain Surgeon, eq. 5;
by blocks and layer by layer: Frantar and Alistarh 2022, Optimal Brain Compression, section 4;
for structures: Kurtic et al. 2023, ZipLM, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeprune.prune.criteria.criterion import Scores, Subject
from edgeprune.prune.criteria.elimination import Alone, Part, eliminate
from edgeprune.prune.criteria.fisher import Fisher
from edgeprune.prune.criteria.gradients import products, runnable
from edgeprune.prune.criteria.inputs import Reader, find_readers, look_at
from edgeprune.prune.layers import Layer

__all__ = ["obs"]

_RIDGE = 1e-2
"""Of the mean square of an input, around its mean where a bias takes that over."""
_ROUNDING = 1e-5
"""Of the same around zero: sums of float32 products aren't exact."""
_WIDE = 6144
"""Inputs of a layer from which on nothing makes up for a removal: the matrix would be too large."""
_STEPS = 32
"""In how many steps the channels of a wide group are ranked anew."""


def obs(subject: Subject) -> Scores:
    """The increase of the loss, to second order, when a channel goes after all that are cheaper.

    With H = X'X / n over sampled inputs X of a layer with weight W, the mean squared error of its
    outputs grows by W_S' inv(inv(H)_SS) W_S when the inputs S go and W is fitted anew. Each output
    counts by half the sum over positions of the squared gradient of the loss, mean over samples;
    layers that read the same channel add up. Channels of a group go one after the other, the
    cheapest first, and a channel's score is what it adds, or what one before it did if that is
    more. In a layer of more than 6,144 inputs the error is that without a new fit.

    A channel that no such layer reads has the score of ``fisher``, as have branches.

    Raises:
        DataError: A label is outside the classes of the model's output, or an index in the data
            outside the model's table.
        InputError: No output has a gradient.
    """
    module, groups = runnable(subject), subject.groups.groups
    sets = [np.sort(group.channels) for group in groups]
    sums = [_Sums(reader, sets) for reader in find_readers(subject, module)]
    looks = {n: look for s in sums for n, look in look_at(subject, s.reader, s.take).items()}
    read = {number for each in sums for _, number in each.places}
    alone = bool(subject.branches) or len(read) < len(groups)
    rest = Fisher(subject)
    for size, found in products(subject, "obs", module, looks):
        if alone:
            rest.add(size, found)
        for each in sums:
            each.weigh(size)
    looks.clear()  # they hold the sums, which go one by one
    scores = rest.scores
    parts: list[list[Part | Alone]] = [[] for _ in groups]
    while sums:
        for number, part in sums.pop().solve():
            parts[number].append(part)
    for channels, mine in zip(sets, parts, strict=True):
        if mine:
            step = max(1, channels.size // _STEPS)
            order, costs = zip(*eliminate(mine, channels.size, step), strict=True)
            scores[channels[list(order)]] = np.maximum.accumulate(costs)
            mine.clear()
    return scores


class _Sums:
    """Of one weight: sums over the sampled inputs, and how much each output matters.

    A wide one has a matrix for each channel only.
    """

    def __init__(self, reader: Reader, sets: Sequence[NDArray[np.int64]]) -> None:
        self.reader = reader
        groups, inputs, outputs = reader.weight.shape
        self.places = {
            (group, number): torch.from_numpy(places)
            for group in range(groups)
            for number, channels in enumerate(sets)
            if (places := reader.inputs(group, channels)).size
        }
        self.wide = inputs > _WIDE
        self.gram = torch.zeros(groups, *(0 if self.wide else inputs for _ in range(2)))
        self.own = {
            key: torch.zeros(*places.shape, places.shape[1], dtype=torch.float64)
            for key, places in self.places.items()
            if self.wide
        }
        self.mean = torch.zeros(groups, inputs, dtype=torch.float64)
        self.power = torch.zeros(groups * outputs, dtype=torch.float64)
        self._power = torch.zeros_like(self.power)
        self.rows = self.samples = 0

    def take(self, layer: Layer, x: Tensor, out: Tensor) -> None:
        """Take in sampled inputs, and wait for the gradient of the output."""
        self.rows += x.shape[1]
        self.mean += x.sum(1).double()
        if not self.wide:
            self.gram.baddbmm_(x.transpose(1, 2), x)
        for (group, number), own in self.own.items():
            read = x[group][:, self.places[group, number]]
            own += torch.einsum("ncs,nct->cst", read, read).double()

        def weigh(gradient: Tensor) -> None:
            every = torch.arange(layer.positions(gradient.shape))
            self._power += layer.outputs_at(gradient, every).double().square().sum(0)

        if out.requires_grad:
            out.register_hook(weigh)  # type: ignore[no-untyped-call]

    def weigh(self, size: int) -> None:
        """End a batch, whose loss is the mean over its ``size`` samples."""
        self.power += size**2 * self._power
        self.samples += size
        self._power.zero_()

    def solve(self) -> Iterator[tuple[int, Part | Alone]]:
        """What each set of channels is in this layer, by the number of the set."""
        groups, _, outputs = self.reader.weight.shape
        rows, samples = max(1, self.rows), max(1, self.samples)
        layer = self.reader.calls[0]
        mean = self.mean / rows
        if layer.bias is None and layer.mean is None:  # nothing there takes a mean over
            mean.zero_()
        matters = (self.power / (2 * samples)).sqrt().reshape(groups, 1, outputs)
        weight = self.reader.weight.double() * matters
        inverses = [
            gram if self.wide else _inverse(gram.double() / rows, m)
            for gram, m in zip(self.gram, mean, strict=True)
        ]
        for (group, number), places in self.places.items():
            at = places.reshape(-1)
            if self.wide:
                m, w = mean[group][places], weight[group][places]
                own = self.own[group, number] / rows - m[:, :, None] * m[:, None, :]
                yield number, Alone((w * (own @ w)).sum((1, 2)))
            else:
                part = Part(inverses[group][at][:, at], weight[group][at], places.shape[1])
                yield number, part


def _inverse(gram: Tensor, mean: Tensor) -> Tensor:
    """Of what ``gram`` is around ``mean``, with a ridge; NaN where it isn't finite."""
    rounding = _ROUNDING * float(gram.diagonal().mean()) + torch.finfo(torch.float32).tiny
    centred = gram - torch.outer(mean, mean)
    diagonal = centred.diagonal()
    diagonal += _RIDGE * float(diagonal.mean().clamp(min=0)) + rounding
    factor, failed = torch.linalg.cholesky_ex(centred)
    return torch.cholesky_inverse(factor) if not failed else torch.full_like(centred, np.nan)
