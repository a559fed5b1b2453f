# SPDX-License-Identifier: Apache-2.0
"""Resizing and pooling in forms that a converter gets right, as edits of an exported graph.

What an operator does to each axis is found by asking torch: it is run on the places of the axis, or
on the rows of an identity matrix. So its rounding rules stand nowhere here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.export.graph_edit import constant, insert, like_source, replace, shape_of
from edgeprune.model.program import argument

__all__ = [
    "hangs_over",
    "has_divisor",
    "is_antialiased",
    "linear_by_matrices",
    "nearest_by_index",
    "plain_averages",
    "scales_by_size",
    "shrinks_cubically",
    "whole_averages",
]

aten = torch.ops.aten

_NEAREST: dict[Any, int] = {
    aten.upsample_nearest1d.vec: 1,
    aten.upsample_nearest2d.vec: 2,
    aten.upsample_nearest3d.vec: 3,
    aten._upsample_nearest_exact1d.vec: 1,
    aten._upsample_nearest_exact2d.vec: 2,
    aten._upsample_nearest_exact3d.vec: 3,
}
"""Axes that each resizes, counted from the end."""
_LINEAR: dict[Any, int] = {
    aten.upsample_linear1d.vec: 1,
    aten.upsample_bilinear2d.vec: 2,
    aten.upsample_bicubic2d.vec: 2,
    aten._upsample_bilinear2d_aa.vec: 2,
    aten._upsample_bicubic2d_aa.vec: 2,
    aten.adaptive_avg_pool1d.default: 1,
    aten.adaptive_avg_pool2d.default: 2,
}
_AVERAGES: dict[Any, int] = {
    aten.avg_pool1d.default: 1,
    aten.avg_pool2d.default: 2,
    aten.avg_pool3d.default: 3,
}
_ANTIALIASED = {aten._upsample_bilinear2d_aa.vec, aten._upsample_bicubic2d_aa.vec}
_SCALED = {aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_bicubic2d.vec}
_TOLERANCE = 1e-6
"""Of a weight, which is at most about one."""


def nearest_by_index(module: GraphModule) -> None:
    """Write nearest-neighbour resizing by no whole factor as a choice of rows and columns.

    TensorFlow Lite's operator has a rule of its own for which pixel is the nearest.
    """
    for node in _calls(module, _NEAREST):
        axes = range(-_NEAREST[node.target], 0)
        chosen = {axis: _along(node, axis, _places(node, axis)).long() for axis in axes}
        if all(_is_whole(c, int(shape_of(argument(node, 0))[axis])) for axis, c in chosen.items()):
            continue
        result = argument(node, 0)
        for axis, places in chosen.items():
            if torch.equal(places, torch.arange(int(shape_of(result)[axis]))):
                continue
            if result is not argument(node, 0):
                result = like_source(node, argument(node, 0), result)
            index = constant(module, node, places)
            result = insert(node, aten.index_select.default, result, axis, index)
        replace(node, result)
    module.recompile()


def _is_whole(places: Tensor, before: int) -> bool:
    """Whether each place is repeated equally often, in order."""
    times, rest = divmod(len(places), before)
    return not rest and torch.equal(places, torch.arange(before).repeat_interleave(times))


def is_antialiased(node: Node) -> bool:
    """Whether a resizing weighs all the pixels that a smaller one stands for."""
    return node.target in _ANTIALIASED


def has_divisor(node: Node) -> bool:
    """Whether an average pooling divides by a number of the user's."""
    return node.target is not aten.avg_pool1d.default and argument(node, 6) is not None


def hangs_over(node: Node) -> bool:
    """Whether the last window of an average pooling reaches beyond the padding.

    onnxruntime's integer kernel counts the places there, which torch doesn't, and so does what the
    converter to TensorFlow Lite makes of pooling in 3-D.
    """
    windows, rank = _windows(node), _AVERAGES[node.target]
    sizes = (shape_of(n)[-rank:] for n in (argument(node, 0), node))
    return any(
        (after - 1) * s + k > before + 2 * p
        for before, after, k, s, p in zip(*sizes, *windows, strict=True)
    )


def shrinks_cubically(node: Node) -> bool:
    """Whether bicubic resizing makes an axis smaller.

    onnxruntime moves channels last beside integer convolutions, and then can't run that.
    """
    if node.target is not aten.upsample_bicubic2d.vec:
        return False
    before, after = shape_of(argument(node, 0))[-2:], shape_of(node)[-2:]
    return any(a < b for a, b in zip(after, before, strict=True))


def scales_by_size(node: Node) -> bool:
    """Whether a resizing's steps are those that the sizes alone give.

    11 pixels times 1.5 are 16, and the step is 1 / 1.5 where the user gave a factor: not 11 / 16.
    """
    if node.target not in _SCALED or argument(node, len(_schema(node)) - 1) is None:
        return True
    rank = _LINEAR[node.target]
    size, corners = [int(s) for s in shape_of(node)[-rank:]], argument(node, 2)
    by_size = (node.args[0], size, corners, None)
    return all(
        torch.allclose(_matrix(node, axis), _matrix(node, axis, by_size), atol=_TOLERANCE)
        for axis in range(-rank, 0)
    )


