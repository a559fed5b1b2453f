# SPDX-License-Identifier: Apache-2.0
"""What a narrower group costs the network, measured: one group at a time, at a few widths.

The channels that go are set to zero in the dense network, the layers that read the others are
fitted to make up for them (in closed form, from sums over their dense inputs), and what the outputs
lose is measured on other samples, by the loss that distillation has. Between the measured widths it
is interpolated. Li et al. 2017 (Pruning Filters for Efficient ConvNets, section 3.2) measure so
without the fit; with it a curve tells what is lost for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.channels import Group, Groups, apply
from edgeprune.data import Batch
from edgeprune.model import Event, Model
from edgeprune.model.program import holder
from edgeprune.model.state import read_state, with_state
from edgeprune.prune.criteria import Scores
from edgeprune.prune.equations import ridged
from edgeprune.prune.layers import Layer, find_layers
from edgeprune.prune.sides import Side
from edgeprune.tasks import Kind, logits

__all__ = ["Curves", "measurements", "sensitivity"]

Curves = Mapping[str, Callable[[int], float]]
"""For each group, the loss when so many of its channels go."""

_SHARES = (0.25, 0.5, 0.75)
"""Of a group that go where it is measured."""
_POSITIONS = 16
"""Outputs of a channel that are looked at in each sample."""
_WIDE = 6144
"""Inputs of a layer from which on it isn't fitted here."""
_RIDGE = 1e-2
"""Of the mean square of an input."""
_STEEPER = 3.0
"""How much steeper than between the last two measurements the loss is taken to rise behind them."""
_LOST = 1e3
"""The loss of outputs that aren't finite."""


