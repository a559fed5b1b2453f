# SPDX-License-Identifier: Apache-2.0
"""What a model is made of: its layers, its groups of channels, and what can't be pruned and why."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from edgeprune.channels import Frozen, Group, Groups, Totals, analyse
from edgeprune.model import Model

__all__ = ["Anatomy", "Layer", "dissect"]


@dataclass(frozen=True)
class Layer:
    """One operator that has parameters of its own or multiplies."""

    name: str
    """Of its parameters, or of its node in the graph."""
    op: str
    shape: tuple[str, ...]
    """Of its output; a dynamic dimension by its name."""
    parameters: int
    """A parameter that several layers share is counted where it is first used."""
    macs: int
    """For one sample."""
    bytes: int
    node: str
    """In the graph, as frozen dimensions name it."""


@dataclass(frozen=True)
class Anatomy:
    """Layers in the order of the graph, and what the analysis found."""

    layers: tuple[Layer, ...]
    totals: Totals
    analysis: Groups
    shapes: dict[str, tuple[int, ...]]
    """The shape of each parameter and buffer."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """What can be pruned."""
        return self.analysis.groups

    @property
    def frozen(self) -> tuple[Frozen, ...]:
        """What can't, and why."""
        return self.analysis.frozen

    def length(self, frozen: Frozen) -> int:
        """How many channels a frozen dimension has, with those that aren't frozen."""
        return self.shapes[frozen.name][frozen.dim]


def dissect(model: Model) -> Anatomy:
    """Look at a model without running it."""
    groups = analyse(model)
    macs: dict[str, int] = defaultdict(int)
    for product in groups.walk.products:
        macs[product.node] += product.total
    states = _states(model)
    counted: set[str] = set()
    layers = []
    for node in model.program.graph.nodes:
        if node.op != "call_function":
            continue
        used = [states[n.name] for n in node.all_input_nodes if n.name in states]
        if used or macs[node.name]:
            own = [name for name in used if name not in counted]
            counted.update(own)
            layers.append(_layer(model, node, used, own, macs[node.name]))
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in model.program.state_dict.items()
        if isinstance(tensor, torch.Tensor)
    }
    return Anatomy(tuple(layers), groups.totals(), groups, shapes)


def _states(model: Model) -> dict[str, str]:
    """Parameters and buffers by the name of their node."""
    signature = model.program.graph_signature
    return {**signature.inputs_to_parameters, **signature.inputs_to_buffers}


def _layer(model: Model, node: Node, used: list[str], own: list[str], macs: int) -> Layer:
    tensors = {name: model.program.state_dict.get(name) for name in own}
    known = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    trainable = set(model.program.graph_signature.parameters)
    return Layer(
        used[0].rpartition(".")[0] or used[0] if used else node.name,
        str(getattr(node.target, "_opname", node.target)),
        _shape(node.meta.get("val")),
        sum(tensor.numel() for name, tensor in known.items() if name in trainable),
        macs,
        sum(tensor.nbytes for tensor in known.values()),
        node.name,
    )


def _shape(value: Any) -> tuple[str, ...]:
    if not isinstance(value, torch.Tensor):
        return ()
    return tuple("batch" if isinstance(size, torch.SymInt) else str(size) for size in value.shape)
