# SPDX-License-Identifier: Apache-2.0
"""Element by element: what broadcasts together lives together."""

from edgeprune.channels.atoms import Axis
from edgeprune.channels.op import Op, Rule, Value

__all__ = ["RULES", "pointwise"]


def pointwise(op: Op) -> Value:
    """Broadcast all tensor arguments; equal sizes are glued, a size of one follows the others."""
    rank = len(op.shape())
    out: list[Axis | None] = [None] * rank
    shape = op.shape()
    for back in range(1, rank + 1):
        axes = [
            (dims[-back], op.shape(node)[-back])
            for node in op.node.all_input_nodes
            if len(dims := op.dims(node)) >= back
        ]
        wide = [axis for axis, size in axes if size == shape[-back]]
        tracked = next((a for a in wide if a is not None), None)
        for axis in wide:
            if tracked is not None and axis is not tracked:
                op.glue(axis, tracked)
        out[-back] = tracked if all(a is not None for a in wide) else None
    return tuple(out)


def same(op: Op) -> Value:
    """The result has the dimensions of the first tensor."""
    return op.values[op.source]


def native_dropout(op: Op) -> Value:
    """Dropout and its mask."""
    dims = op.dims(op.source)
    return [dims, dims]


def prelu(op: Op) -> Value:
    """PReLU: one slope for each channel, or one for all."""
    dims = op.dims(op.argument("self"))
    (slope,) = op.dims(op.argument("weight"))
    if len(dims) > 1 and slope is not None and slope.size > 1:
        op.glue(dims[1], slope)
    return dims


def along(op: Op) -> Value:
    """Softmax and its kin: the axis they run over stays whole."""
    dims = op.dims(op.argument("self"))
    if dims:
        axis = dims[op.argument("dim", 0) % len(dims)]
        if axis is not None and axis.size > 1:
            op.freeze(axis, f"{op.name} axis")
    return dims


def glu(op: Op) -> Value:
    """GLU: the first half of an axis times the sigmoid of the second."""
    dims = op.dims(op.argument("self"))
    dim = op.argument("dim") % len(dims)
    axis = dims[dim]
    half = None if axis is None else op.atoms.fold(axis, (2, axis.size // 2), 1)
    return (*dims[:dim], half, *dims[dim + 1 :])


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ["dropout", "feature_dropout", "alpha_dropout", "contiguous", "clone", "detach", "alias",
         "to", "_to_copy", "lift_fresh_copy", "type_as", "detach_", "dropout_",
         "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like",
         "_assert_tensor_metadata", "real", "imag", "conj", "_conj", "resolve_conj", "positive"],
        same,
    ),
    **dict.fromkeys(
        ["where", "masked_fill", "masked_fill_", "copy_", "clamp", "lerp", "addcmul", "addcdiv",
         "rsub", "hardswish", "hardswish_", "log_sigmoid", "rrelu", "floor_divide", "fill_",
         "zero_", "nan_to_num", "complex", "polar",
         "fake_quantize_per_tensor_affine"],
        pointwise,
    ),
    **dict.fromkeys(
        ["softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod",
         "logcumsumexp"],
        along,
    ),
    "native_dropout": native_dropout,
    "prelu": prelu,
    "_prelu_kernel": prelu,
    "glu": glu,
}  # fmt: skip