@dataclass
class _Sums:
    """Sums over the inputs of one layer in the dense network."""

    layer: Layer
    gram: Tensor
    total: Tensor
    count: int = 0

    def change(self, matrix: Tensor, gone: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to ``matrix`` (``[K, O]``), zero where inputs are ``gone``, so that the
        others say what these said; and what to add to the bias."""
        kept = torch.ones(len(matrix), dtype=torch.bool)
        kept[gone] = False
        gram, mean = self.gram, self.total / self.count
        if self.layer.bias is not None or self.layer.mean is not None:
            gram = gram - self.count * torch.outer(mean, mean)
        own = gram[kept][:, kept][None]
        cross = gram[kept][:, gone] @ matrix[gone]
        delta = ridged(own, own.diagonal(dim1=1, dim2=2).mean(1), cross[None], _RIDGE)
        change = torch.zeros_like(matrix)
        if delta is not None:
            change[kept] = delta[0]
        lost = torch.zeros_like(matrix)
        lost[gone] = matrix[gone]
        return change, mean @ (lost - change)


def measurements(groups: Sequence[Group], ladders: Sequence[Sequence[int]]) -> list[list[int]]:
    """The widths at which each group is measured: of those that it may have, the nearest to three
    quarters, a half and a quarter."""
    found = []
    for group, widths in zip(groups, ladders, strict=True):
        narrower = [width for width in widths if width < group.size]
        wanted = [group.size * (1 - share) for share in _SHARES] if narrower else []
        nearest = {min(narrower, key=lambda width: abs(width - share)) for share in wanted}
        found.append(sorted(nearest, reverse=True))
    return found


def sensitivity(  # noqa: PLR0913 - what is measured, and on what
    model: Model,
    groups: Groups,
    scores: Scores,
    widths: Sequence[Sequence[int]],
    kinds: Sequence[Kind],
    fitting: Sequence[Batch],
    judging: Sequence[Batch],
    advance: Callable[[int], None] = lambda _: None,
) -> Curves:
    """Measure the loss at ``widths`` of each group, least important channels gone.

    Args:
        model: The dense network.
        groups: Its analysis.
        scores: One for each channel.
        widths: Of each group, where it is measured.
        kinds: What the outputs are.
        fitting: Samples that tell how layers make up for what they lack.
        judging: Others, on which the loss is measured.
        advance: Called with 1 for each measurement.
    """
    bench = _Bench(model, groups, kinds, fitting, judging)
    curves = {}
    for group, own in zip(groups.groups, widths, strict=True):
        order = group.channels[np.argsort(scores[group.channels], kind="stable")]
        gone, losses = [0], [0.0]
        for width in own:
            gone.append(group.size - width)
            losses.append(bench.loss(group, order[: gone[-1]]))
            advance(1)
        if own:
            curves[group.name] = _curve(gone, losses, group.size)
    return curves


def _curve(gone: list[int], losses: list[float], size: int) -> Callable[[int], float]:
    rising = np.maximum.accumulate(losses).tolist()
    slope = (rising[-1] - rising[-2]) / (gone[-1] - gone[-2])
    if gone[-1] < size:
        rising.append(rising[-1] + _STEEPER * slope * (size - gone[-1]))
        gone = [*gone, size]
    found = PchipInterpolator(gone, rising)
    return lambda count: float(found(count))


class _Bench:
    """The dense network, in which channels are set to zero and layers make up for them."""

    def __init__(
        self,
        model: Model,
        groups: Groups,
        kinds: Sequence[Kind],
        fitting: Sequence[Batch],
        judging: Sequence[Batch],
    ) -> None:
        self.model, self.groups, self.kinds, self.judging = model, groups, kinds, judging
        self.sums = _collect(Side(model.module()), fitting)
        self.module = logits(model)
        self.right = [_run(self.module, batch) for batch in judging]

    @torch.no_grad()
    def loss(self, group: Group, gone: NDArray[np.int64]) -> float:
        """The mean loss without some channels of ``group``."""
        touched = self._touched(group)
        before = {name: _state(self.module, name).clone() for name in touched}
        for name, dim in group.members:
            self._mask(name, dim, gone)
        try:
            return self._judge(group, gone)
        finally:
            for name, value in before.items():
                _state(self.module, name).copy_(value)

    def _touched(self, group: Group) -> set[str]:
        names = {name for name, _ in group.members}
        layers = [self.sums[name].layer for name in names if name in self.sums]
        return names | {n for layer in layers for n in (layer.bias, layer.mean) if n is not None}

    def _mask(self, name: str, dim: int, gone: NDArray[np.int64]) -> None:
        """Take channels out of one dimension of a parameter, and make up for them where a layer
        reads it."""
        places = torch.from_numpy(np.flatnonzero(np.isin(self.groups.labels[name, dim], gone)))
        sums, stored = self.sums.get(name), _state(self.module, name)
        if sums is not None and dim == sums.layer.inputs:
            layer, matrix = sums.layer, sums.layer.matrix(stored.double())[0]
            each = len(matrix) // stored.shape[dim]
            rows = (places[:, None] * each + torch.arange(each)).reshape(-1)
            change, shift = sums.change(matrix, rows)
            stored.copy_(layer.stored((matrix + change)[None], stored))
            if layer.bias is not None:
                _state(self.module, layer.bias).add_(shift)
            elif layer.mean is not None:
                _state(self.module, layer.mean).sub_(shift)
        if name not in self.groups.walk.divisors:
            stored.index_fill_(dim, places, 0)

    def _judge(self, group: Group, gone: NDArray[np.int64]) -> float:
        module = self.module
        if group.renormalises:  # zeros would count there
            removed = self.groups.keep_all()
            removed[gone] = True
            filled = with_state(self.model, read_state(module), Event("sensitivity"))
            module = logits(apply(filled, self.groups, removed, Event("sensitivity")))
        total = count = 0.0
        for batch, right in zip(self.judging, self.right, strict=True):
            pairs = zip(self.kinds, _run(module, batch), right, strict=True)
            parts = [kind.distill(o, r, 1.0) for kind, o, r in pairs if kind.trainable]
            total += float(torch.stack(parts).sum()) * len(batch)
            count += len(batch)
        return total / count if isfinite(total) else _LOST


def _run(module: GraphModule, batch: Batch) -> tuple[Tensor, ...]:
    with torch.no_grad():
        given = module(*(part.clone() for part in batch.inputs))
    return (given,) if isinstance(given, Tensor) else tuple(given)


def _collect(side: Side, batches: Sequence[Batch]) -> dict[str, _Sums]:
    """The sums of all layers that can be fitted."""
    random = torch.Generator().manual_seed(0)
    found: dict[str, _Sums] = {}
    layers = [la for la in find_layers(side.module) if la.groups == 1 and la.outputs is not None]
    for number, batch in enumerate(batches):
        side.start(number, batch.inputs)
        for layer, x in _inputs(side, number, len(batch), layers, random):
            if layer.weight not in found:
                gram = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
                found[layer.weight] = _Sums(layer, gram, gram[0].clone())
            sums = found[layer.weight]
            sums.gram += x.T @ x
            sums.total += x.double().sum(0)
            sums.count += len(x)
        side.drop(number)
    return found


def _inputs(
    side: Side, batch: int, samples: int, layers: Sequence[Layer], random: torch.Generator
) -> Iterator[tuple[Layer, Tensor]]:
    for layer in layers:
        weight = side.module.get_parameter(layer.weight)
        if layer.matrix(weight).shape[1] > _WIDE:
            continue
        side.advance(batch, layer.node)
        given = side.value(batch, layer.input).float()
        side.advance(batch, layer.node, past=True)
        shape = side.value(batch, layer.node).shape
        count = layer.positions(shape)
        chosen = torch.randperm(count, generator=random)[: _POSITIONS * samples]
        yield layer, layer.inputs_at(given, weight, shape, chosen)[0]


def _state(module: GraphModule, name: str) -> Tensor:
    found = getattr(*holder(module, name))
    assert isinstance(found, Tensor)
    return found.data if isinstance(found, torch.nn.Parameter) else found
