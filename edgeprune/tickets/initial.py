# SPDX-License-Identifier: Apache-2.0
"""Newly drawn weights for a captured network, which has no layer classes to draw them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.fx import Node

from edgeprune.finetune import read_state
from edgeprune.mask import Layer, Network, look
from edgeprune.model import Model
from edgeprune.tickets.streams import generator

__all__ = ["fresh_state"]

_BEGINS = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
"""What a norm's arguments begin with; what else such an operator takes is no norm's own, as the
weight whose length is asked for."""
_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
"""Rows of a recurrent layer's weights for each number of its state."""


def fresh_state(model: Model, seed: int, purpose: str = "fresh") -> dict[str, Tensor]:
    """Parameters and buffers as if the network had just been built.

    Weights that multiply are uniform within 1/sqrt(fan_in), which is what torch's own layers draw
    (Kaiming uniform with a = sqrt(5); recurrent ones within 1/sqrt(hidden)), and so are their
    biases; norms begin with scale 1, shift 0, mean 0 and variance 1. Of other parameters (tables of
    embeddings, positions, scales that the model's code multiplies with) nothing says how they
    began: they are normal with the mean and the standard deviation that they have now, so that one
    that is constant stays as it is. Of weight norm that goes for the direction, and its length
    begins as that of the direction, so that they are one weight.

    Args:
        model: Its weights aren't changed.
        seed: Of the draws; each parameter has a stream of its own, so that one more or less
            doesn't change the others.
        purpose: Draws for another purpose are other numbers, by the same seed too.

    Returns:
        By name, as ``finetune.read_state`` gives them and ``write_state`` takes them.
    """
    network, state = look(model), read_state(model.module())
    fans = _fans(model, network)
    scales = _norms(model)
    fresh: dict[str, Tensor] = {}
    for name, value in state.items():
        drawn = generator(seed, purpose, name)
        if name in scales:
            fresh[name] = torch.full_like(value, scales[name])
        elif name in fans:
            bound = 1 / math.sqrt(fans[name])
            fresh[name] = torch.empty_like(value).uniform_(-bound, bound, generator=drawn)
        elif name in model.program.graph_signature.parameters and value.is_floating_point():
            spread = float(value.std()) if value.numel() > 1 else 0.0
            noise = torch.empty_like(value).normal_(0, 1, generator=drawn)
            fresh[name] = value.mean() + spread * noise if spread else value
        else:
            fresh[name] = value
    for length, (direction, dim) in _weight_norms(model).items():
        fresh[length] = torch.norm_except_dim(fresh[direction], 2, dim)
    return fresh


def _fans(model: Model, network: Network) -> dict[str, int]:
    """What torch's layers take for the inputs of each output, by name of a weight or of the bias
    that is added to it."""
    fans: dict[str, int] = {}
    names = model.program.graph_signature.inputs_to_parameters
    nodes = {node.name: node for node in model.program.graph.nodes}
    for layer in network.layers:
        fan = _fan(layer)
        fans[layer.name] = fan
        for node in layer.nodes:
            for operand in nodes[node].all_input_nodes:
                name = names.get(operand.name)
                if name is not None and len(_shape(operand)) == 1:
                    fans[name] = fan
    return fans


def _fan(layer: Layer) -> int:
    """Inputs of each output; as torch has it, of a transposed convolution outputs of each input,
    and of a recurrent layer the size of its state."""
    for kind, gates in _GATES.items():
        if layer.op.startswith(kind):
            return max(1, layer.shape[0] // gates)
    dim = 0 if layer.op.startswith("conv_transpose") else layer.out_dim
    return max(1, layer.size // max(1, layer.shape[dim]))


def _norms(model: Model) -> Mapping[str, float]:
    """What each parameter and buffer of a norm begins with, by name."""
    signature = model.program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    begins: dict[str, float] = {}
    for node in model.program.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload) or "norm" not in str(node.target):
            continue
        given = dict(zip((a.name for a in node.target._schema.arguments), node.args, strict=False))
        for role, operand in {**given, **node.kwargs}.items():
            if role in _BEGINS and isinstance(operand, Node) and operand.name in names:
                begins[names[operand.name]] = _BEGINS[role]
    counters = {n for n in signature.buffers if n.endswith("num_batches_tracked")}
    return begins | dict.fromkeys(counters, 0.0)


def _weight_norms(model: Model) -> dict[str, tuple[str, int]]:
    """By the parameter that is a weight's length: the one that is its direction, and the dimension
    along which there is a length for each (Salimans and Kingma 2016)."""
    names = model.program.graph_signature.inputs_to_parameters
    found: dict[str, tuple[str, int]] = {}
    for node in model.program.graph.nodes:
        if node.target is torch.ops.aten._weight_norm.default:
            direction, length, *dim = node.args
            if direction.name in names and length.name in names:
                found[names[length.name]] = names[direction.name], dim[0] if dim else 0
    return found


def _shape(node: Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()
