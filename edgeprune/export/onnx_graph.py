# SPDX-License-Identifier: Apache-2.0
"""Edits of a graph before torch translates it to ONNX; none changes what it computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

__all__ = ["cast_integers", "fold_attention", "settle_layouts"]

aten = torch.ops.aten

_ARITHMETIC = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)


def settle_layouts(module: GraphModule) -> None:
    """Make each ``contiguous`` a copy.

    It does nothing on the strides of fused attention, and so is dropped; but translation takes
    attention apart into operators with other strides, on which the next view fails. In ONNX the
    copy vanishes.
    """
    for node in module.graph.find_nodes(op="call_function", target=aten.contiguous.default):
        node.target = aten.clone.default
        node.kwargs = {"memory_format": torch.contiguous_format}
        node.args = node.args[:1]
    module.recompile()


def cast_integers(module: GraphModule) -> None:
    """Cast the integers that meet a fractional number, as ``arange(n) * 0.5`` does.

    The translation would choose an overload for them that it has no ONNX form of.
    """
    for node in module.graph.nodes:
        if node.target not in _ARITHMETIC or not isinstance(node.args[0], Node):
            continue
        tensor, other = node.args[:2]
        value = tensor.meta.get("val")
        if isinstance(other, float) and isinstance(value, Tensor) and _counts(value):
            with module.graph.inserting_before(node):
                cast = module.graph.call_function(
                    aten.to.dtype, (tensor, torch.get_default_dtype())
                )
            node.replace_input_with(tensor, cast)
    module.recompile()


def _counts(value: Tensor) -> bool:
    return not value.is_floating_point() and not value.is_complex()


def fold_attention(module: GraphModule) -> None:
    """Give fused attention four dimensions, the only form that the translation takes: leading ones
    are merged before it and parted after it."""
    fused = aten.scaled_dot_product_attention.default
    for node in module.graph.find_nodes(op="call_function", target=fused):
        shapes = [_shape(a) for a in node.args[:3]]
        mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
        rank = len(shapes[0])
        if rank == 4 or any(len(s) != rank for s in shapes) or rank < 3:
            continue
        if isinstance(mask, Node) and len(_shape(mask)) > 2:
            if rank != 3 or len(node.args) < 4:
                continue  # the mask's leading dimensions are in the way
            with module.graph.inserting_before(node):
                mask = module.graph.call_function(aten.unsqueeze.default, (mask, 1))
            node.args = (*node.args[:3], mask, *node.args[4:])
        _fold(module, node, shapes[0])
    module.recompile()


def _shape(node: Any) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)


def _fold(module: GraphModule, node: Node, shape: tuple[Any, ...]) -> None:
    graph, rank = module.graph, len(shape)
    with graph.inserting_before(node):
        folded = [
            graph.call_function(aten.unsqueeze.default, (a, 1))
            if rank == 3
            else graph.call_function(aten.flatten.using_ints, (a, 0, rank - 4))
            for a in node.args[:3]
        ]
    node.args = (*folded, *node.args[3:])
    with graph.inserting_after(node):
        parted = (
            graph.call_function(aten.squeeze.dim, (node, 1))
            if rank == 3
            else graph.call_function(aten.unflatten.int, (node, 0, [-1, *shape[1 : rank - 3]]))
        )
    node.replace_all_uses_with(parted, delete_user_cb=lambda user: user is not parted)