def linear_by_matrices(module: GraphModule, wanted: Callable[[Node], bool]) -> None:
    """Write resizing as a product with a matrix an axis, where ``wanted`` says so."""
    for node in _calls(module, _LINEAR):
        axes = range(-_LINEAR[node.target], 0)
        if not wanted(node):
            continue
        matrices = [_matrix(node, axis) for axis in axes]
        result: Any = node.args[0]
        if len(axes) == 2:
            result = insert(node, aten.matmul.default, constant(module, node, matrices[0]), result)
        across = constant(module, node, matrices[-1].T.contiguous())
        replace(node, insert(node, aten.matmul.default, result, across))
    module.recompile()


def _calls(module: GraphModule, targets: Any) -> list[Node]:
    nodes = [n for n in module.graph.nodes if n.op == "call_function" and n.target in targets]
    axes = [range(-targets[n.target], 0) for n in nodes]
    fixed = [
        all(isinstance(shape_of(v)[a], int) for v in (n, n.args[0]) for a in along)
        for n, along in zip(nodes, axes, strict=True)
    ]
    return [n for n, known in zip(nodes, fixed, strict=True) if known]


def _places(node: Node, axis: int) -> Tensor:
    return torch.arange(int(shape_of(argument(node, 0))[axis]), dtype=torch.float32)


def _matrix(node: Node, axis: int, args: tuple[Any, ...] | None = None) -> Tensor:
    """What a linear ``node`` multiplies an axis by: the size after times the size before."""
    identity = torch.eye(int(shape_of(argument(node, 0))[axis]))
    return _along(node, axis, identity, args).T.contiguous()


def _schema(node: Node) -> Any:
    target: Any = node.target
    return target._schema.arguments


def _along(node: Node, axis: int, values: Tensor, args: tuple[Any, ...] | None = None) -> Tensor:
    """What ``node`` makes of ``values`` along one of its axes; the last axis of each is that."""
    source = [int(s) for s in shape_of(argument(node, 0))[2:]]
    lines = values.reshape(-1, 1, *[1] * (len(source) - 1), values.shape[-1]).transpose(axis, -1)
    wide = [len(lines), 1, *source]
    wide[axis] = values.shape[-1]
    operator: Any = node.target
    rest = (args or node.args)[1:]
    made = operator(lines.expand(wide).contiguous(), *rest, **({} if args else node.kwargs))
    line: Tensor = made.transpose(axis, -1).flatten(1, -2)[:, 0]
    return line[0] if values.ndim == 1 else line


def plain_averages(module: GraphModule, wanted: Callable[[Node], bool]) -> None:
    """Write average pooling as padding, the plainest pooling, and a correction of the divisors.

    Divisors differ from the window's size where padding isn't counted, where the last window hangs
    over, and where the user gives one.
    """
    for node in [n for n in module.graph.nodes if n.target in _AVERAGES]:
        rank = _AVERAGES[node.target]
        before = [int(s) for s in shape_of(argument(node, 0))[-rank:]]
        if not wanted(node):
            continue
        kernel, stride, padding = _windows(node)
        after = [int(s) for s in shape_of(node)[-rank:]]
        behind = [
            max(0, (a - 1) * s + k - b - p)
            for a, s, k, b, p in zip(after, stride, kernel, before, padding, strict=True)
        ]
        edges = [e for pair in zip(padding[::-1], behind[::-1], strict=True) for e in pair]
        whole = torch.ones(1, 1, *before)
        operator: Any = node.target
        plain = operator(torch.nn.functional.pad(whole, edges), kernel, stride)
        plain = plain[(..., *(slice(size) for size in after))]
        factor = operator(whole, *node.args[1:], **node.kwargs) / plain
        result: Any = node.args[0]
        if any(edges):
            result = insert(node, aten.constant_pad_nd.default, result, edges, 0.0)
        result = insert(node, node.target, result, kernel, stride)
        if not torch.allclose(factor, torch.ones(()), rtol=_TOLERANCE):
            first = factor[(..., *[slice(1)] * rank)]
            if torch.equal(factor, first.expand_as(factor)):
                factor = first.contiguous()
            result = insert(node, aten.mul.Tensor, result, constant(module, node, factor))
        replace(node, result)
    module.recompile()


def whole_averages(module: GraphModule) -> None:
    """Write the average pooling of a whole map as a mean, whose int8 kernel takes two scales."""
    for node in module.graph.find_nodes(op="call_function", target=aten.avg_pool2d.default):
        kernel, _, padding = _windows(node)
        if list(shape_of(argument(node, 0))[-2:]) == kernel and not any(padding):
            node.target, node.args, node.kwargs = aten.mean.dim, (node.args[0], [-2, -1], True), {}
    module.recompile()


def _windows(node: Node) -> tuple[list[int], list[int], list[int]]:
    """Kernel, stride and padding of an average pooling along each axis."""
    rank = _AVERAGES[node.target]
    kernel, padding = _all(argument(node, 1), rank), _all(argument(node, 3, 0), rank)
    return kernel, _all(argument(node, 2, ()), rank) or kernel, padding


def _all(value: Any, rank: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values
