# SPDX-License-Identifier: Apache-2.0
"""Recovery without training: each layer of the pruned network is fitted to what the dense one does.

The two networks are walked side by side. At each layer that multiplies with a weight, X are its
inputs in the network as pruned and fitted so far, and R is what its outputs lack of the dense
network's, kept channels only. The weight changes by

    D = argmin |X D - R|^2 + lambda |D|^2,

in closed form, with X and R centred where a bias takes the means (He, Zhang and Sun 2017, Channel
Pruning for Accelerating Very Deep Neural Networks, eq. 3; the ridge keeps the weight near what it
was, where the samples don't say otherwise).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, log10

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.data import Batch
from edgeprune.model import Event, Model
from edgeprune.model.state import read_state, with_state
from edgeprune.prune.equations import Equations, Fit
from edgeprune.prune.layers import Layer, Stream, find_layers, find_stream
from edgeprune.prune.sides import Side

__all__ = ["Kept", "Recovered", "recover"]

Kept = Callable[[str, int], Tensor | None]
"""For a parameter and a dimension, which indices of the dense one are still there; ``None``: all.
"""
_MEMORY = 1 << 30
"""Bytes of values between two layers, all samples together."""


_WORST = -200.0
"""dB of outputs that aren't finite."""
_KEPT_BACK = 8
"""One in so many samples is fitted to by no layer, and tells whether the whole got better."""


@dataclass(frozen=True)
class Recovered:
    """The fitted model, and each layer."""

    model: Model
    """As it was cut, where fitting made its outputs worse."""
    fits: tuple[Fit, ...]
    samples: int
    before: float
    """dB of all outputs against the dense network's, on samples that nothing was fitted to."""
    after: float


