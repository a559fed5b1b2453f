# SPDX-License-Identifier: Apache-2.0
"""Edits that make a converter's file fit to ship; none changes what it computes.

Each function edits an unpacked model in place (see :mod:`edgeprune.export.flatbuffer`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeprune.errors import EdgepruneError
from edgeprune.export.flatbuffer import Op, op_code, schema, view

__all__ = ["compact", "float_edges", "honest_versions", "order_edges", "rename"]

_HYBRID = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 4, "EMBEDDING_LOOKUP": 3, "FULLY_CONNECTED": 3}
"""Versions from which an operator with a float result takes int8 weights with one scale."""
_HYBRID_PER_CHANNEL = {
    "CONV_2D": 5,
    "DEPTHWISE_CONV_2D": 6,
    "EMBEDDING_LOOKUP": 4,
    "FULLY_CONNECTED": 12,
}
"""The same with one scale a channel or row."""
_ROLES = {
    "BATCH_MATMUL": {1: "weight"},
    "CONV_2D": {1: "weight", 2: "bias"},
    "CONV_3D": {1: "weight", 2: "bias"},
    "DEPTHWISE_CONV_2D": {1: "weight", 2: "bias"},
    "EMBEDDING_LOOKUP": {1: "weight"},
    "FULLY_CONNECTED": {1: "weight", 2: "bias"},
    "TRANSPOSE_CONV": {0: "shape", 1: "weight", 3: "bias"},
}


def order_edges(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Bring the graph's and its signature's inputs and outputs into the given order.

    Raises:
        EdgepruneError: The converter lost one of them.
    """
    signature, graph = model.signatureDefs[0], model.subgraphs[0]
    for field, names in (("inputs", inputs), ("outputs", outputs)):
        entries = {entry.name.decode(): entry for entry in getattr(signature, field)}
        lost = [name for name in names if name not in entries]
        if lost:
            raise EdgepruneError(f"the TFLite converter lost the {field} {', '.join(lost)}")
        setattr(signature, field, [entries[name] for name in names])
        indices = [entries[name].tensorIndex for name in names]
        setattr(graph, field, np.array(indices, np.int32))


def float_edges(model: Any) -> None:
    """Give quantized inputs and outputs a float form, by one operator each.

    Every artifact of a model is then fed the same values, whatever it computes in.
    """
    bindings, graph = schema(), model.subgraphs[0]
    before, after = [], []
    for entry in model.signatureDefs[0].inputs:
        if _is_quantized(graph.tensors[entry.tensorIndex]):
            outer = _float_twin(graph, entry.tensorIndex)
            before.append(_edge_op(model, "QUANTIZE", 1, outer, entry.tensorIndex))
            entry.tensorIndex = outer
    for entry in model.signatureDefs[0].outputs:
        if _is_quantized(graph.tensors[entry.tensorIndex]):
            outer = _float_twin(graph, entry.tensorIndex)
            version = 2 if graph.tensors[entry.tensorIndex].type == bindings.TensorType.INT8 else 3
            after.append(_edge_op(model, "DEQUANTIZE", version, entry.tensorIndex, outer))
            entry.tensorIndex = outer
    graph.operators = [*before, *graph.operators, *after]
    _edges_from_signature(model)


def honest_versions(model: Any) -> None:
    """Raise operator versions to what the operators need.

    ai-edge-quantizer leaves them as the float file had them, so that an old runtime loads what it
    can't compute and answers with garbage instead of refusing. The versions are those of
    TensorFlow's ``lite/tools/versioning/op_version.cc``.
    """
    graph = model.subgraphs[0]
    for raw, op in zip(graph.operators, view(model).ops, strict=True):
        needed = _version(op)
        if needed > op.version:
            raw.opcodeIndex = op_code(model, op.kind, needed)


