# SPDX-License-Identifier: Apache-2.0
"""In what each operator of a file computes: 8-bit integers, float, or both.

The same three kinds as in ``edgeprune.export.counts``, which asks onnxruntime to optimise the file
first and counts what is left. Here the file is read as it stands, without a runtime, so for ONNX
the two differ where a runtime joins operators (a layer norm of nine is one there), drops them, or
has no integer kernel for one; an operator between DequantizeLinear and QuantizeLinear is int8 here
if onnxruntime has one. TFLite files run as they stand, and the counts are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from edgeprune.artifact.graph import Graph, Operator
from edgeprune.artifact.operators import (
    LITE_MOVES,
    LITE_PRODUCTS,
    ONNX_MOVES,
    ONNX_QUANTIZABLE,
    bare,
)

__all__ = ["EIGHT_BITS", "Kind", "Links", "kinds", "links"]

Kind = Literal["int8", "dynamic", "float", "none"]

EIGHT_BITS = frozenset({"int8", "uint8"})
_CALCULATES = EIGHT_BITS | {"int16", "float16", "bfloat16", "float32", "float64"}
_INTEGER = frozenset({"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"})
_DYNAMIC = frozenset({"DynamicQuantizeLSTM", "DynamicQuantizeMatMul"})
_ALONGSIDE = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""What onnxruntime moves quantization across."""
_LOWEST = {"int8": -128, "uint8": 0}
_CLIPS = frozenset({"Clip", "Relu"})
"""Activations that the integer range of the output makes superfluous."""
_FLOAT_OUT = frozenset({"Gemm", "MatMul"})
"""Products whose integer kernels can give float."""


class Links(NamedTuple):
    """Who makes and who reads each tensor of one graph, by the operators' positions."""

    maker: Mapping[str, int]
    readers: Mapping[str, tuple[int, ...]]


def links(graph: Graph) -> Links:
    """Find them; a graph's own output has a reader of its own, -1."""
    maker: dict[str, int] = {}
    readers: dict[str, list[int]] = {}
    for at, operator in enumerate(graph.operators):
        maker.update((name, at) for name in operator.outputs if name)
        for name in filter(None, operator.inputs):
            readers.setdefault(name, []).append(at)
    for name in graph.outputs:
        readers.setdefault(name, []).append(-1)
    return Links(maker, {name: tuple(found) for name, found in readers.items()})


def kinds(graph: Graph, found: Links, lite: bool) -> list[Kind]:
    """The kind of each operator; ``none`` for those that calculate nothing at run time."""
    if lite:
        return [_lite(graph, operator) for operator in graph.operators]
    judge = _Onnx(graph, found)
    result: list[Kind] = [judge.alone(operator) for operator in graph.operators]
    for at, operator in enumerate(graph.operators):
        if result[at] == "float" and judge.between(operator):
            result[at] = "int8"
    for at, operator in enumerate(graph.operators):
        if result[at] == "float" and judge.clips(operator, result):
            result[at] = "none"  # dropped: the integers clip
    return result


def _lite(graph: Graph, operator: Operator) -> Kind:
    outputs = [graph.tensors[name] for name in operator.outputs if name]
    if operator.type in LITE_MOVES or not any(t.dtype in _CALCULATES for t in outputs):
        return "none"
    if all(tensor.fixed for tensor in outputs):
        return "none"
    inputs = [graph.tensors[name] for name in operator.inputs if name]
    # A reduction's axes and a transposed convolution's shape are integers of no interest here.
    used = {t.dtype for t in inputs} - {"int32", "int64"}
    if {t.dtype for t in outputs} | used <= EIGHT_BITS:
        return "int8"
    weights = {t.dtype for t in inputs if t.constant}
    if operator.type in LITE_PRODUCTS and weights & EIGHT_BITS:
        return "dynamic"
    return "float"


class _Onnx:
    def __init__(self, graph: Graph, found: Links) -> None:
        self._graph = graph
        self._links = found

    def alone(self, operator: Operator) -> Kind:
        """The kind of an operator by its type and its tensors' types."""
        kind, first = bare(operator.type), operator.input(0)
        if kind in ONNX_MOVES or operator.graphs or self._is_fixed(operator):
            return "none"
        maker = self._maker(first)
        quantized = maker is not None and maker.type == "DynamicQuantizeLinear"
        if kind in _DYNAMIC or (kind in _INTEGER and quantized):
            return "dynamic"
        if kind in _INTEGER or kind in ("QAttention", "QGemm") or kind.startswith("QLinear"):
            return "int8"
        made = {self._dtype(name) for name in operator.outputs if name}
        if not made & _CALCULATES and made != {""}:
            return "none"
        # A few kernels, pooling among them, take 8-bit integers under their own name.
        return "int8" if self._dtype(first) in EIGHT_BITS else "float"

    def between(self, operator: Operator) -> bool:
        """Whether it reads dequantized tensors only, and what it makes is quantized."""
        if operator.type not in ONNX_QUANTIZABLE:
            return False
        inputs = [name for name in operator.inputs[: 1 if operator.type == "Resize" else 2] if name]
        if not inputs or not all(self._dequantized(name) for name in inputs):
            return False
        return operator.type in _FLOAT_OUT or self._quantized(operator.output(0), _CLIPS)

    def clips(self, operator: Operator, known: list[Kind]) -> bool:
        """Whether it is an activation that an integer operator makes superfluous."""
        if operator.type not in _CLIPS or not self._quantized(operator.output(0), frozenset()):
            return False
        at = self._links.maker.get(operator.input(0))
        return at is not None and known[at] == "int8"

    def _dequantized(self, name: str) -> bool:
        for _ in range(len(_ALONGSIDE)):
            maker = self._maker(name)
            if maker is None:
                return False
            if bare(maker.type) == "DequantizeLinear":
                return self._dtype(maker.input(0)) in EIGHT_BITS
            if maker.type not in _ALONGSIDE:
                return False
            name = maker.input(0)
        return False

    def _quantized(self, name: str, through: frozenset[str]) -> bool:
        """Whether all that read ``name`` quantize it, perhaps ``through`` an activation."""
        clipped = False
        for _ in range(len(_ALONGSIDE)):
            readers = self._links.readers.get(name, ())
            if not readers or -1 in readers:
                return False
            operators = [self._graph.operators[at] for at in readers]
            if all(bare(operator.type) == "QuantizeLinear" for operator in operators):
                return not clipped or all(map(self._from_zero, operators))
            if len(operators) > 1 or operators[0].type not in _ALONGSIDE | through:
                return False
            clipped = clipped or operators[0].type in through
            name = operators[0].output(0)
        return False

    def _from_zero(self, quantize: Operator) -> bool:
        """Whether the lowest integer stands for 0, so that what is below needs no clipping."""
        if not quantize.input(2):
            return True  # unsigned from 0
        zero = self._graph.tensors.get(quantize.input(2))
        if zero is None or not zero.values:
            return False
        return all(value == _LOWEST.get(zero.dtype) for value in zero.values)

    def _is_fixed(self, operator: Operator) -> bool:
        made = [self._graph.tensors.get(name) for name in operator.outputs if name]
        return all(tensor is not None and tensor.fixed for tensor in made)

    def _maker(self, name: str) -> Operator | None:
        at = self._links.maker.get(name)
        return None if at is None else self._graph.operators[at]

    def _dtype(self, name: str) -> str:
        tensor = self._graph.tensors.get(name)
        return "" if tensor is None else tensor.dtype
