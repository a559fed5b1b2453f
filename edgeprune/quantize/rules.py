# SPDX-License-Identifier: Apache-2.0
"""Which operators run in int8, and how: the table that the quantizer follows.

Taken from what onnxruntime's and LiteRT's int8 kernels accept. An operator that stands in no table
stays float, with a quantize/dequantize pair on each int8 neighbour.
"""

from collections.abc import Callable
from math import inf
from typing import Any

import torch

__all__ = [
    "AFFINE_SCALAR",
    "ATTENTION",
    "AVERAGE",
    "BINARY",
    "BORDERED",
    "CONV_TRANSPOSE",
    "DROPOUT",
    "FILLED",
    "FIXED",
    "JOIN",
    "LOOKUP",
    "NORM",
    "OWN_RANGE",
    "PRODUCT",
    "RELU",
    "SAME_RANGE",
    "SPLIT",
    "WEIGHTED",
    "averages_all",
    "bounds",
    "relu_bounds",
]

aten = torch.ops.aten

CONV_TRANSPOSE = frozenset(
    {
        aten.conv_transpose1d.default,
        aten.conv_transpose2d.input,
        aten.conv_transpose3d.input,
    }
)
"""Only their weights are quantized: both onnxruntime and LiteRT run them in float."""

BORDERED = CONV_TRANSPOSE | {aten.prelu.default}
"""Between integers, but not for the converter to split: transposed convolutions, and PReLU, which
onnxruntime has in float alone and of which the TFLite exporter makes one int8 operator."""

WEIGHTED: dict[Any, int] = {
    aten.conv1d.default: 0,
    aten.conv1d.padding: 0,
    aten.conv2d.default: 0,
    aten.conv2d.padding: 0,
    aten.conv3d.default: 0,
    aten.conv3d.padding: 0,
    **dict.fromkeys(CONV_TRANSPOSE, 1),
    aten.linear.default: 0,
}
"""Input, weight, bias; the weight's output-channel axis, along which its scales run."""

NORM = frozenset({aten.batch_norm.default})

BINARY = frozenset({aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor})
"""Two float tensors, an output range of its own."""


def _plus(number: float) -> tuple[Any, float]:
    return aten.add.Tensor, number


def _minus(number: float) -> tuple[Any, float]:
    return aten.add.Tensor, -number


def _times(number: float) -> tuple[Any, float]:
    return aten.mul.Tensor, number


def _over(number: float) -> tuple[Any, float]:
    return aten.mul.Tensor, 1 / number if number else inf


AFFINE_SCALAR: dict[Any, Callable[[float], tuple[Any, float]]] = {
    aten.add.Tensor: _plus,
    aten.add.Scalar: _plus,
    aten.sub.Tensor: _minus,
    aten.sub.Scalar: _minus,
    aten.mul.Tensor: _times,
    aten.mul.Scalar: _times,
    aten.div.Tensor: _over,
    aten.div.Scalar: _over,
}
"""Called with a Python number: the operator and the tensor operand that do the same."""

PRODUCT = frozenset({aten.matmul.default, aten.bmm.default})

JOIN = frozenset({aten.cat.default})
"""A list of tensors in, each with its own range, so that a clamp before it still fuses."""

SPLIT = frozenset(
    {
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.split.sizes,
        aten.chunk.default,
        aten.unbind.int,
        aten.tensor_split.sections,
    }
)
"""A list of tensors out, each with the input's range."""

LOOKUP = frozenset({aten.embedding.default})

SAME_RANGE = frozenset(
    {
        aten.flatten.using_ints,
        aten.unflatten.int,
        aten.view.default,
        aten._unsafe_view.default,
        aten.reshape.default,
        aten.permute.default,
        aten.transpose.int,
        aten.t.default,
        aten.movedim.int,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.unsqueeze.default,
        aten.slice.Tensor,
        aten.select.int,
        aten.narrow.default,
        aten.expand.default,
        aten.repeat.default,
        aten.contiguous.default,
        aten.clone.default,
        aten.alias.default,
        aten.index.Tensor,
        aten.index_select.default,
        aten.roll.default,
        aten.tril.default,
        aten.triu.default,
        aten.amax.default,
        aten.amin.default,
        aten.pad.default,
        aten.constant_pad_nd.default,
        aten.reflection_pad1d.default,
        aten.reflection_pad2d.default,
        aten.replication_pad1d.default,
        aten.replication_pad2d.default,
        aten.max_pool1d.default,
        aten.max_pool2d.default,
        aten.pixel_shuffle.default,
        aten.pixel_unshuffle.default,
        aten.channel_shuffle.default,
        aten.upsample_nearest2d.vec,
        aten.upsample_nearest2d.default,
        aten.dropout.default,
    }
)
"""Move or choose values: the output has the input's range."""

