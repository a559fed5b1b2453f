# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of one operator for one run of the model.

Counted are sums of products: convolutions, linear layers, matrix products, recurrent layers,
attention. The bias, activations, normalisation, pooling and element-wise operators are none, as in
``edgeprune inspect`` and the usual counters. An operator that isn't in these tables, or whose
shapes aren't known, raises ``Unknown``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from edgeprune.artifact.call import Call, Unknown
from edgeprune.artifact.graph import Tensor
from edgeprune.artifact.operators import LITE_PRODUCTS, bare
from edgeprune.artifact.silent import LITE_SILENT, ONNX_SILENT

__all__ = ["LITE", "ONNX", "macs"]

Count = Callable[[Call, tuple[int, ...]], int]


def macs(call: Call, output: Tensor | None, lite: bool) -> int:
    """The multiply-accumulates of an operator with that first output.

    Raises:
        Unknown: They can't be told; the text says why.
    """
    kind = call.operator.type
    if kind in (LITE_SILENT if lite else ONNX_SILENT) or (
        not lite and kind.startswith("com.microsoft.") and bare(kind) in ONNX_SILENT
    ):
        return 0
    count = (LITE if lite else ONNX).get(kind)
    if count is None:
        raise Unknown("there is no rule for its multiply-accumulates")
    try:
        return count(call, _sizes(output))
    except (ArithmeticError, LookupError, ValueError, TypeError):
        raise Unknown("its shapes or attributes contradict each other") from None


def _sizes(tensor: Tensor | None) -> tuple[int, ...]:
    if tensor is None or tensor.shape is None:
        raise Unknown("the shape of its output isn't known")
    sizes = tuple(size for size in tensor.shape if isinstance(size, int))
    if len(sizes) < len(tensor.shape):
        raise Unknown(f"a size of its output '{tensor.name}' isn't known")
    return sizes


def _conv(call: Call, out: tuple[int, ...], weight: int = 1) -> int:
    """Weight (out, in / groups, window ...)."""
    return prod(out) * prod(call.sizes(weight)[1:])


def _deconv(call: Call, out: tuple[int, ...], weight: int = 1) -> int:
    """Weight (in, out / groups, window ...): each input is multiplied with all of its row."""
    return prod(call.sizes(0)) * prod(call.sizes(weight)[1:])


def _gemm(call: Call, out: tuple[int, ...]) -> int:
    rows, columns = call.sizes(0)
    return prod(out) * (rows if call.integer("transA", 0) else columns)


def _matmul(call: Call, out: tuple[int, ...]) -> int:
    sizes = call.sizes(0)
    return prod(out) * sizes[-2 if call.integer("transA", 0) and len(sizes) > 1 else -1]


def _nbits(call: Call, out: tuple[int, ...]) -> int:
    return prod(out) * call.integer("K")


def _einsum(call: Call, out: tuple[int, ...]) -> int:
    equation = call.text("equation").replace(" ", "")
    if "->" not in equation or "." in equation or len(call.inputs) != 2:
        raise Unknown("only equations of two operands in the explicit form are counted")
    left, right = equation.split("->")
    size = {
        letter: length
        for at, letters in enumerate(left.split(","))
        for letter, length in zip(letters, call.sizes(at), strict=True)
    }
    return prod(size.values()) if set(size) - set(right) else 0


def _recurrent(call: Call, out: tuple[int, ...]) -> int:
    """Weights (directions, gates, ...) for the input and the state, used at each step."""
    steps, batch = call.sizes(0)[:2]
    return steps * batch * (prod(call.sizes(1)) + prod(call.sizes(2)))


def _standard_attention(call: Call, out: tuple[int, ...]) -> int:
    """Query (batch, heads, length, width) or (batch, length, heads x width); key and value too."""
    if call.has(4):
        raise Unknown("the length of its past isn't known")
    query, key, value = (call.sizes(at) for at in range(3))
    length = key[-2]
    wide = value[-1] if len(value) == 4 else value[-1] // call.integer("kv_num_heads")
    heads = query[1] if len(query) == 4 else call.integer("q_num_heads")
    rows = query[0] * query[-2] * heads
    return prod(query) * length + rows * length * wide


