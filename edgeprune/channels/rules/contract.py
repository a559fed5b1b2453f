# SPDX-License-Identifier: Apache-2.0
"""Sums of products: convolutions, linear layers, matrix products, attention, embeddings."""

from math import prod, sqrt
from typing import Any

import numpy as np
from torch.fx import Node

from edgeprune.channels.atoms import Axis, Dims
from edgeprune.channels.op import Kept, Op, Rule, Value, set_argument

__all__ = ["RULES"]


_LIFT = {
    "sigmoid", "sigmoid_", "hardsigmoid", "softplus", "log_sigmoid", "exp", "exp_", "cos", "cosh",
    "acos", "softmax", "rsub", "ones", "full", "ones_like", "full_like", "new_ones", "arange",
}  # fmt: skip
"""Operators that make something of nothing."""
_WEIGHTED = {"linear", "embedding", "batch_norm", "layer_norm", "rms_norm", "group_norm"}
_FAR = 60


def renormalise(op: Op, axis: Axis | None, *factors: Any) -> None:
    """Note that the sum over ``axis`` changes with its removal, where no factor of it is sure to be
    zero in a masked channel: ``(elu(q) + 1) @ (elu(k) + 1).T``."""
    if axis is not None and all(_lifted(factor, {}) for factor in factors):
        op.atoms.renormalise(axis, op.node.name)


def _lifted(node: Any, known: dict[Node, bool]) -> bool:
    """Whether a channel may be other than zero in ``node`` though all of its weights are zero."""
    if not isinstance(node, Node) or node.op != "call_function":
        return False
    if node not in known:
        known[node] = len(known) > _FAR or _lifts(node, known)
    return known[node]


def _lifts(node: Node, known: dict[Node, bool]) -> bool:
    name = str(getattr(node.target, "_schema", node.target)).split("(")[0]
    name = name.split("::")[-1].split(".")[0]
    if name in _LIFT:
        return True
    if name in _WEIGHTED or name.startswith("conv"):
        return len(node.args) < 2 or _lifted(node.args[1], known)
    if name in ("add", "add_", "sub", "sub_") and not isinstance(node.args[1], Node):
        return bool(node.args[1])
    lifted = [_lifted(n, known) for n in node.all_input_nodes]
    return all(lifted) if name in ("mul", "mul_") and lifted else any(lifted)


def linear(op: Op) -> Value:
    """``x @ weight.T + bias``: inputs are glued to the weight's columns, outputs are its rows."""
    x, weight = op.dims(op.argument("input")), op.dims(op.argument("weight"))
    op.glue(x[-1], weight[1])
    renormalise(op, weight[1], op.argument("weight"), op.argument("input"))
    bias = op.dims(op.argument("bias"))
    if bias:
        op.glue(bias[0], weight[0])
    total = prod(op.sizes()) * op.shape(op.argument("weight"))[1]
    op.product(total, *x[:-1], weight[0], weight[1])
    return (*x[:-1], weight[0])


def convolution(op: Op) -> Value:
    """Convolution, plain or transposed, in one to three dimensions, with groups."""
    x, weight = op.dims(op.argument("input")), _known(op, op.argument("weight"))
    groups = op.argument("groups", 1)
    transposed = op.name.startswith("conv_transpose") or bool(op.argument("transposed", False))
    for kernel in weight[2:]:
        op.freeze(kernel, "kernel")
    rank = len(weight) - 2
    place = len(x) - rank - 1
    for axis in x[place + 1 :]:
        op.freeze(axis, "space")
    out = _grouped(op, x[place], weight, groups, transposed)
    renormalise(op, x[place], op.argument("weight"), op.argument("input"))
    bias = op.dims(op.argument("bias"))
    if bias:
        op.glue(bias[0], out)
    _count_convolution(op, x[: place + 1], out, groups, transposed)
    return (*x[:place], out, *(None,) * rank)


def _known(op: Op, node: Any) -> list[Axis]:
    """The dimensions of a weight, those that no parameter owns with atoms that stay."""
    known = []
    for axis, size in zip(op.dims(node), op.shape(node), strict=True):
        fixed = op.atoms.fresh(size) if axis is None else None
        op.freeze(fixed, "a weight of fixed size")
        known += [a for a in (axis, fixed) if a is not None]
    return known


