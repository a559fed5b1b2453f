# SPDX-License-Identifier: Apache-2.0
"""ONNX and TFLite files, whole and broken, made by hand: no converter, no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeprune.export import flatbuffer

__all__ = [
    "LiteGraph", "LiteOp", "LiteTensor", "control", "lite_branches", "lite_cnn", "lite_model",
    "onnx_model", "quantized", "save", "value",
]  # fmt: skip

Shape = Sequence[int | str | None]
Array = np.ndarray[Any, Any]


def value(name: str, shape: Shape | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def onnx_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Sequence[str],
    constants: Mapping[str, Array] | None = None,
    functions: Sequence[onnx.FunctionProto] = (),
    opset: int = 20,
) -> onnx.ModelProto:
    """A model of float inputs; its outputs' shapes are left out."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [value(name, shape) for name, shape in inputs.items()],
        [value(name, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    domains += [helper.make_opsetid(f.domain, 1) for f in functions]
    return helper.make_model(graph, opset_imports=domains, functions=list(functions), ir_version=9)


def save(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def quantized() -> onnx.ModelProto:
    """Quantize, convolve, add a ReLU, quantize: all of it in integers."""
    w = np.arange(-8, 10, dtype=np.int8).reshape(2, 1, 3, 3)
    scale, zero = np.float32(0.1), np.int8(0)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("DequantizeLinear", ["b", "sb", "zb"], ["bd"]),
        helper.make_node("Conv", ["xd", "wd", "bd"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("QuantizeLinear", ["r", "s", "low"], ["rq"]),
        helper.make_node("DequantizeLinear", ["rq", "s", "low"], ["y"]),
    ]
    constants = {
        "w": w, "b": np.arange(2, dtype=np.int32), "s": np.array(scale), "z": np.array(zero),
        "low": np.array(-128, np.int8), "sb": np.array(0.01, np.float32),
        "zb": np.array(0, np.int32),
    }  # fmt: skip
    return onnx_model(nodes, {"x": (1, 1, 8, 8)}, ["y"], constants)


def control() -> onnx.ModelProto:
    """An ``If`` with a constant in each branch, a ``Loop``, and a function called twice."""
    small = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w_small"], ["a"])],
        "then",
        [],
        [value("a", None)],
        [numpy_helper.from_array(np.ones((4, 4), np.float32), "w_small")],
    )
    large = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w_large"], ["b"]),
            helper.make_node("MatMul", ["b", "w_back"], ["b2"]),
        ],
        "else",
        [],
        [value("b2", None)],
        [
            numpy_helper.from_array(np.ones((4, 8), np.float32), "w_large"),
            numpy_helper.from_array(np.ones((8, 4), np.float32), "w_back"),
        ],
    )
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w_loop"], ["next"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            value("i", (), TensorProto.INT64),
            value("go", (), TensorProto.BOOL),
            value("state", None),
        ],
        [value("on", (), TensorProto.BOOL), value("next", None)],
    )
    twice = helper.make_function(
        "local",
        "Twice",
        ["v"],
        ["w"],
        [helper.make_node("MatMul", ["v", "v"], ["w"])],
        [helper.make_opsetid("", 20)],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["test"]),
        helper.make_node("If", ["test"], ["y"], then_branch=small, else_branch=large, name="if"),
        helper.make_node("Loop", ["times", "", "y"], ["z"], body=body, name="loop"),
        helper.make_node("Twice", ["z"], ["t1"], domain="local", name="call1"),
        helper.make_node("Twice", ["t1"], ["t2"], domain="local", name="call2"),
    ]
    constants = {
        "zero": np.array(0, np.float32),
        "times": np.array(3, np.int64),
        "w_loop": np.ones((4, 4), np.float32),
    }
    return onnx_model(nodes, {"x": (4, 4)}, ["t2"], constants, [twice])


class LiteTensor(NamedTuple):
    shape: Sequence[int]
    dtype: str = "float32"
    data: Array | None = None
    scale: float | None = None
    variable: bool = False
    signature: Sequence[int] | None = None
    """-1 for a size that is left open."""


class LiteOp(NamedTuple):
    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    options: Any = None
    custom: str = ""


class LiteGraph(NamedTuple):
    tensors: Mapping[str, LiteTensor]
    ops: Sequence[LiteOp]
    inputs: Sequence[str]
    outputs: Sequence[str]


def lite_model(*graphs: LiteGraph) -> Any:
    """The schema's ``ModelT``; ``flatbuffer.pack`` makes it a file."""
    schema = flatbuffer.schema()
    model = schema.ModelT()
    model.version, model.operatorCodes, model.description = 3, [], b"made by hand"
    model.buffers, model.subgraphs = [schema.BufferT()], []
    for graph in graphs:
        model.subgraphs.append(_lite_graph(model, graph))
    return model


