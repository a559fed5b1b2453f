# SPDX-License-Identifier: Apache-2.0
"""Operators that a converter lacks or gets wrong, written in plainer ones in an exported graph."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeprune.export.graph_edit import constant, insert, like_source, replace, shape_of
from edgeprune.model.program import argument

__all__ = ["has_equal_bags", "write_plainly"]

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
    other = isinstance(kind, str) and kind != "constant"
    if min(amounts, default=0) >= 0 or other:
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


def _reversed(module: GraphModule, node: Node) -> Node | None:
    """``1 - x``: the converter to TensorFlow Lite gives ``x - 1``."""
    x, other, alpha = argument(node, 0), argument(node, 1), argument(node, 2, 1)
    negative = insert(node, aten.mul.Tensor, x, -alpha)
    return insert(node, aten.add.Tensor, negative, other)


def _scaled(module: GraphModule, node: Node) -> Node | None:
    """``x + alpha * y``, which the converter to TensorFlow Lite refuses."""
    alpha = node.kwargs.get("alpha", 1)
    if alpha == 1 or not isinstance(node.args[1], Node):
        return None
    product = insert(node, aten.mul.Tensor, node.args[1], alpha)
    return insert(node, node.target, node.args[0], product)


def _same(module: GraphModule, node: Node) -> Node | None:
    """Pad by numbers where ``padding="same"`` adds more behind than before."""
    x, weight, bias, stride, how, dilation, groups = (
        argument(node, at, default) for at, default in enumerate(_CONVOLVED)
    )
    rank = len(shape_of(weight)) - 2
    steps = _all(dilation, rank)
    widths = [d * (k - 1) for d, k in zip(steps, shape_of(weight)[2:], strict=True)]
    if how != "same":
        widths = [0] * rank
    before, rest = [w // 2 for w in widths], [w % 2 for w in widths]
    if any(rest):
        edges = [side for one in reversed(rest) for side in (0, one)]
        padded = insert(node, aten.constant_pad_nd.default, x, edges, 0.0)
        x = like_source(node, x, padded)
    target = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)[rank - 1]
    return insert(node, target, x, weight, bias, _all(stride, rank), before, steps, groups)


def _all(value: Any, rank: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


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


def _largest(module: GraphModule, node: Node) -> None:
    """Values by their indices: without those the file would hold a sort, which nothing runs."""
    x = argument(node, 0)
    if node.target is aten.topk.default:
        count, axis, most = argument(node, 1), argument(node, 2, -1), argument(node, 3, True)
    else:
        axis, most = argument(node, 1, -1), argument(node, 2, False)
        count = int(shape_of(x)[axis])
    places = _ranked(node, x, axis, most, count)
    values = insert(node, aten.gather.default, x, axis, places)
    for user in list(node.users):
        replace(user, (values, places)[user.args[1]])  # type: ignore[index]
    node.graph.erase_node(node)


def _repeat(module: GraphModule, node: Node) -> Node | None:
    """The converter to TensorFlow Lite loses count of the axes of a repeated image."""
    result, times = argument(node, 0), list(argument(node, 1))
    if len(times) != len(shape_of(result)) or not all(isinstance(t, int) and t for t in times):
        return None
    for axis, count in enumerate(times):
        if count > 1:
            result = insert(node, aten.cat.default, [result] * count, axis)
    return result  # type: ignore[no-any-return]


def _xor(module: GraphModule, node: Node) -> Node:
    """Two truths are unlike."""
    truths = [insert(node, aten.ne.Scalar, a, 0) for a in node.args]
    return insert(node, aten.ne.Tensor, *truths)


def _order(module: GraphModule, node: Node) -> Node:
    """The places of a sort, without its values."""
    x, axis, descending = argument(node, 0), argument(node, 1, -1), argument(node, 2, False)
    return _ranked(node, x, axis, descending, int(shape_of(x)[axis]))


def _ranked(node: Node, x: Node, axis: int, most: bool, count: int) -> Node:
    """Where the ``count`` largest, or smallest, values along an axis are."""
    last = len(shape_of(x)) - 1
    ranked = x if most else insert(node, aten.neg.default, x)
    ranked = insert(node, aten.transpose.int, ranked, axis, last)
    pair = insert(node, aten.topk.default, ranked, count)
    places = insert(node, operator.getitem, pair, 1)
    return insert(node, aten.transpose.int, places, axis, last)


def _windows(module: GraphModule, node: Node) -> Node:
    """Windows that slide along an axis: chosen place by place, then parted."""
    x, axis, size, step = (argument(node, at) for at in range(4))
    axis %= len(shape_of(x))
    starts = torch.arange(0, int(shape_of(x)[axis]) - size + 1, step)
    places = (starts[:, None] + torch.arange(size)).flatten()
    index = constant(module, node, places)
    result = insert(node, aten.index_select.default, x, axis, index)
    result = insert(node, aten.unflatten.int, result, axis, [len(starts), size])
    return insert(node, aten.movedim.int, result, axis + 1, -1)


def _one_hot(module: GraphModule, node: Node) -> Node | None:
    """Without the check of the classes, which no file can hold."""
    x, classes = argument(node, 0), argument(node, 1, -1)
    if not isinstance(classes, int) or classes < 1:
        return None
    numbers = constant(module, node, torch.arange(classes))
    equal = insert(node, aten.eq.Tensor, insert(node, aten.unsqueeze.default, x, -1), numbers)
    return insert(node, aten.to.dtype, equal, torch.int64)


def _folded(module: GraphModule, node: Node) -> Node:
    """Windows added where they overlap: a transposed convolution with a one in each kernel.

    Channels count as samples: TensorFlow Lite has no groups, and would run one operator a channel.
    """
    x, size, kernel, dilation, padding, stride = (argument(node, at) for at in range(6))
    window = kernel[0] * kernel[1]
    channels = int(shape_of(x)[-2]) // window
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    given = zip(size, spans, padding, stride, strict=True)
    edges = [(out + 2 * pad - span, step) for out, span, pad, step in given]
    grid, extra = [e // s + 1 for e, s in edges], [e % s for e, s in edges]
    ones = torch.eye(window).reshape(window, 1, *kernel)
    maps = insert(node, aten.reshape.default, x, [-1, window, *grid])
    weight = constant(module, node, ones)
    more = (weight, None, stride, padding, extra, 1, dilation)
    made = insert(node, aten.conv_transpose2d.input, maps, *more)
    lead = [-1] if len(shape_of(x)) == 3 else []
    return insert(node, aten.reshape.default, made, [*lead, channels, *size])


def _unbound(module: GraphModule, node: Node) -> None:
    """Slices, one by one: the converter to TensorFlow Lite lays the list out as an image."""
    x, axis = argument(node, 0), argument(node, 1, 0)
    for user in list(node.users):
        replace(user, insert(user, aten.select.int, x, axis, user.args[1]))
    node.graph.erase_node(node)


def has_equal_bags(node: Node) -> bool:
    """Whether a bag of embeddings is a row of a matrix of ids, which needs no loop."""
    offsets, padding = argument(node, 2), argument(node, 8)
    padded = padding is not None and padding >= 0 and argument(node, 4, 0) == _MAXIMUM
    rows = offsets.target is aten.arange.start_step and offsets.args[0] == 0
    only = all(user.args[1:] == (0,) for user in node.users)
    return rows and only and not padded and not argument(node, 7, False)


def _bag(module: GraphModule, node: Node) -> None:
    """Rows looked up, then their sum, mean or maximum: the translation to ONNX makes a loop."""
    if not has_equal_bags(node):
        return
    weight, ids, offsets, weights = (argument(node, at) for at in (0, 1, 2, 6))
    places = insert(node, aten.reshape.default, ids, [-1, offsets.args[2]])
    rows = insert(node, aten.embedding.default, weight, places)
    if weights is not None:
        factors = insert(node, aten.reshape.default, weights, [-1, offsets.args[2], 1])
        rows = insert(node, aten.mul.Tensor, rows, factors)
    mode, padding = argument(node, 4, 0), argument(node, 8)
    if padding is not None and padding >= 0:
        counts = insert(node, aten.ne.Scalar, places, padding)
        counts = insert(
            node, aten.to.dtype, insert(node, aten.unsqueeze.default, counts, 2), torch.float32
        )
        rows = insert(node, aten.mul.Tensor, rows, counts)
        result = insert(node, aten.sum.dim_IntList, rows, [1])
        if mode == _MEAN:
            count = insert(node, aten.sum.dim_IntList, counts, [1])
            result = insert(
                node, aten.div.Tensor, result, insert(node, aten.clamp.default, count, 1)
            )
    else:
        result = insert(node, _BAGS[mode], rows, [1])
    for user in list(node.users):
        replace(user, result)
    node.graph.erase_node(node)


def _masked(module: GraphModule, node: Node) -> Node | None:
    """Attention with a mask of finite numbers to add, without the rows that attend nothing.

    Between int8 layers the converter to TensorFlow Lite seeks a scale for what it masks with, which
    is infinite; the translation to ONNX lets rows that attend nothing attend all.
    """
    mask = argument(node, 3)
    if mask is None or mask.meta["val"].dtype != torch.bool:
        return None
    zero, low = (constant(module, node, torch.tensor(number)) for number in (0.0, _LOW))
    added = insert(node, aten.where.self, mask, zero, low)
    result = insert(node, node.target, *node.args[:3], added, *node.args[4:])
    result.kwargs = {k: v for k, v in node.kwargs.items() if k != "attn_mask"}
    attends = insert(node, aten.any.dim, mask, -1, True)
    return insert(node, aten.where.self, attends, result, zero)


def _evaluated(module: GraphModule, node: Node) -> Node | None:
    """A tensor of numbers that the graph knows."""
    if node.all_input_nodes:
        return None
    operator: Any = node.target
    return constant(module, node, operator(*node.args, **node.kwargs))


def _leaky(module: GraphModule, node: Node) -> Node | None:
    """A slope drawn at random is their middle once training is over."""
    if argument(node, 3, False):
        return None
    lower, upper = argument(node, 1, 1 / 8), argument(node, 2, 1 / 3)
    return insert(node, aten.leaky_relu.default, argument(node, 0), (lower + upper) / 2)


def _expand(module: GraphModule, node: Node) -> Node | None:
    """Leave it to arithmetic to broadcast; the converter lays the two operands out apart.

    New axes come first, by themselves: the converter takes the sum over one for the operand.
    """
    source, shape = argument(node, 0), shape_of(node)
    if len(shape_of(source)) != len(shape):
        while len(shape_of(source)) < len(shape):
            source = insert(node, aten.unsqueeze.default, source, 0)
        return insert(node, node.target, source, *node.args[1:])
    for user in node.users:
        others = [a for a in user.args if isinstance(a, Node) and a is not node]
        if user.target not in _ARITHMETIC or not any(shape_of(a) == shape for a in others):
            return None
    return source  # type: ignore[no-any-return]


_ARITHMETIC = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}
_CONVOLVED = (None, None, None, 1, "valid", 1, 1)
"""Defaults of a convolution with named padding."""
_LOW = -1e9
"""What is added to scores that don't count: exp gives zero for it."""
_BAGS = (aten.sum.dim_IntList, aten.mean.dim, aten.amax.default)
"""By the number of a mode."""
_MEAN, _MAXIMUM = 1, 2
_ADAPTIVE: dict[Any, int] = {
    aten.adaptive_max_pool1d.default: 1,
    aten.adaptive_max_pool2d.default: 2,
}
_PLAINER: dict[Any, Callable[[GraphModule, Node], Node | None]] = {
    aten.pixel_unshuffle.default: _pixel_unshuffle,
    aten.expand.default: _expand,
    aten.expand_as.default: _expand,
    aten.rsub.Scalar: _reversed,
    aten.rsub.Tensor: _reversed,
    aten.add.Tensor: _scaled,
    aten.sub.Tensor: _scaled,
    aten.conv1d.padding: _same,
    aten.conv3d.padding: _same,
    aten.pad.default: _pad,
    aten.constant_pad_nd.default: _pad,
    aten.rrelu.default: _leaky,
    aten.repeat.default: _repeat,
    aten.tile.default: _repeat,
    aten.logical_xor.default: _xor,
    aten.argsort.default: _order,
    aten.col2im.default: _folded,
    aten.unbind.int: _unbound,
    aten.scaled_dot_product_attention.default: _masked,
    aten.embedding_bag.default: _bag,
    aten.embedding_bag.padding_idx: _bag,
    **dict.fromkeys(
        (
            aten.eye.default,
            aten.eye.m,
            aten.linspace.default,
            aten.tril_indices.default,
            aten.triu_indices.default,
        ),
        _evaluated,
    ),
    aten.one_hot.default: _one_hot,
    aten.unfold.default: _windows,
    aten.sort.default: _largest,
    aten.topk.default: _largest,
    **dict.fromkeys(_ADAPTIVE, _adaptive_max),
}
