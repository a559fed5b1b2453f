# SPDX-License-Identifier: Apache-2.0
"""How the shapes of an ONNX operator's outputs follow from its inputs: one small rule for each.

github.com/onnx/onnx, docs/Operators.md. A rule gives the shapes of the outputs, in order; outputs
that it leaves out are unknown. What has no rule is unknown too.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.artifact.call import Call, Rule, Shape, Unknown, axis_of, broadcast, integers
from edgeprune.artifact.shape_layout import LAYOUT
from edgeprune.artifact.shape_windows import WINDOWS

__all__ = ["RULES"]


def _same(call: Call) -> tuple[Shape, ...]:
    return (call.shape(0),)


def _broadcast(call: Call, *indices: int) -> tuple[Shape, ...]:
    chosen = indices or tuple(range(len(call.inputs)))
    return (broadcast([call.shape(index) for index in chosen]),)


def _reduce(call: Call) -> tuple[Shape, ...]:
    shape, axes = call.shape(0), call.listed("axes", 1)
    if not axes:
        axes = () if call.integer("noop_with_empty_axes", 0) else tuple(range(len(shape)))
    return (_reduced(shape, {axis_of(a, len(shape)) for a in axes}, call),)


def _reduced(shape: Shape, axes: set[int], call: Call) -> Shape:
    if call.integer("keepdims", 1):
        return tuple(1 if at in axes else size for at, size in enumerate(shape))
    return tuple(size for at, size in enumerate(shape) if at not in axes)


def _arg(call: Call) -> tuple[Shape, ...]:
    shape = call.shape(0)
    return (_reduced(shape, {axis_of(call.integer("axis", 0), len(shape))}, call),)


def _matmul(call: Call, left: int = 0, right: int = 1) -> tuple[Shape, ...]:
    a, b = call.shape(left), call.shape(right)
    if not a or not b:
        raise Unknown("a factor of its product is a single number")
    if call.integer("transA", 0):
        a = (*a[:-2], a[-1], a[-2])
    if call.integer("transB", 0):
        b = (*b[:-2], b[-1], b[-2])
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    return ((*broadcast([a[:-2], b[:-2]]), *rows, *columns),)


def _gemm(call: Call, right: int = 1) -> tuple[Shape, ...]:
    a, b = call.shape(0), call.shape(right)
    return ((a[1 if call.integer("transA", 0) else 0], b[0 if call.integer("transB", 0) else 1]),)


def _nbits(call: Call) -> tuple[Shape, ...]:
    return ((*call.shape(0)[:-1], call.integer("N")),)


def _shape_of(call: Call) -> tuple[Shape, ...]:
    rank = len(call.shape(0))
    start, end = call.integer("start", 0), call.integer("end", rank)
    return ((len(range(*slice(start, end).indices(rank))),),)


def _scalar(call: Call) -> tuple[Shape, ...]:
    return ((),)


def _from_values(call: Call) -> tuple[Shape, ...]:
    return (tuple(None if v is None else int(v) for v in call.values(0)),)


def _from_attribute(call: Call) -> tuple[Shape, ...]:
    shape = call.row("shape")
    if shape is None:
        raise Unknown("its shape isn't known")
    return (shape,)


def _range(call: Call) -> tuple[Shape, ...]:
    start, stop, step = (integers(call.values(at))[0] for at in range(3))
    return ((max(0, -((start - stop) // step)),),)


def _one_hot(call: Call) -> tuple[Shape, ...]:
    shape = list(call.shape(0))
    axis = axis_of(call.integer("axis", -1), len(shape) + 1)
    shape.insert(axis, call.numbers(1)[0])
    return (tuple(shape),)


def _top_k(call: Call) -> tuple[Shape, ...]:
    shape = list(call.shape(0))
    count = call.numbers(1)[0] if call.has(1) else call.integer("k")
    shape[axis_of(call.integer("axis", -1), len(shape))] = count
    return (tuple(shape), tuple(shape))


def _einsum(call: Call) -> tuple[Shape, ...]:
    equation = call.text("equation").replace(" ", "")
    if "->" not in equation or "." in equation:
        raise Unknown("its equation isn't of the explicit form")
    left, right = equation.split("->")
    size = {
        letter: s
        for at, letters in enumerate(left.split(","))
        for letter, s in zip(letters, call.shape(at), strict=True)
    }
    return (tuple(size[letter] for letter in right),)


def _recurrent(call: Call) -> tuple[Shape, ...]:
    shape, hidden = call.shape(0), call.integer("hidden_size")
    directions = 2 if call.text("direction") == "bidirectional" else 1
    if call.integer("layout", 0):
        state: Shape = (shape[0], directions, hidden)
        return ((shape[0], shape[1], directions, hidden), state, state)
    state = (directions, shape[1], hidden)
    return ((shape[0], directions, shape[1], hidden), state, state)


def _dropout(call: Call) -> tuple[Shape, ...]:
    return (call.shape(0), call.shape(0))


def _quantize_dynamic(call: Call) -> tuple[Shape, ...]:
    return (call.shape(0), (), ())


def _attention(call: Call) -> tuple[Shape, ...]:
    """com.microsoft.Attention: input (batch, length, width), weight (width, 3 hidden)."""
    sizes = call.row("qkv_hidden_sizes")
    out = sizes[2] if sizes else integers(call.shape(1)[1:2])[0] // 3
    return ((*call.shape(0)[:2], out),)


def _standard_attention(call: Call) -> tuple[Shape, ...]:
    query, value = call.shape(0), call.sizes(2)
    if len(query) == 4:
        return ((*query[:3], value[3]),)
    heads, kv_heads = call.integer("q_num_heads"), call.integer("kv_num_heads")
    return ((*query[:2], value[2] // kv_heads * heads),)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SAME = _words(
    """Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization Bernoulli BitCast BitwiseNot Cast
    CastLike Ceil Celu Clip Cos Cosh CumProd CumSum DequantizeLinear Elu Erf Exp EyeLike
    Floor Gelu GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization
    IsInf IsNaN LRN LayerNormalization LeakyRelu Log LogSoftmax LpNormalization
    MeanVarianceNormalization Mish Neg Not PRelu QuantizeLinear RMSNormalization RandomNormalLike
    RandomUniformLike Reciprocal Relu ReverseSequence RotaryEmbedding Round Scatter
    ScatterElements ScatterND Selu Shrink Sigmoid Sign SimplifiedLayerNormalization Sin Sinh
    Softmax Softplus Softsign Sqrt Swish Tan Tanh TensorScatter ThresholdedRelu Trilu
    com.microsoft.BiasGelu com.microsoft.DequantizeLinear com.microsoft.FastGelu
    com.microsoft.Gelu com.microsoft.GroupQueryAttention com.microsoft.MultiHeadAttention
    com.microsoft.QLinearLeakyRelu com.microsoft.QLinearSigmoid com.microsoft.QLinearSoftmax
    com.microsoft.QuantizeLinear com.microsoft.QuickGelu com.microsoft.RotaryEmbedding
    com.microsoft.SkipLayerNormalization com.microsoft.SkipSimplifiedLayerNormalization"""
)
_TOGETHER = _words(
    """Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less
    LessOrEqual Max Mean Min Mod Mul Or Pow Sub Sum Where Xor"""
)
_REDUCTIONS = _words(
    """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare com.microsoft.QLinearReduceMean"""
)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_TOGETHER, _broadcast),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **LAYOUT,
    **WINDOWS,
    "ArgMax": _arg,
    "ArgMin": _arg,
    "Attention": _standard_attention,
    "ConstantOfShape": _from_values,
    "Dropout": _dropout,
    "DynamicQuantizeLinear": _quantize_dynamic,
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _gemm,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "OneHot": _one_hot,
    "QLinearMatMul": lambda call: _matmul(call, 0, 3),
    "RNN": _recurrent,
    "RandomNormal": _from_attribute,
    "RandomUniform": _from_attribute,
    "Range": _range,
    "Shape": _shape_of,
    "Size": _scalar,
    "TopK": _top_k,
    "com.microsoft.Attention": _attention,
    "com.microsoft.DynamicQuantizeMatMul": _matmul,
    "com.microsoft.FusedGemm": _gemm,
    "com.microsoft.FusedMatMul": _matmul,
    "com.microsoft.MatMulIntegerToFloat": _matmul,
    "com.microsoft.MatMulNBits": _nbits,
    "com.microsoft.QAttention": _attention,
    "com.microsoft.QGemm": lambda call: _gemm(call, 3),
    "com.microsoft.QLinearAdd": lambda call: _broadcast(call, 0, 3),
    "com.microsoft.QLinearMul": lambda call: _broadcast(call, 0, 3),
    "com.microsoft.QLinearWhere": lambda call: _broadcast(call, 0, 1, 4),
}