def recover(
    dense: Model,
    pruned: Model,
    kept: Kept,
    batches: Sequence[Batch],
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Recovered:
    """Fit the layers of ``pruned``, from the first to the last.

    Args:
        dense: The network before.
        pruned: The same with channels and branches taken out.
        kept: What is left of the parameters.
        batches: Samples, two batches at least; labels aren't used. The last ones are kept back.
        seed: Of the positions that are looked at.
        advance: Called with 1 for each layer.
    """
    back = max(1, len(batches) // _KEPT_BACK)
    fitted, held = batches[:-back], batches[-back:]
    sides = Side(dense.module()), Side(pruned.module())
    before = _decibels(*sides, held)
    fits = tuple(fit for fit in _Walk(*sides, kept, fitted, seed).fits(advance) if fit is not None)
    after = _decibels(*sides, held)
    samples = sum(map(len, fitted))
    if after <= before:
        return Recovered(pruned, fits, samples, before, after)
    event = Event("recover", {}, {"samples": samples, "layers": len(fits)})
    model = with_state(pruned, read_state(sides[1].module), event)
    return Recovered(model, fits, samples, before, after)


@torch.no_grad()
def _decibels(dense: Side, pruned: Side, batches: Sequence[Batch]) -> float:
    """Signal to noise of all outputs of ``pruned``, those of ``dense`` being right."""
    signal = noise = 0.0
    for batch in batches:
        pairs = zip(*(_outputs(side.module, batch) for side in (dense, pruned)), strict=True)
        for right, given in pairs:
            signal += float(right.square().sum())
            noise += float((right - given).square().sum())
    if not isfinite(noise):
        return _WORST
    return 10 * log10(max(signal, 1e-300) / max(noise, signal * 1e-20, 1e-300))


def _outputs(module: GraphModule, batch: Batch) -> list[Tensor]:
    given = module(*(part.clone() for part in batch.inputs))
    outputs = (given,) if isinstance(given, Tensor) else given
    return [o.double() for o in outputs if o.is_floating_point()]


class _Walk:
    """Both networks, and the layers that they have in common."""

    def __init__(
        self, dense: Side, pruned: Side, kept: Kept, batches: Sequence[Batch], seed: int
    ) -> None:
        self.dense, self.pruned, self.batches = dense, pruned, batches
        self.pairs = list(_pairs(dense.module, pruned.module, kept))
        self.admitted = 0
        self.random = torch.Generator().manual_seed(seed)

    def fits(self, advance: Callable[[int], None]) -> Iterator[Fit | None]:
        """Solve layer by layer; a weight that several calls share at the last of them."""
        room = self._room()
        begun: dict[str, Equations] = {}
        calls = [pair.layer.weight for pair in self.pairs]
        for place, pair in enumerate(self.pairs):
            name = pair.layer.weight
            self._admit(room[place])
            samples = sum(len(batch) for batch in self.batches[: self.admitted])
            if name not in begun:
                begun[name] = Equations(self.pruned.module, pair.layer, samples)
            self._gather(pair, begun[name])
            if name not in calls[place + 1 :]:
                yield begun.pop(name).solve()
                if calls.count(name) > 1:
                    self._repeat(pair.layer.node)
            advance(1)

    def _room(self) -> list[int]:
        """How many batches fit into memory at each layer, and from there to the end."""
        held = []
        self._start(0)
        for pair in self.pairs:
            self.dense.advance(0, pair.twin.node, past=True)
            self.pruned.advance(0, pair.layer.node)
            held.append(self.dense.held(0) + self.pruned.held(0))
        most = np.maximum.accumulate(held[::-1])[::-1]
        return [max(1, _MEMORY // max(int(size), 1)) for size in most]

    def _start(self, batch: int) -> None:
        for side in (self.dense, self.pruned):
            side.start(batch, self.batches[batch].inputs)

    def _admit(self, count: int) -> None:
        for batch in range(self.admitted, min(count, len(self.batches))):
            self._start(batch)
            self.admitted = batch + 1

    def _gather(self, pair: _Pair, equations: Equations) -> None:
        layer = pair.layer
        for batch in range(self.admitted):
            self.dense.advance(batch, pair.twin.node, past=True)
            self.pruned.advance(batch, layer.node)
            whole = self.dense.value(batch, pair.twin.node)
            count = layer.positions(whole.shape)
            rows = min(equations.each * len(self.batches[batch]), count)
            chosen = torch.randperm(count, generator=self.random)[:rows]
            given = self.pruned.value(batch, layer.input).float()
            bias = None if layer.added is None else self.pruned.value(batch, layer.added)
            equations.add(
                layer.inputs_at(given, equations.stored, whole.shape, chosen),
                self._target(pair, batch, chosen),
                bias,
            )

    def _target(self, pair: _Pair, batch: int, chosen: Tensor) -> Tensor:
        """What the layer should give: what it gives in the dense network, and what is lacking in
        the stream that it adds to."""

        def left(value: Tensor) -> Tensor:
            rows = pair.layer.outputs_at(value.float(), chosen)
            return rows if pair.kept is None else rows.index_select(1, pair.kept)

        target = left(self.dense.value(batch, pair.twin.node))
        if pair.streams is None:
            return target
        old, new = pair.streams
        if not (self.dense.has(batch, old.node) and self.pruned.has(batch, new.node)):
            return target
        stream = pair.layer.outputs_at(self.pruned.value(batch, new.node).float(), chosen)
        lack = left(self.dense.value(batch, old.node)) - stream
        scale = new.scale(self.pruned.module)
        return target + (lack if scale is None else lack * scale)

    def _repeat(self, node: Node) -> None:
        """Run the pruned network again up to ``node``: a weight changed that it had passed."""
        for batch in range(self.admitted):
            self.pruned.start(batch, self.batches[batch].inputs)
            self.pruned.advance(batch, node)


@dataclass(frozen=True)
class _Pair:
    """A layer of the pruned network, the same call in the dense one, and the channels left."""

    layer: Layer
    twin: Layer
    kept: Tensor | None
    streams: tuple[Stream, Stream] | None
    """What both are added to."""


def _pairs(dense: GraphModule, pruned: GraphModule, kept: Kept) -> Iterator[_Pair]:
    twins: dict[str, list[Layer]] = {}
    for layer in find_layers(dense):
        twins.setdefault(layer.weight, []).append(layer)
    for layer in find_layers(pruned):
        if not twins.get(layer.weight):
            continue
        twin = twins[layer.weight].pop(0)
        if layer.places(layer.node) != layer.places(twin.node):
            continue  # channels stand where samples do, as in a layer over patches
        left = None
        if layer.outputs is not None:
            left = kept(layer.weight, layer.outputs)
        elif layer.bias is not None:
            left = kept(layer.bias, 0)
        elif layer.channels(layer.node) != layer.channels(twin.node):
            continue
        old, new = find_stream(twin), find_stream(layer)
        yield _Pair(layer, twin, left, None if old is None or new is None else (old, new))
