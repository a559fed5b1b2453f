# SPDX-License-Identifier: Apache-2.0
"""Is it really int8? The operators of an artifact as its runtime runs it, by what they compute in.

ONNX is counted after onnxruntime's own optimisation, since its integer kernels only appear there;
TFLite as it stands in the file. Counted is every operator that calculates. Those that only move,
select or convert values (reshape, transpose, concat, gather, pad, quantize ...) are not.

- int8: activations and weights are 8-bit integers.
- dynamic: activations are float and made integer at run time; the weights are int8.
- float: all others. Weights that are only stored in fewer bits are computed with as float.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeprune.artifact.operators import LITE_MOVES, LITE_PRODUCTS, ONNX_MOVES, ONNX_PRODUCTS
from edgeprune.errors import InputError, MissingExtra
from edgeprune.export import flatbuffer
from edgeprune.export.quiet import quiet
from edgeprune.profiler.runtime import detect_format

__all__ = ["Counts", "Kind", "op_counts"]

Kind = Literal["int8", "dynamic", "float", "none"]
_EIGHT_BITS = ("int8", "uint8")


_ONNX_INTEGER = frozenset({"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat"})
_ONNX_DYNAMIC = frozenset({"DynamicQuantizeLSTM", "DynamicQuantizeMatMul"})


@dataclass(frozen=True)
class Counts:
    """Operators of an artifact."""

    kinds: dict[str, int]
    """All, those that only move values too, by name."""
    int8: int
    dynamic: int
    floating: int
    products: tuple[tuple[str, Kind], ...]
    """Convolutions, linear layers and matrix products: name and kind."""

    def float_products(self) -> tuple[str, ...]:
        """Names of those of the products that compute in float."""
        return tuple(name for name, kind in self.products if kind == "float")


def op_counts(path: Path, threads: int = 1) -> Counts:
    """Count the operators of an ONNX or TFLite file.

    Raises:
        InputError: It is neither, or its runtime refuses it.
        MissingExtra: onnx, onnxruntime or ai-edge-litert isn't installed.
    """
    if detect_format(path) == "tflite":
        return _summary(_lite_rows(path))
    return _summary(_onnx_rows(path, threads))


@dataclass(frozen=True)
class _Row:
    name: str
    op: str
    kind: Kind
    product: bool


def _summary(rows: list[_Row]) -> Counts:
    by_kind = Counter(row.kind for row in rows)
    return Counts(
        kinds=dict(sorted(Counter(row.op for row in rows).items())),
        int8=by_kind["int8"],
        dynamic=by_kind["dynamic"],
        floating=by_kind["float"],
        products=tuple((row.name, row.kind) for row in rows if row.product),
    )


def _lite_rows(path: Path) -> list[_Row]:
    ops = flatbuffer.read(path).ops
    return [
        _Row(op.outputs[0].name, op.kind, _lite_kind(op), op.kind in LITE_PRODUCTS)
        for op in ops
        if op.outputs
    ]


def _lite_kind(op: flatbuffer.Op) -> Kind:
    if op.kind in LITE_MOVES or not any(_calculates(t.dtype) for t in op.outputs):
        return "none"
    made = {t.dtype for t in op.outputs}
    # A reduction's axes and a transposed convolution's shape are integers of no interest here.
    used = {t.dtype for t in op.inputs if t is not None and t.dtype not in ("int32", "int64")}
    if made | used <= set(_EIGHT_BITS):
        return "int8"
    weights = {t.dtype for t in op.inputs if t is not None and t.raw is not None}
    if op.kind in LITE_PRODUCTS and weights & set(_EIGHT_BITS):
        return "dynamic"
    return "float"


def _calculates(dtype: str) -> bool:
    return dtype in (*_EIGHT_BITS, "int16", "float16", "float32", "float64")


def _onnx_rows(path: Path, threads: int) -> list[_Row]:
    graph = _optimised(path, threads).graph
    eight_bits, dynamic = _eight_bit_constants(graph), set[str]()
    rows = []
    for index, node in enumerate(graph.node):
        kind = _onnx_kind(node, eight_bits, dynamic)
        name = node.name or f"{node.op_type}_{index}"
        rows.append(_Row(name, node.op_type, kind, node.op_type in ONNX_PRODUCTS))
        if node.op_type == "DynamicQuantizeLinear":
            dynamic.add(node.output[0])
        if _gives_eight_bits(node, kind, eight_bits):
            eight_bits.update(node.output)
    return rows


def _optimised(path: Path, threads: int) -> Any:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MissingExtra(str(error.name), "compress") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder, quiet():
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        try:
            onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class
            lines = str(error).split("\n")
            raise InputError(f"{path}: onnxruntime refuses it: {lines[0]}") from None
        return onnx.load(options.optimized_model_filepath, load_external_data=False)


def _eight_bit_constants(graph: Any) -> set[str]:
    return {tensor.name for tensor in graph.initializer if tensor.data_type in (2, 3)}


def _onnx_kind(node: Any, eight_bits: set[str], dynamic: set[str]) -> Kind:
    op = node.op_type
    if op in ONNX_MOVES:
        return "none"
    if op in _ONNX_DYNAMIC or (op in _ONNX_INTEGER and node.input[0] in dynamic):
        return "dynamic"
    if op in _ONNX_INTEGER or op == "QGemm" or op.startswith("QLinear"):
        return "int8"
    # A few kernels, pooling among them, take 8-bit integers under their own name.
    return "int8" if node.input and node.input[0] in eight_bits else "float"


def _gives_eight_bits(node: Any, kind: Kind, eight_bits: set[str]) -> bool:
    op = node.op_type
    if op in ("QuantizeLinear", "DynamicQuantizeLinear", "QLinearConcat"):
        return True
    if op in ("DequantizeLinear", "Cast") or op in _ONNX_INTEGER:
        return False
    if op == "QGemm":  # without an output zero point it gives float
        return len(node.input) > 8 and bool(node.input[8])
    if kind == "int8":
        return True
    return kind == "none" and bool(node.input) and node.input[0] in eight_bits