def rename(model: Any) -> None:
    """Name tensors by the operator that makes or holds them: ``conv_2d_3``, ``conv_2d_3.weight``.

    The converter's names are long, and tell of Python classes and not of layers.
    """
    graph, ops = model.subgraphs[0], view(model).ops
    stored = {op.outputs[0].index: op.inputs[0] for op in ops if _unpacks(op)}
    names: dict[int, str] = {}
    for index, op in enumerate(op for op in ops if not _unpacks(op)):
        label = f"{op.kind.lower()}_{index}"
        for place, tensor in enumerate(op.inputs):
            if tensor is None:
                continue
            name = f"{label}.{_ROLES.get(op.kind, {}).get(place, f'input{place}')}"
            packed = stored.get(tensor.index)
            if packed is not None:
                names.setdefault(packed.index, name)
                names.setdefault(tensor.index, f"{names[packed.index]}.float")
            elif tensor.raw is not None:
                names.setdefault(tensor.index, name)
        for place, tensor in enumerate(op.outputs):
            names[tensor.index] = label if len(op.outputs) == 1 else f"{label}.{place}"
    signature = model.signatureDefs[0]
    for entry in (*signature.inputs, *signature.outputs):
        names[entry.tensorIndex] = entry.name.decode()
    for index, tensor in enumerate(graph.tensors):
        tensor.name = names.get(index, f"tensor_{index}").encode()
        if tensor.quantization is not None and tensor.quantization.scale is None:
            tensor.quantization = None


def compact(model: Any) -> None:
    """Drop the converter's notes, and buffers and operator codes that nothing uses."""
    model.metadata = model.metadataBuffer = None
    model.description = b"edgeprune"
    kept: dict[bytes, int] = {b"": 0}
    buffers = [schema().BufferT()]
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            content = b"" if data is None else np.asarray(data, np.uint8).tobytes()
            if content not in kept:
                kept[content] = len(buffers)
                buffers.append(model.buffers[tensor.buffer])
            tensor.buffer = kept[content]
    model.buffers = buffers
    operators = [op for graph in model.subgraphs for op in graph.operators or ()]
    used = sorted({op.opcodeIndex for op in operators})
    for op in operators:
        op.opcodeIndex = used.index(op.opcodeIndex)
    model.operatorCodes = [model.operatorCodes[index] for index in used]


def _version(op: Op) -> int:
    weight = op.inputs[1] if len(op.inputs) > 1 else None
    source = op.inputs[0] if op.inputs else None
    if op.kind == "DEQUANTIZE" and source is not None:
        if source.dtype == "float16":
            return 3
        return 5 if source.per_channel else 2
    if weight is None or weight.dtype != "int8" or op.outputs[0].dtype != "float32":
        return op.version
    table = _HYBRID_PER_CHANNEL if weight.per_channel else _HYBRID
    return table.get(op.kind, op.version)


def _unpacks(op: Op) -> bool:
    """Whether it only turns a stored constant into float."""
    return op.kind == "DEQUANTIZE" and op.inputs[0] is not None and op.inputs[0].raw is not None


def _is_quantized(tensor: Any) -> bool:
    types = schema().TensorType
    quantization = tensor.quantization
    scaled = quantization is not None and quantization.scale is not None
    return scaled and tensor.type in (types.INT8, types.UINT8, types.INT16)


def _float_twin(graph: Any, index: int) -> int:
    inner, twin = graph.tensors[index], schema().TensorT()
    twin.name = inner.name + b"_float"
    twin.shape, twin.shapeSignature = inner.shape, inner.shapeSignature
    twin.hasRank = inner.hasRank
    twin.type, twin.buffer = schema().TensorType.FLOAT32, 0
    graph.tensors.append(twin)
    return len(graph.tensors) - 1


def _edge_op(model: Any, kind: str, version: int, source: int, result: int) -> Any:
    op = schema().OperatorT()
    op.opcodeIndex = op_code(model, kind, version)
    op.inputs, op.outputs = np.array([source], np.int32), np.array([result], np.int32)
    options = {"QUANTIZE": "QuantizeOptions", "DEQUANTIZE": "DequantizeOptions"}[kind]
    op.builtinOptionsType = getattr(schema().BuiltinOptions, options)
    op.builtinOptions = getattr(schema(), f"{options}T")()
    return op


def _edges_from_signature(model: Any) -> None:
    signature, graph = model.signatureDefs[0], model.subgraphs[0]
    graph.inputs = np.array([entry.tensorIndex for entry in signature.inputs], np.int32)
    graph.outputs = np.array([entry.tensorIndex for entry in signature.outputs], np.int32)
