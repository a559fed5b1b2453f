# SPDX-License-Identifier: Apache-2.0
"""Store a float ONNX model's weights in fewer bits: int8 beside their scales, or half precision."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeprune.errors import MissingExtra
from edgeprune.export.onnx_passes import all_nodes, clean, initializers, sort_nodes

__all__ = [
    "CONVOLUTIONS",
    "LINEAR",
    "dynamic_linears",
    "half_precision",
    "int8_tables",
    "int8_weights",
    "unfuse_dequantizers",
]

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
LINEAR = frozenset({"Gemm", "MatMul"})


def int8_weights(model: ModelProto, ops: frozenset[str]) -> None:
    """Store the constant weights of ``ops`` as symmetric int8, one scale an output channel.

    The scale is ``max|w| / 127``; weights that were rounded to that grid keep their values. Those
    of convolutions go through Cast and Mul, which onnxruntime computes once, as it loads the file;
    DequantizeLinear, which it fuses into linear layers, it would compute before each convolution.

    Args:
        model: Float; edited in place.
        ops: Of ``Conv``, ``ConvTranspose``, ``Gemm``, ``MatMul``.
    """
    stored = initializers(model)
    made: dict[tuple[str, int], str] = {}
    added: list[NodeProto] = []
    for node in model.graph.node:
        weight = stored.get(node.input[1]) if node.op_type in ops else None
        if weight is None or weight.data_type != TensorProto.FLOAT or len(weight.dims) < 2:
            continue
        key = (weight.name, _axis(node, len(weight.dims)))
        if key not in made:
            other = any(name == weight.name for name, _ in made)
            made[key] = f"{weight.name}_axis{key[1]}" if other else weight.name
            added.extend(_dequantizer(model, made[key], node.op_type, weight, key[1]))
        node.input[1] = f"{made[key]}_dequantized"
    nodes = [*added, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    clean(model)


def unfuse_dequantizers(model: ModelProto, ops: frozenset[str]) -> None:
    """Let stored integers of ``ops`` go through Cast and Mul, as :func:`int8_weights` does.

    For operators that a static int8 model runs in float: transposed convolutions.
    """
    stored = initializers(model)
    weights = {n.input[1] for n in model.graph.node if n.op_type in ops}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        constant = node.op_type == "DequantizeLinear" and node.input[0] in stored
        if not constant or node.output[0] not in weights:
            nodes.append(node)
            continue
        rank = len(stored[node.input[0]].dims)
        wide = [1] * rank
        wide[next(a.i for a in node.attribute if a.name == "axis")] = -1
        scale = f"{node.input[0]}_scale"
        _store(model, {scale: numpy_helper.to_array(stored[node.input[1]]).reshape(wide)})
        nodes.extend(_unpack(node.input[0], scale, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    clean(model)


def int8_tables(model: ModelProto) -> None:
    """Store embedding tables as int8, one scale a row; only the rows looked up are dequantized."""
    stored = initializers(model)
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        table = stored.get(node.input[0]) if node.op_type == "Gather" else None
        axis = [a.i for a in node.attribute if a.name == "axis"] if table is not None else []
        float_table = table is not None and table.data_type == TensorProto.FLOAT
        if table is None or not float_table or len(table.dims) != 2 or axis not in ([], [0]):
            nodes.append(node)
            continue
        integers, scale = _to_int8(numpy_helper.to_array(table), 0)
        # Names of their own: a tied linear layer stores the same table under `_int8`, `_scale`.
        names = {f"{table.name}_rows": integers, f"{table.name}_row_scale": scale[:, None]}
        _store(model, names)
        nodes.extend(_look_up(node, *names))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    clean(model)


def dynamic_linears(model: ModelProto) -> ModelProto:
    """Run linear layers on int8: activations are quantized as they come, weights per channel.

    onnxruntime's own tool; convolutions are left out, since its dynamic ones are many times slower
    than float.

    Raises:
        MissingExtra: onnxruntime isn't installed.
    """
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise MissingExtra("onnxruntime", "compress") from None
    del model.graph.value_info[:]  # the tool holds stale shapes against its own and gives up
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dynamic.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        result = onnx.load(path)
    clean(result)
    return result


def half_precision(model: ModelProto) -> ModelProto:
    """Compute and store in half precision; inputs and outputs stay float.

    Raises:
        MissingExtra: onnxruntime isn't installed.
    """
    try:
        from onnxruntime.transformers import float16
    except ImportError:
        raise MissingExtra("onnxruntime", "compress") from None
    kinds = [*float16.DEFAULT_OP_BLOCK_LIST, *_without_halves(model)]
    result: ModelProto = float16.convert_float_to_float16(
        model, keep_io_types=True, op_block_list=kinds
    )
    sort_nodes(result)
    clean(result)
    return result


def _without_halves(model: ModelProto) -> set[str]:
    """Operators that stay in single precision: those that ONNX doesn't define for halves, and
    ScatterND that adds, for which onnxruntime has no kernel on CPUs."""
    version = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    found = set()
    for node in all_nodes(model.graph):
        adds = any(a.name == "reduction" and a.s != b"none" for a in node.attribute)
        if adds and node.op_type == "ScatterND":
            found.add(node.op_type)
        elif node.domain in ("", "ai.onnx"):
            schema = onnx.defs.get_schema(node.op_type, version)
            allowed = (i.types for i in schema.inputs)
            if any("tensor(float)" in a and "tensor(float16)" not in a for a in allowed):
                found.add(node.op_type)
    return found


def _axis(node: NodeProto, rank: int) -> int:
    """Where the output channels of a weight lie."""
    if node.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}[node.op_type]


def _to_int8(
    weight: np.ndarray[Any, Any], axis: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    others = tuple(d for d in range(weight.ndim) if d != axis)
    scale = np.abs(weight).max(axis=others, initial=0) / np.float32(127)
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    wide = np.expand_dims(scale, others)
    return np.clip(np.rint(weight / wide), -127, 127).astype(np.int8), scale


def _dequantizer(
    model: ModelProto, name: str, op: str, weight: TensorProto, axis: int
) -> list[NodeProto]:
    """Store a weight as integers; the nodes that make ``<name>_dequantized`` of them."""
    integers, scale = _to_int8(numpy_helper.to_array(weight), axis)
    output = f"{name}_dequantized"
    if op in CONVOLUTIONS:
        wide = [1] * integers.ndim
        wide[axis] = -1
        _store(model, {f"{name}_int8": integers, f"{name}_scale": scale.reshape(wide)})
        return _unpack(f"{name}_int8", f"{name}_scale", output)
    inputs = [f"{name}_int8", f"{name}_scale", f"{name}_zero_point"]
    _store(model, dict(zip(inputs, (integers, scale, np.zeros(scale.shape, np.int8)), strict=True)))
    return [helper.make_node("DequantizeLinear", inputs, [output], name=output, axis=axis)]


def _unpack(integers: str, scale: str, output: str) -> list[NodeProto]:
    """``output = float(integers) * scale``."""
    return [
        helper.make_node("Cast", [integers], [f"{output}_cast"], name=f"{output}_cast", to=1),
        helper.make_node("Mul", [f"{output}_cast", scale], [output], name=output),
    ]


def _store(model: ModelProto, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    known = initializers(model)
    tensors = [numpy_helper.from_array(a, name) for name, a in arrays.items() if name not in known]
    model.graph.initializer.extend(tensors)


def _look_up(node: NodeProto, integers: str, scale: str) -> list[NodeProto]:
    # Not `<rows>_scale`: so onnxruntime's tool calls the scale of a linear layer's input.
    rows, index = node.output[0], node.input[1]
    stored, scales = f"{rows}_rows", f"{rows}_row_scale"
    return [
        helper.make_node("Gather", [integers, index], [stored], name=node.name, axis=0),
        helper.make_node("Gather", [scale, index], [scales], name=scales, axis=0),
        *_unpack(stored, scales, rows),
    ]