AVERAGE = frozenset(
    {
        aten.avg_pool1d.default,
        aten.avg_pool2d.default,
        aten.adaptive_avg_pool1d.default,
        aten.adaptive_avg_pool2d.default,
        aten.upsample_bilinear2d.vec,
        aten.upsample_bilinear2d.default,
    }
)
"""LiteRT's kernels want the input's scale for the output. Given two scales, the converter moves the
input to the output's, where its peaks saturate. See also :func:`averages_all`."""

OWN_RANGE = frozenset(
    {
        aten.mean.dim,
        aten.hardswish.default,
        aten.hardsigmoid.default,
        aten.gelu.default,
        aten.leaky_relu.default,
        aten.prelu.default,
        aten.relu.default,
        aten.hardtanh.default,
        aten.clamp.default,
        aten.clamp_min.default,
    }
)
"""One float input, an output range that is observed."""

FIXED: dict[Any, tuple[float, int]] = {
    aten.softmax.int: (1 / 256, -128),
    aten._softmax.default: (1 / 256, -128),
    aten.sigmoid.default: (1 / 256, -128),
    aten.tanh.default: (1 / 128, 0),
}
"""Scale and zero point that LiteRT's int8 kernels prescribe."""

RELU = frozenset(
    {
        aten.relu.default,
        aten.hardtanh.default,
        aten.clamp.default,
        aten.clamp_min.default,
    }
)
"""Fused into the operator before them where :func:`relu_bounds` finds a form that runtimes fuse."""

DROPOUT = frozenset(
    {
        aten.dropout.default,
        aten.feature_dropout.default,
        aten.alpha_dropout.default,
        aten.feature_alpha_dropout.default,
        aten.dropout_.default,
        aten.feature_dropout_.default,
        aten.alpha_dropout_.default,
        aten.feature_alpha_dropout_.default,
    }
)

ATTENTION = frozenset(
    {
        aten.scaled_dot_product_attention.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
    }
)

FILLED = frozenset(
    {
        aten.full_like.default,
        aten.zeros_like.default,
        aten.ones_like.default,
        aten.new_full.default,
        aten.new_zeros.default,
        aten.new_ones.default,
    }
)
"""Take only the shape of their operand."""

_FUSED_BOUNDS = {(0.0, None), (0.0, 6.0)}


def averages_all(node: torch.fx.Node) -> bool:
    """Whether a pooling makes one value of each map, which the runtimes give a scale of its own."""
    if node.target is aten.adaptive_avg_pool1d.default:
        return node.args[1] == [1]
    if node.target is aten.adaptive_avg_pool2d.default:
        return node.args[1] == [1, 1]
    if node.target is not aten.avg_pool2d.default or any(_two(node, 3, 0)):
        return False
    source: Any = node.args[0]
    return list(source.meta["val"].shape[-2:]) == _two(node, 1, 1)


def _two(node: torch.fx.Node, place: int, default: int) -> list[int]:
    """A pooling's setting down and across."""
    given: Any = node.args[place] if len(node.args) > place else default
    return (list(given) * 2)[:2] if isinstance(given, list | tuple) else [given, given]


def bounds(node: torch.fx.Node) -> tuple[float | None, float | None]:
    """Between what a clamp, one of ``RELU``, holds its values; ``None``: no bound."""
    if node.target is aten.relu.default:
        return 0.0, None
    default = (-1.0, 1.0) if node.target is aten.hardtanh.default else (None, None)
    names = ("min_val", "max_val") if node.target is aten.hardtanh.default else ("min", "max")
    given: tuple[Any, ...] = node.args[1:3]
    low = given[0] if given else node.kwargs.get(names[0], default[0])
    high = given[1] if len(given) > 1 else node.kwargs.get(names[1], default[1])
    return low, high  # type: ignore[return-value]


def relu_bounds(node: torch.fx.Node) -> tuple[float | None, float | None] | None:
    """The bounds of a clamp that runtimes fuse into a convolution; ``None`` for any other node."""
    if node.op != "call_function" or node.target not in RELU:
        return None
    found = bounds(node)
    return found if found in _FUSED_BOUNDS else None
