# SPDX-License-Identifier: Apache-2.0
"""Tiny files to measure, written by hand: no exporter has a part in these tests."""

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper


def chain(
    path: Path, *, width: int = 8, depth: int = 1, batch: int | str = 1, dtype: int | None = None
) -> Path:
    """``depth`` matrix products of ``width`` x ``width``, as ONNX."""
    generator = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(
            (generator.normal(size=(width, width)) / width).astype("float32"), f"w{k}"
        )
        for k in range(depth)
    ]
    names = ["x", *(f"h{k}" for k in range(1, depth)), "y"]
    nodes = [helper.make_node("MatMul", [names[k], f"w{k}"], [names[k + 1]]) for k in range(depth)]
    return _save(path, nodes, [batch, width], [batch, width], weights, dtype)


def lookup(path: Path, *, length: int | str = 6) -> Path:
    """Rows of a table of two by integer indices, as ONNX: an index of 2 fails."""
    table = numpy_helper.from_array(np.arange(8, dtype="float32").reshape(2, 4), "table")
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    return _save(path, [node], [1, length], [1, length, 4], [table], TensorProto.INT64)


def flattened(path: Path) -> Path:
    """An output without a batch dimension, from a fixed batch of 1, as ONNX."""
    shape = numpy_helper.from_array(np.array([-1]), "shape")
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    return _save(path, [node], [1, 8], [8], [shape], None)


def endless(path: Path) -> Path:
    """A loop that a run doesn't come back from, as ONNX."""
    float_type = TensorProto.FLOAT
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["again"]),
            helper.make_node("Add", ["state", "state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("k", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", float_type, [1, 8]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", float_type, [1, 8]),
        ],
    )
    node = helper.make_node("Loop", ["times", "go", "x"], ["y"], body=body)
    constants = [
        numpy_helper.from_array(np.array(2**62), "times"),
        numpy_helper.from_array(np.array(True), "go"),
    ]
    return _save(path, [node], [1, 8], [1, 8], constants, None)


def inflated(path: Path, count: int) -> Path:
    """``count`` floats, made while it runs, out of some hundred bytes of ONNX."""
    nodes = [
        helper.make_node("ConstantOfShape", ["sizes"], ["many"]),
        helper.make_node("ReduceMax", ["many"], ["most"], keepdims=1),
        helper.make_node("Add", ["x", "most"], ["y"]),
    ]
    sizes = numpy_helper.from_array(np.array([count]), "sizes")
    return _save(path, nodes, [1], [1], [sizes], None)


def _save(
    path: Path, nodes: Any, shape: Any, result: Any, constants: Any, dtype: int | None
) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", dtype or TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, result)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def sums(path: Path, names: list[str], *, signature: bool = True) -> Path:
    """Output k is the input (1 x 8) plus k, named ``names[k]`` in the signature, as TFLite.

    The graph lists its outputs backwards, so only the signature tells which is which.
    """
    build = _Builder()
    source = build.tensor("x", [1, 8])
    ends = []
    for k in range(len(names)):
        constant = build.tensor(f"c{k}", [1], np.array([k], "float32"))
        ends.append(build.tensor(f"sum{k}", [1, 8]))
        build.op(schema.BuiltinOperator.ADD, [source, constant], [ends[k]])
    outputs = dict(zip(names, ends, strict=True)) if signature else None
    return build.save(path, source, ends[::-1], outputs)


def reshaped(path: Path) -> Path:
    """1 x 8 to a constant 1 x 2 x 4, as TFLite: the batch can't be resized."""
    build = _Builder()
    source, target = build.tensor("x", [1, 8]), build.tensor("y", [1, 2, 4])
    shape = build.tensor("shape", [3], np.array([1, 2, 4], "int32"))
    build.op(schema.BuiltinOperator.RESHAPE, [source, shape], [target])
    return build.save(path, source, [target], {"y": target})


def two_inputs(path: Path) -> Path:
    """The sum of ``in_0`` (1 x 8) and ``in_1`` (1 x 1), listed backwards, as TFLite."""
    build = _Builder()
    wide, narrow = build.tensor("wide", [1, 8]), build.tensor("narrow", [1, 1])
    total = build.tensor("total", [1, 8])
    build.op(schema.BuiltinOperator.ADD, [wide, narrow], [total])
    build.inputs = {"in_1": narrow, "in_0": wide}
    return build.save(path, narrow, [total], {"y": total})


class _Builder:
    inputs: dict[str, int] | None = None

    def __init__(self) -> None:
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.buffers = [schema.BufferT()]
        self.codes: list[int] = []

    def tensor(self, name: str, shape: list[int], value: Any = None) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name, shape
        integer = value is not None and value.dtype == np.int32
        tensor.type = schema.TensorType.INT32 if integer else schema.TensorType.FLOAT32
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(value.tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def op(self, code: int, inputs: list[int], outputs: list[int]) -> None:
        operator = schema.OperatorT()
        if code not in self.codes:
            self.codes.append(code)
        operator.opcodeIndex = self.codes.index(code)
        operator.inputs, operator.outputs = inputs, outputs
        self.graph.operators.append(operator)

    def save(
        self, path: Path, source: int, ends: list[int], outputs: dict[str, int] | None
    ) -> Path:
        inputs = self.inputs or {"args_0": source}
        self.graph.inputs, self.graph.outputs = [*inputs.values()], ends
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [self.graph], self.buffers
        model.operatorCodes = [self._code(code) for code in self.codes]
        if outputs is not None:
            signature = schema.SignatureDefT()
            signature.signatureKey = "serving_default"
            signature.inputs = [self._entry(name, index) for name, index in inputs.items()]
            signature.outputs = [self._entry(name, index) for name, index in outputs.items()]
            model.signatureDefs = [signature]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        path.write_bytes(builder.Output())
        return path

    @staticmethod
    def _code(code: int) -> Any:
        result = schema.OperatorCodeT()
        result.builtinCode = result.deprecatedBuiltinCode = code
        return result

    @staticmethod
    def _entry(name: str, index: int) -> Any:
        result = schema.TensorMapT()
        result.name, result.tensorIndex = name, index
        return result
