# SPDX-License-Identifier: Apache-2.0
"""The number type of an ONNX operator's first output, where it isn't that of its first input."""

from __future__ import annotations

from edgeprune.artifact.call import Call
from edgeprune.artifact.graph import Tensor
from edgeprune.artifact.onnx_tensors import DTYPES
from edgeprune.artifact.operators import bare

__all__ = ["dtypes"]


def _each(text: str, dtype: str) -> dict[str, str]:
    return dict.fromkeys(text.split(), dtype)


_ALWAYS = {
    **_each("And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor", "bool"),
    **_each("ArgMax ArgMin NonMaxSuppression NonZero Shape Size", "int64"),
    **_each("ConvInteger MatMulInteger", "int32"),
    **_each("DynamicQuantizeLinear", "uint8"),
}
_LIKE = {
    **dict.fromkeys(("CastLike", "DequantizeLinear", "Where"), 1),
    **dict.fromkeys(("OneHot", "QuantizeLinear"), 2),
    **dict.fromkeys(("MatMulIntegerToFloat",), 2),
    **dict.fromkeys(("QLinearConv", "QLinearConvTranspose", "QLinearMatMul"), 7),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), 7),
    "QLinearConcat": 1,
    "QLinearWhere": 1,
}
_TOLD = {
    "Bernoulli": ("dtype", ""),
    "BitCast": ("to", ""),
    "Cast": ("to", ""),
    "EyeLike": ("dtype", ""),
    "QuantizeLinear": ("output_dtype", "uint8"),
    "RandomNormal": ("dtype", "float32"),
    "RandomUniform": ("dtype", "float32"),
}

_SECOND = {"Dropout": "bool", "MaxPool": "int64", "TopK": "int64"}


def dtypes(call: Call) -> tuple[str, ...]:
    """The types of the outputs, in order; empty ones aren't known."""
    kind = bare(call.operator.type)
    first = _first(kind, call)
    if kind == "DynamicQuantizeLinear":
        return (first, "float32", "uint8")
    if kind in _SECOND:
        return (first, _SECOND[kind])
    return (first,) * len(call.operator.outputs)


def _first(kind: str, call: Call) -> str:
    if kind in _ALWAYS:
        return _ALWAYS[kind]
    if kind in _LIKE and call.has(_LIKE[kind]):
        return call.tensor(_LIKE[kind]).dtype
    if kind in _TOLD:
        name, default = _TOLD[kind]
        code = call.attribute(name)
        if isinstance(code, int) and 0 < code < len(DTYPES):
            return DTYPES[code]
        if default or kind != "Bernoulli":
            return default
    if kind == "ConstantOfShape":
        fill = call.attribute("value")
        return fill.dtype if isinstance(fill, Tensor) else "float32"
    if kind == "QGemm":  # without a zero point of its output it gives float
        return call.tensor(8).dtype if call.has(8) else "float32"
    return call.tensor(0).dtype if call.has(0) else ""
