# SPDX-License-Identifier: Apache-2.0
"""Weights on the grid that an artifact stores them on, held in float.

Integer weights are symmetric int8 per output channel with the scale ``max|w| / 127`` (for
embeddings: per row); ``fp16`` rounds every parameter and buffer to half precision. Rounding twice
gives the same as rounding once, so what the exporters' tools store is what was measured here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.model.program import argument, value
from edgeprune.quantize import rules
from edgeprune.quantize.graphs import put
from edgeprune.quantize.simplify import plain
from edgeprune.recipe import Numerics

__all__ = ["on_int8_grid", "round_weights", "to_half"]

aten = torch.ops.aten

_MATRIX: dict[Any, tuple[int, int]] = {
    aten.matmul.default: (1, -1),
    aten.mm.default: (1, -1),
    aten.addmm.default: (2, -1),
    aten.embedding.default: (0, 0),
}
"""Place of the constant operand, and its axis of scales."""


def round_weights(gm: GraphModule, numerics: Numerics) -> dict[str, str]:
    """Fold batch norms, then round the weights of ``gm``, in place.

    Returns:
        The layers whose weights were rounded: node name to module path.
    """
    plain(gm)
    if numerics == "fp16":
        for tensor in (*gm.parameters(), *gm.buffers()):
            if tensor.dtype == torch.float32:
                tensor.detach().copy_(to_half(tensor.detach()))
        return {n.name: _layer(w) for n in gm.graph.nodes if (w := _weight(n)) is not None}
    layers: dict[str, str] = {}
    done: set[int] = set()
    for node in gm.graph.nodes:
        weight = _weight(node)
        if weight is None:
            continue
        layers[node.name] = _layer(weight)
        tensor = value(gm, weight)
        if tensor.data_ptr() not in done:
            done.add(tensor.data_ptr())
            put(gm, weight, on_int8_grid(tensor, _axis(node)))
    return layers


def on_int8_grid(weight: Tensor, axis: int) -> Tensor:
    """Round to ``scale * {-127 .. 127}`` with one scale for each index of ``axis``."""
    others = [d for d in range(weight.ndim) if d != axis % weight.ndim]
    scale = weight.abs().amax(others, keepdim=True) / 127
    steps = torch.where(scale > 0, weight / scale, torch.zeros_like(weight)).round()
    return steps.clamp(-127, 127) * scale


def to_half(tensor: Tensor) -> Tensor:
    """Round to half precision; finite values beyond its range become its largest."""
    limit = torch.finfo(torch.float16).max
    finite = torch.where(tensor.isinf(), tensor, tensor.clamp(-limit, limit))
    return finite.half().to(tensor.dtype)


def _weight(node: Node) -> Node | None:
    """The constant weight that a node multiplies with, or looks up in."""
    if node.op != "call_function":
        return None
    place = 1 if node.target in rules.WEIGHTED else _MATRIX.get(node.target, (None, 0))[0]
    operand = None if place is None else argument(node, place)
    if not isinstance(operand, Node) or operand.op != "get_attr":
        return None
    return operand if operand.meta["val"].ndim > 1 else None


def _axis(node: Node) -> int:
    axis = rules.WEIGHTED.get(node.target)
    return _MATRIX[node.target][1] if axis is None else axis


def _layer(weight: Node) -> str:
    return str(weight.target).removesuffix(".weight")