def _grouped(
    op: Op, x: Axis | None, weight: list[Axis], groups: int, transposed: bool
) -> Axis | None:
    rows, columns = weight[0], weight[1]
    if groups == 1:
        op.glue(x, rows if transposed else columns)
        return columns if transposed else rows
    inputs = op.shape(op.argument("input"))[-(len(weight) - 1)]
    if inputs == groups:
        return _depthwise(op, x, rows, columns, transposed)
    if x is not None and _go_whole(op, x, transposed):
        return _whole_groups(op, x, rows, columns)
    # Equal groups: the same positions go in each of them.
    per_group = inputs // groups
    if transposed:
        op.glue(x, rows)
    if x is None:
        op.freeze(columns, "input" if op.source in op.reads else "grouped convolution")
    else:
        folded = op.atoms.fold(x, (groups, per_group), 1)
        if not transposed:
            op.glue(folded, columns)
    if transposed:
        return np.tile(columns, groups)
    op.atoms.fold(rows, (groups, rows.size // groups), 1)
    return rows


def _go_whole(op: Op, x: Axis | None, transposed: bool) -> bool:
    return op.policy.grouped == "groups" and x is not None and not transposed


def _whole_groups(op: Op, x: Axis, rows: Axis, columns: Axis) -> Axis:
    """By policy: a group goes with all its inputs and outputs, and the others stay as they are."""
    groups = op.argument("groups")
    op.freeze(columns, "groups go whole")
    lead = op.atoms.fold(rows, (groups, rows.size // groups), 0)
    op.glue(op.atoms.fold(x, (groups, x.size // groups), 0), lead)
    _edit_groups(op, lead)
    return rows


def _edit_groups(op: Op, lead: Axis) -> None:
    def change(node: Node, kept: Kept) -> None:
        set_argument(node, "groups", kept(lead))

    op.edit(change)


def _depthwise(op: Op, x: Axis | None, rows: Axis, columns: Axis, transposed: bool) -> Axis | None:
    groups = op.argument("groups")
    multiplier = columns.size if transposed else rows.size // groups
    op.freeze(columns, "kernel")
    if transposed:
        out = np.repeat(rows, multiplier)
        op.glue(x, rows)
    else:
        out = rows
        lead = op.atoms.fold(rows, (groups, multiplier), 0)
        op.glue(x, lead)
    if x is None:
        return None
    _edit_groups(op, x)
    return out


def _count_convolution(
    op: Op, before: Dims, out: Axis | None, groups: int, transposed: bool
) -> None:
    *lead, x = before  # channels may have been merged with the batch
    kernel = op.shape(op.argument("weight"))[2:]
    rank = len(kernel)
    image = op.argument("input") if transposed else op.node
    inputs = op.sizes(op.argument("input"))[-(rank + 1)]
    outputs = op.sizes()[-(rank + 1)]
    space = prod(op.sizes(image)[-rank:])
    batch = prod(op.sizes()[: -(rank + 1)])
    total = batch * space * prod(kernel) * inputs * outputs // groups
    together = groups > 1 and (inputs == groups or _go_whole(op, x, transposed))
    op.product(total, *lead, *((out,) if together else (x, out)))


def matmul(op: Op) -> Value:
    """``a @ b`` with broadcast batch dimensions; also ``mm`` and ``bmm``."""
    a, b = op.node.args[0], op.node.args[1]
    return _matmul(op, a, b)


def _matmul(op: Op, a: Any, b: Any) -> Value:
    left, right = op.dims(a), op.dims(b)
    shape_a, shape_b = op.shape(a), op.shape(b)
    row, column = len(left) == 1, len(right) == 1  # vectors: a dimension of one comes and goes
    if row:
        left, shape_a = (None, *left), (1, *shape_a)
    if column:
        right, shape_b = (*right, None), (*shape_b, 1)
    op.glue(left[-1], right[-2])
    renormalise(op, left[-1], a, b)
    batch = _broadcast(op, left[:-2], right[:-2], shape_a[:-2], shape_b[:-2])
    heads = [axis for axis in batch if axis is not None]
    inner = left[-1] if left[-1] is not None else right[-2]
    op.product(prod(op.sizes()) * op.sizes(a)[-1], left[-2], right[-1], inner, *heads)
    ends = (() if row else (left[-2],), () if column else (right[-1],))
    return (*batch, *ends[0], *ends[1])


def experts(op: Op) -> Value:
    """Each row of the input by the matrix of its own expert, ``(experts, in, out)``."""
    x, weight = op.dims(op.node.args[0]), op.dims(op.node.args[1])
    op.freeze(weight[0], "looked up by value")
    op.glue(x[-1], weight[1])
    rows, columns = op.source, weight[1]
    op.product(prod(op.sizes()) * op.sizes(rows)[-1], columns, weight[2])
    return (*x[:-1], weight[2])


def outer(op: Op) -> Value:
    """All products of two vectors."""
    return (op.dims(op.node.args[0])[0], op.dims(op.node.args[1])[0])


def bilinear(op: Op) -> Value:
    """``x1 @ weight[o] @ x2 + bias``: one column of the weight for each input, rows are outputs."""
    x1, x2, weight = (op.dims(op.argument(name)) for name in ("input1", "input2", "weight"))
    op.glue(x1[-1], weight[1])
    op.glue(x2[-1], weight[2])
    bias = op.dims(op.argument("bias"))
    if bias:
        op.glue(bias[0], weight[0])
    total = prod(op.sizes()) * prod(op.shape(op.argument("weight"))[1:])
    op.product(total, weight[0], weight[1], weight[2])
    return (*x1[:-1], weight[0])


def distance(op: Op) -> Value:
    """Distances between all pairs of points: a sum over the last dimension of both."""
    points: list[Any] = list(op.node.args[:2])
    left, right = (op.dims(p) for p in points)
    op.glue(left[-1], right[-1])
    op.atoms.renormalise(left[-1], op.node.name)
    shapes = [op.shape(p) for p in points]
    batch = _broadcast(op, left[:-2], right[:-2], shapes[0][:-2], shapes[1][:-2])
    return (*batch, left[-2], right[-2])


def _broadcast(
    op: Op, a: Dims, b: Dims, shape_a: tuple[int, ...], shape_b: tuple[int, ...]
) -> list[Axis | None]:
    out: list[Axis | None] = []
    for back in range(max(len(a), len(b)), 0, -1):
        left, right = (a[-back] if back <= len(a) else None), (b[-back] if back <= len(b) else None)
        wide_a = back <= len(a) and shape_a[-back] != 1
        wide_b = back <= len(b) and shape_b[-back] != 1
        if wide_a and wide_b:
            op.glue(left, right)
            out.append(left if right is not None else None)
        else:
            out.append(left if wide_a else right if wide_b else None)
    return out


def addmm(op: Op) -> Value:
    """``bias + a @ b``."""
    out = _matmul(op, op.node.args[1], op.node.args[2])
    bias = op.node.args[0]
    dims = op.dims(bias)
    if isinstance(bias, Node) and isinstance(out, tuple):
        shape = op.shape()
        for back in range(1, len(dims) + 1):
            if op.shape(bias)[-back] == shape[-back]:
                op.glue(dims[-back], out[-back])
    return out


def attention(op: Op) -> Value:
    """``scaled_dot_product_attention``: heads together, q with k, the result is v's width."""
    nodes = [op.argument(name) for name in ("query", "key", "value")]
    q, k, v = (op.dims(n) for n in nodes)
    for axis in (k[-2], v[-2]):
        op.freeze(axis, "softmax axis")
    op.glue(q[-1], k[-1])
    renormalise(op, q[-1], nodes[0], nodes[1])
    rank = len(q)
    for place in range(rank - 2):
        op.glue(k[place], v[place])
        _share_heads(op, q[place], k[place])
    _mask(op, q)
    if q[-1] is not None:
        _fix_scale(op, q[-1])
    heads = [axis for axis in q[:-2] if axis is not None]
    sizes_q, sizes_k, sizes_v = (op.sizes(n) for n in nodes)
    pairs = prod(sizes_q[:-1]) * sizes_k[-2]
    op.product(pairs * sizes_q[-1], *heads, q[-1])
    op.product(pairs * sizes_v[-1], *heads, v[-1])
    return (*q[:-1], v[-1])


def _share_heads(op: Op, q: Axis | None, k: Axis | None) -> None:
    if q is not None and k is not None and q.size != k.size:
        q = op.atoms.fold(q, (k.size, q.size // k.size), 0)
    op.glue(q, k)


def _mask(op: Op, q: Dims) -> None:
    mask = op.argument("attn_mask")
    dims = op.dims(mask)
    if not isinstance(mask, Node):
        return
    for back in range(1, len(dims) + 1):
        if back > 2 and op.shape(mask)[-back] > 1:
            op.glue(dims[-back], q[-back])
        else:
            op.freeze(dims[-back], "attention mask")


def _fix_scale(op: Op, width: Axis) -> None:
    scale = 1 / sqrt(width.size)

    def change(node: Node, kept: Kept) -> None:
        if kept(width) != width.size and node.kwargs.get("scale") is None:
            node.update_kwarg("scale", scale)

    op.edit(change)


def embedding(op: Op) -> Value:
    """A table look-up: the rows are values of the input and stay."""
    weight = op.dims(op.argument("weight"))
    op.freeze(weight[0], "looked up by value")
    indices = op.dims(op.argument("indices"))
    for axis in indices:
        op.freeze(axis, "values of an index")
    return (*(None,) * len(indices), weight[1])


RULES: dict[str, Rule] = {
    "linear": linear,
    **dict.fromkeys(
        ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
         "convolution"],
        convolution,
    ),
    "matmul": matmul,
    "mm": matmul,
    "bmm": matmul,
    "mv": matmul,
    "dot": matmul,
    "vdot": matmul,
    "addmm": addmm,
    "baddbmm": addmm,
    "addmv": addmm,
    **dict.fromkeys(["grouped_mm_fallback", "_grouped_mm"], experts),
    "outer": outer,
    "ger": outer,
    "bilinear": bilinear,
    **dict.fromkeys(["cdist", "_cdist_forward", "_euclidean_dist"], distance),
    "scaled_dot_product_attention": attention,
    "embedding": embedding,
}  # fmt: skip
