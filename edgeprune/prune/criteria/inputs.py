# SPDX-License-Identifier: Apache-2.0
"""The inputs of the layers that read a channel, at positions drawn by chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.prune.criteria.criterion import Subject
from edgeprune.prune.criteria.gradients import Look
from edgeprune.prune.criteria.slices import Slices
from edgeprune.prune.layers import Layer, find_layers

__all__ = ["Reader", "find_readers", "look_at"]

_POSITIONS = 16
"""Of each sample, at least, at which a layer is looked at; more where its matrix is wide."""
_ROWS = 1
"""Samples for each input of a layer, where there are so many."""


Take: TypeAlias = Callable[[Layer, Tensor, Tensor], None]


@dataclass(frozen=True)
class Reader:
    """A weight that multiplies with inputs of which some belong to channels."""

    calls: tuple[Layer, ...]
    weight: Tensor
    """``[G, K, O]``: for each of G groups what K inputs give to O outputs."""
    labels: NDArray[np.int64]
    """``[G, K]``: the channel of each input, -1 for none."""

    def inputs(self, group: int, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        """``[channels, inputs of one]``: where the inputs of each channel are in one of the G
        groups; empty where that reads none of them."""
        mine = np.flatnonzero(np.isin(self.labels[group], channels))
        order = np.argsort(self.labels[group, mine], kind="stable")
        return mine[order].reshape(channels.size, -1)


def find_readers(subject: Subject, module: GraphModule) -> tuple[Reader, ...]:
    """The layers of ``module`` (what ``runnable`` gives) in which channels are inputs."""
    labels = Slices(subject).labels
    calls: dict[str, list[Layer]] = {}
    for layer in find_layers(module):
        calls.setdefault(layer.weight, []).append(layer)
    readers = []
    for name, layers in calls.items():
        layer = layers[0]
        weight = module.get_parameter(name).detach()
        behind = layer.kind == "linear" or (layer.is_convolution and not layer.transposed)
        dim = 1 if behind else 0
        label = labels.get((name, dim))
        if label is None or not (label >= 0).any():
            continue
        shape = [-1 if d == dim else 1 for d in range(weight.dim())]
        marks = torch.from_numpy(label).reshape(shape).expand(weight.shape)
        rows = layer.matrix(marks)[..., 0].numpy()
        readers.append(Reader(tuple(layers), layer.matrix(weight.float()), rows))
    return tuple(readers)


def look_at(subject: Subject, reader: Reader, take: Take) -> dict[Node, Look]:
    """What to call at the calls of ``reader``: ``take`` is given the layer, sampled inputs
    ``[G, n, K]``, and the whole output."""
    random = torch.Generator().manual_seed(subject.seed)
    total = max(1, subject.drawn.total)
    each = max(_POSITIONS, -(-_ROWS * reader.weight.shape[1] // total))

    def look(layer: Layer) -> Look:
        def seen(run: Interpreter, _: Node, out: Tensor) -> None:
            given = run.env[layer.input].detach().float()
            count = layer.positions(out.shape)
            chosen = torch.randperm(count, generator=random)[: each * run.env[layer.input].shape[0]]
            weight = run.fetch_attr(layer.weight)
            take(layer, layer.inputs_at(given, weight, out.shape, chosen), out)

        return seen

    return {layer.node: look(layer) for layer in reader.calls}