def _lite_graph(model: Any, graph: LiteGraph) -> Any:
    schema = flatbuffer.schema()
    names = list(graph.tensors)
    made = schema.SubGraphT()
    made.name = b"main"
    made.tensors = [_lite_tensor(model, n, t) for n, t in graph.tensors.items()]
    made.inputs = [names.index(name) for name in graph.inputs]
    made.outputs = [names.index(name) for name in graph.outputs]
    made.operators = []
    for op in graph.ops:
        entry = schema.OperatorT()
        entry.opcodeIndex = _lite_code(model, op)
        entry.inputs = [names.index(name) if name else -1 for name in op.inputs]
        entry.outputs = [names.index(name) for name in op.outputs]
        if op.options is not None:
            kind = type(op.options).__name__.removesuffix("T")
            entry.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            entry.builtinOptions = op.options
        made.operators.append(entry)
    return made


def _lite_code(model: Any, op: LiteOp) -> int:
    if not op.custom:
        return flatbuffer.op_code(model, op.kind, 1)
    code = flatbuffer.schema().OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = 32
    code.customCode, code.version = op.custom.encode(), 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _lite_tensor(model: Any, name: str, tensor: LiteTensor) -> Any:
    schema = flatbuffer.schema()
    made = schema.TensorT()
    made.name, made.shape = name.encode(), list(tensor.shape)
    made.type = getattr(schema.TensorType, tensor.dtype.upper())
    made.isVariable = tensor.variable
    if tensor.signature is not None:
        made.shapeSignature, made.hasRank = list(tensor.signature), True
    if tensor.scale is not None:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [tensor.scale], [0]
    if tensor.data is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(tensor.data.tobytes(), np.uint8)
        model.buffers.append(buffer)
        made.buffer = len(model.buffers) - 1
    return made


def lite_cnn() -> LiteGraph:
    """A convolution, a depthwise one and a linear layer, in int8."""
    int8 = LiteTensor((1, 8, 8, 1), "int8", scale=0.1)
    kernel = np.ones((4, 3, 3, 1), np.int8)
    tensors = {
        "x": int8,
        "w": LiteTensor(kernel.shape, "int8", kernel, 0.1),
        "b": LiteTensor((4,), "int32", np.ones(4, np.int32), 0.01),
        "c": LiteTensor((1, 8, 8, 4), "int8", scale=0.1),
        "dw": LiteTensor((1, 3, 3, 4), "int8", np.ones((1, 3, 3, 4), np.int8), 0.1),
        "d": LiteTensor((1, 4, 4, 4), "int8", scale=0.1),
        "shape": LiteTensor((2,), "int32", np.array([1, 64], np.int32)),
        "f": LiteTensor((1, 64), "int8", scale=0.1),
        "fw": LiteTensor((10, 64), "int8", np.ones((10, 64), np.int8), 0.1),
        "y": LiteTensor((1, 10), "int8", scale=0.1),
    }
    ops = [
        LiteOp("CONV_2D", ["x", "w", "b"], ["c"]),
        LiteOp("DEPTHWISE_CONV_2D", ["c", "dw", "b"], ["d"]),
        LiteOp("RESHAPE", ["d", "shape"], ["f"]),
        LiteOp("FULLY_CONNECTED", ["f", "fw", ""], ["y"]),
    ]
    return LiteGraph(tensors, ops, ["x"], ["y"])


def lite_branches() -> tuple[LiteGraph, LiteGraph, LiteGraph]:
    """An ``IF``: a linear layer in one branch, nothing to multiply in the other."""
    options = flatbuffer.schema().IfOptionsT()
    options.thenSubgraphIndex, options.elseSubgraphIndex = 1, 2
    row, weight = LiteTensor((1, 4)), np.ones((4, 4), np.float32)
    main = LiteGraph(
        {"t": LiteTensor((), "bool"), "x": row, "y": row},
        [LiteOp("IF", ["t", "x"], ["y"], options)],
        ["t", "x"],
        ["y"],
    )
    linear = LiteGraph(
        {"a": row, "w": LiteTensor((4, 4), data=weight), "b": row},
        [LiteOp("FULLY_CONNECTED", ["a", "w", ""], ["b"])],
        ["a"],
        ["b"],
    )
    plain = LiteGraph({"a": row, "b": row}, [LiteOp("ABS", ["a"], ["b"])], ["a"], ["b"])
    return main, linear, plain
