# SPDX-License-Identifier: Apache-2.0
"""Transposed convolutions in the forms that TensorFlow Lite has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.export.graph_edit import constant, insert, replace, shape_of
from edgeprune.model.program import argument, value

__all__ = ["crop_transposed"]

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed

_TRANSPOSED = {aten.conv_transpose1d.default: 1, aten.conv_transpose2d.input: 2}


def crop_transposed(module: GraphModule) -> None:
    """Write the padding of a transposed convolution as a crop of what it makes without, and its
    dilation as zeros in its kernel.

    TensorFlow Lite's operator pads like TensorFlow alone (the output as large as the input times
    the stride, the odd row behind), or not at all.
    """
    for target, rank in _TRANSPOSED.items():
        for node in module.graph.find_nodes(op="call_function", target=target):
            _spread(module, node, rank)
            _crop(node, rank)
    module.graph.eliminate_dead_code()
    module.recompile()


def _spread(module: GraphModule, node: Node, rank: int) -> None:
    """Put a dilated kernel's zeros into its weight."""
    dilation = _all(argument(node, 7, 1), rank)
    weight: Any = argument(node, 1)
    steps: list[Node] = []
    while weight.op == "call_function":  # quantize and dequantize nodes
        steps.insert(0, weight)
        weight = weight.args[0]
    if set(dilation) == {1} or weight.op != "get_attr":
        return
    result = constant(module, node, _with_zeros(value(module, weight), dilation))
    for step in steps:
        result = insert(node, step.target, result, *step.args[1:])
    args = list(_arguments(node, rank))
    args[1], args[7] = result, [1] * rank
    _set(node, args)


def _with_zeros(weight: Tensor, dilation: list[int]) -> Tensor:
    sizes = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    wide = weight.new_zeros(*weight.shape[:2], *sizes)
    places: tuple[Any, ...] = (..., *(slice(None, None, d) for d in dilation))
    wide[places] = weight
    return wide


def _crop(node: Node, rank: int) -> None:
    args = list(_arguments(node, rank))
    stride, padding, extra, dilation = args[3], args[4], args[5], args[7]
    kernel, before, after = (shape_of(n)[-rank:] for n in (args[1], args[0], node))
    full = [(i - 1) * s + d * (k - 1) + 1 for i, s, d, k in zip(
        before, stride, dilation, kernel, strict=True)]  # fmt: skip
    alike = all(
        out == i * s and whole >= out and (whole - out) // 2 == p
        for out, i, s, whole, p in zip(after, before, stride, full, padding, strict=True)
    )
    if alike or not any(padding):
        return
    args[4] = [0] * rank
    args[5] = [max(0, e - p) for e, p in zip(extra, padding, strict=True)]
    result = insert(node, node.target, *args)
    for axis, (start, size) in enumerate(zip(padding, after, strict=True), start=-rank):
        if start or shape_of(result)[axis] != size:
            result = insert(node, aten.slice.Tensor, result, axis, start, start + size)
    replace(node, result)


def _arguments(node: Node, rank: int) -> tuple[Any, ...]:
    """All eight, those along axes as lists."""
    x, weight, bias = (argument(node, at) for at in range(3))
    stride, padding, extra = (
        _all(argument(node, at, v), rank) for at, v in ((3, 1), (4, 0), (5, 0))
    )
    groups, dilation = argument(node, 6, 1), _all(argument(node, 7, 1), rank)
    return x, weight, bias, stride, padding, extra, groups, dilation


def _all(value: Any, rank: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


def _set(node: Node, args: list[Any]) -> None:
    node.args, node.kwargs = tuple(args), {}
