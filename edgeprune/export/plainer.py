# SPDX-License-Identifier: Apache-2.0
"""Operators that a converter lacks or gets wrong, written in plainer ones in an exported graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeprune.export.graph_edit import argument, constant, insert, replace, shape_of

__all__ = ["write_plainly"]

aten = torch.ops.aten


def write_plainly(module: GraphModule) -> None:
    """Replace each operator of the table by others that compute the same, in place."""
    for node in list(module.graph.nodes):
        if node.op == "call_function" and node.target in _PLAINER:
            by = _PLAINER[node.target](module, node)
            if by is not None:
                replace(node, by)
    module.graph.eliminate_dead_code()
    module.recompile()


def _pixel_unshuffle(module: GraphModule, node: Node) -> Node:
    """Torch's translation to ONNX gives another order of channels."""
    x, factor = argument(node, 0), argument(node, 1)
    *lead, channels, height, width = shape_of(x)
    small = [height // factor, width // factor]
    front = [-1, *lead[1:]] if lead else []
    parted = [*front, channels, small[0], factor, small[1], factor]
    order = [*range(len(lead)), *(len(lead) + i for i in (0, 2, 4, 1, 3))]
    result = insert(node, aten.reshape.default, x, parted)
    result = insert(node, aten.permute.default, result, order)
    joined = [*front, channels * factor * factor, *small]
    return insert(node, aten.reshape.default, result, joined)


def _pad(module: GraphModule, node: Node) -> Node | None:
    """Cut by slices: a convolution or pooling that takes the padding over can't cut."""
    amounts, kind = list(argument(node, 1)), argument(node, 2, 0)
    if min(amounts, default=0) >= 0:
        return None
    result: Any = argument(node, 0)
    for place in range(0, len(amounts), 2):
        axis = -1 - place // 2
        before, behind = (min(a, 0) for a in amounts[place : place + 2])
        if before or behind:
            size = shape_of(result)[axis]
            result = insert(node, aten.slice.Tensor, result, axis, -before, size + behind)
    rest = [max(a, 0) for a in amounts]
    if not any(rest):
        return result  # type: ignore[no-any-return]
    more = [kind, *node.args[3:]] if len(node.args) > 2 else []
    return insert(node, node.target, result, rest, *more)


def _adaptive_max(module: GraphModule, node: Node) -> Node | None:
    """Windows of unlike sizes: each brought to the largest by repeating its last place."""
    if any(user.args[1] != 0 for user in node.users):
        return None
    result, rank = argument(node, 0), _ADAPTIVE[node.target]
    first = node.meta["val"][0]
    for axis in range(-rank, 0):
        before, after = int(shape_of(result)[axis]), int(first.shape[axis])
        starts = [i * before // after for i in range(after)]
        ends = [-(-(i + 1) * before // after) for i in range(after)]
        widest = max(end - start for start, end in zip(starts, ends, strict=True))
        places = [
            min(start + step, end - 1)
            for start, end in zip(starts, ends, strict=True)
            for step in range(widest)
        ]
        index = constant(module, node, torch.tensor(places))
        result = insert(node, aten.index_select.default, result, axis, index)
        result = insert(node, aten.unflatten.int, result, axis, [after, widest])
        result = insert(node, aten.amax.default, result, [axis])
    for user in list(node.users):
        replace(user, result)
    node.graph.erase_node(node)
    return None


def _leaky(module: GraphModule, node: Node) -> Node | None:
    """A slope drawn at random is their middle once training is over."""
    if argument(node, 3, False):
        return None
    lower, upper = argument(node, 1, 1 / 8), argument(node, 2, 1 / 3)
    return insert(node, aten.leaky_relu.default, argument(node, 0), (lower + upper) / 2)


_ADAPTIVE = {aten.adaptive_max_pool1d.default: 1, aten.adaptive_max_pool2d.default: 2}
_PLAINER: dict[Any, Callable[[GraphModule, Node], Node | None]] = {
    aten.pixel_unshuffle.default: _pixel_unshuffle,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _pad,
    aten.rrelu.default: _leaky,
    **dict.fromkeys(_ADAPTIVE, _adaptive_max),
}