def _packed_attention(call: Call, out: tuple[int, ...]) -> int:
    """com.microsoft.Attention: projection of the input, then attention over it."""
    past = 4 if call.operator.type.endswith(".Attention") else 8
    if call.has(past):
        raise Unknown("the length of its past isn't known")
    (batch, length, width), columns = call.sizes(0), call.sizes(1)[1]
    sizes = call.row("qkv_hidden_sizes") or (columns // 3,) * 3
    attention = batch * length * length * (sizes[0] + sizes[2])
    return batch * length * width * columns + attention


def _multi_head(call: Call, out: tuple[int, ...]) -> int:
    """com.microsoft.MultiHeadAttention with query, key and value apart."""
    if not (call.has(1) and call.has(2)) or call.has(6):
        raise Unknown("only separate query, key and value without a past are counted")
    query, key, value = (call.sizes(at) for at in range(3))
    if not len(query) == len(key) == len(value) == 3:
        raise Unknown("only query, key and value of three dimensions are counted")
    return prod(query) * key[1] + query[0] * query[1] * key[1] * value[2]


def _lite_conv(call: Call, out: tuple[int, ...]) -> int:
    """Weight (out, height, width, in / groups)."""
    return prod(out) * prod(call.sizes(1)[1:])


def _lite_depthwise(call: Call, out: tuple[int, ...]) -> int:
    """Weight (1, height, width, out)."""
    return prod(out) * prod(call.sizes(1)[1:3])


def _lite_deconv(call: Call, out: tuple[int, ...]) -> int:
    """Sizes of the output, weight (out, height, width, in), input."""
    return prod(call.sizes(2)) * prod(call.sizes(1)[:-1])


def _lite_conv3d(call: Call, out: tuple[int, ...]) -> int:
    """Weight (depth, height, width, in, out)."""
    return prod(out) * prod(call.sizes(1)[:-1])


def _lite_deconv3d(call: Call, out: tuple[int, ...]) -> int:
    """Sizes of the output, weight (depth, height, width, out, in), input."""
    return prod(call.sizes(2)) * prod(call.sizes(1)[:-1])


def _lite_linear(call: Call, out: tuple[int, ...]) -> int:
    """Weight (out, in)."""
    return prod(out) * call.sizes(1)[-1]


def _lite_matmul(call: Call, out: tuple[int, ...]) -> int:
    """The first factor is (..., rows, inner), or the other way round: its elements tell."""
    rows, inner = call.sizes(0)[-2:]
    return prod(out) // out[-2] * rows * inner if out[-2] else 0


def _lite_recurrent(call: Call, out: tuple[int, ...]) -> int:
    """Every constant matrix is used once for each row of the input (all dimensions but the last).

    For SVDF the second one, over time, has one row for each output of the first: the same count.
    """
    weights = 0
    for at in range(1, len(call.inputs)):
        tensor = call.inputs[at]
        if tensor is None or tensor.shape is None or len(tensor.shape) != 2 or tensor.variable:
            continue
        if not tensor.fixed:
            raise Unknown(f"'{tensor.name}' is no constant")
        weights += prod(call.sizes(at))
    return prod(call.sizes(0)[:-1]) * weights


ONNX: Mapping[str, Count] = {
    **dict.fromkeys(("GRU", "LSTM", "RNN", "com.microsoft.DynamicQuantizeLSTM"), _recurrent),
    **dict.fromkeys(("Conv", "ConvInteger", "DeformConv", "com.microsoft.FusedConv"), _conv),
    **dict.fromkeys(("Gemm", "com.microsoft.FusedGemm", "com.microsoft.QGemm"), _gemm),
    **dict.fromkeys(
        (
            "MatMul",
            "MatMulInteger",
            "QLinearMatMul",
            "com.microsoft.DynamicQuantizeMatMul",
            "com.microsoft.FusedMatMul",
            "com.microsoft.MatMulIntegerToFloat",
        ),
        _matmul,
    ),
    "Attention": _standard_attention,
    "ConvTranspose": _deconv,
    "Einsum": _einsum,
    "QLinearConv": lambda call, out: _conv(call, out, 3),
    "com.microsoft.Attention": _packed_attention,
    "com.microsoft.MatMulNBits": _nbits,
    "com.microsoft.MultiHeadAttention": _multi_head,
    "com.microsoft.QAttention": _packed_attention,
    "com.microsoft.QLinearConvTranspose": lambda call, out: _deconv(call, out, 3),
}
LITE: Mapping[str, Count] = {
    **dict.fromkeys(
        (name for name in LITE_PRODUCTS if name.endswith(("LSTM", "RNN", "SVDF"))), _lite_recurrent
    ),
    "BATCH_MATMUL": _lite_matmul,
    "CONV_2D": _lite_conv,
    "CONV_3D": _lite_conv3d,
    "CONV_3D_TRANSPOSE": _lite_deconv3d,
    "CUSTOM:Convolution2DTransposeBias": lambda call, out: (
        prod(call.sizes(0)) * prod(call.sizes(1)[:-1])
    ),
    "DEPTHWISE_CONV_2D": _lite_depthwise,
    "FULLY_CONNECTED": _lite_linear,
    "TRANSPOSE_CONV": _lite_deconv,
}
