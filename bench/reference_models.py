# SPDX-License-Identifier: Apache-2.0
"""Write the reference models that latencies are divided by: the same small network twice.

    python bench/reference_models.py

writes ``reference.onnx`` and ``reference.tflite`` into ``edgeprune/measure/references``. A changed
file makes every accepted ``latency_reference`` worthless, so they stay as they are; a test makes
them anew and compares.

A mix of what networks on small devices do: 3x3 convolutions, depthwise and pointwise ones, a
residual sum and a pooling (bound by memory), a fully connected layer. Float32, weights drawn with
a fixed seed and scaled so that no activation dies or becomes denormal. Written operation by
operation in old versions (ONNX opset 13, TFLite's first ones), so that old runtimes read them and
no exporter's version is part of them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

FOLDER = Path(__file__).parents[1] / "edgeprune" / "measure" / "references"
OPSET = 13
IR_VERSION = 7
SEED = 20_261_122

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layer:
    """One operation; ``inputs`` of the residual sum are its own and that of ``other``."""

    kind: str
    channels: int = 0
    """Of the output."""
    size: int = 3
    """Of a kernel or a pooling window."""
    stride: int = 1
    other: int = -1


INPUT = (48, 48, 3)
LAYERS = (
    Layer("conv", 16),
    Layer("depthwise", 16),
    Layer("conv", 32, size=1),
    Layer("max", 32, size=2, stride=2),
    Layer("conv", 32),
    Layer("add", 32, other=3),
    Layer("depthwise", 32, stride=2),
    Layer("conv", 64, size=1),
    Layer("max", 64, size=2, stride=2),
    Layer("dense", 16),
)


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=FOLDER)
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reference.onnx").write_bytes(write_onnx())
    (folder / "reference.tflite").write_bytes(write_tflite())


def weights() -> list[tuple[Array, Array] | None]:
    """Kernel and bias of each layer; kernels are output x height x width x input channels."""
    generator = np.random.default_rng(SEED)
    found: list[tuple[Array, Array] | None] = []
    for layer, (height, width, channels) in zip(LAYERS, shapes()[:-1], strict=True):
        shape: tuple[int, ...]
        if layer.kind == "conv":
            shape = (layer.channels, layer.size, layer.size, channels)
        elif layer.kind == "depthwise":
            shape = (layer.channels, layer.size, layer.size, 1)
        elif layer.kind == "dense":
            shape = (layer.channels, height, width, channels)
        else:
            found.append(None)
            continue
        scale = (2 / np.prod(shape[1:])) ** 0.5
        kernel = (generator.standard_normal(shape) * scale).astype("<f4")
        found.append((kernel, np.full(layer.channels, 0.05, "<f4")))
    return found


def shapes() -> list[tuple[int, int, int]]:
    """Height, width and channels before each layer, and after the last."""
    found = [INPUT]
    for layer in LAYERS:
        height, width, _ = found[-1]
        across = 1 if layer.kind == "dense" else height // layer.stride
        down = 1 if layer.kind == "dense" else width // layer.stride
        found.append((across, down, layer.channels))
    return found


def write_onnx() -> bytes:
    """The network as ONNX, input ``x`` 1x3x48x48."""
    nodes, constants, name = [], [], "x"
    for k, (layer, own) in enumerate(zip(LAYERS, weights(), strict=True)):
        window = {"kernel_shape": [layer.size] * 2, "strides": [layer.stride] * 2}
        source, name = name, f"h{k}"
        if own is None:
            other = [f"h{layer.other}"] if layer.kind == "add" else []
            kind, options = ("Add", {}) if layer.kind == "add" else ("MaxPool", window)
            nodes.append(helper.make_node(kind, [source, *other], [name], **options))
            continue
        kernel, bias = own
        if layer.kind == "dense":
            nodes.append(helper.make_node("Flatten", [source], [f"{name}.flat"]))
            nodes.append(
                helper.make_node("Gemm", [f"{name}.flat", f"w{k}", f"b{k}"], [name], transB=1)
            )
            kernel = kernel.transpose(0, 3, 1, 2).reshape(layer.channels, -1)
        else:
            grouped = {"group": layer.channels} if layer.kind == "depthwise" else {}
            before = (layer.size - layer.stride) // 2  # as TFLite's SAME has it
            pads = [before] * 2 + [layer.size - layer.stride - before] * 2
            inputs = [source, f"w{k}", f"b{k}"]
            raw = f"{name}.raw"
            nodes.append(helper.make_node("Conv", inputs, [raw], pads=pads, **window, **grouped))
            nodes.append(helper.make_node("Relu", [raw], [name]))
            kernel = kernel.transpose(0, 3, 1, 2)
        constants.append(numpy_helper.from_array(np.ascontiguousarray(kernel), f"w{k}"))
        constants.append(numpy_helper.from_array(bias, f"b{k}"))
    height, width, channels = INPUT
    graph = helper.make_graph(
        nodes,
        "reference",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, height, width])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, LAYERS[-1].channels])],
        constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def write_tflite() -> bytes:
    """The network as TFLite, input ``x`` 1x48x48x3."""
    build = _Builder()
    sizes = shapes()
    names = [build.tensor("x", [1, *INPUT])]
    for k, (layer, own) in enumerate(zip(LAYERS, weights(), strict=True)):
        dense = layer.kind == "dense"
        shape = [1, layer.channels] if dense else [1, *sizes[k + 1]]
        inputs = [names[-1]]
        if layer.kind == "add":
            inputs.append(names[layer.other + 1])
        if own is not None:
            kernel, bias = own
            if layer.kind == "depthwise":
                kernel = kernel.transpose(3, 1, 2, 0)
            if dense:
                kernel = kernel.reshape(layer.channels, -1)
            inputs += [build.tensor(f"w{k}", list(kernel.shape), kernel)]
            inputs += [build.tensor(f"b{k}", [layer.channels], bias)]
        names.append(build.tensor(f"h{k}", shape))
        build.op(layer, inputs, names[-1])
    return build.bytes(names[0], names[-1])


class _Builder:
    """A TFLite file with one subgraph."""

    def __init__(self) -> None:
        self._graph = schema.SubGraphT()
        self._graph.name = "reference"
        self._graph.tensors, self._graph.operators = [], []
        self._buffers = [schema.BufferT()]
        self._codes: list[int] = []

    def tensor(self, name: str, shape: list[int], value: Array | None = None) -> int:
        """Add a tensor, a constant one where it has a value; its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, shape, schema.TensorType.FLOAT32
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
            tensor.buffer = len(self._buffers)
            self._buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def op(self, layer: Layer, inputs: list[int], output: int) -> None:
        """Add the operation of ``layer``."""
        code, kind, options = _options(layer)
        if code not in self._codes:
            self._codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.index(code)
        operator.inputs, operator.outputs = inputs, [output]
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        self._graph.operators.append(operator)

    def bytes(self, source: int, end: int) -> bytes:
        """The whole file."""
        self._graph.inputs, self._graph.outputs = [source], [end]
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [self._graph], self._buffers
        model.description = "edgeprune reference"
        model.operatorCodes = []
        for code in self._codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode = entry.deprecatedBuiltinCode = code
            entry.version = 1
            model.operatorCodes.append(entry)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _options(layer: Layer) -> tuple[int, int, Any]:
    """Code of a layer's operation, and type and value of its options."""
    codes, kinds = schema.BuiltinOperator, schema.BuiltinOptions
    options: Any
    if layer.kind == "add":
        options = schema.AddOptionsT()
        return codes.ADD, kinds.AddOptions, options
    if layer.kind == "dense":
        options = schema.FullyConnectedOptionsT()
        return codes.FULLY_CONNECTED, kinds.FullyConnectedOptions, options
    if layer.kind == "max":
        options = schema.Pool2DOptionsT()
        options.filterHeight = options.filterWidth = layer.size
        found = codes.MAX_POOL_2D, kinds.Pool2DOptions
    elif layer.kind == "conv":
        options = schema.Conv2DOptionsT()
        options.dilationHFactor = options.dilationWFactor = 1
        found = codes.CONV_2D, kinds.Conv2DOptions
    else:
        options = schema.DepthwiseConv2DOptionsT()
        options.depthMultiplier = options.dilationHFactor = options.dilationWFactor = 1
        found = codes.DEPTHWISE_CONV_2D, kinds.DepthwiseConv2DOptions
    options.strideH = options.strideW = layer.stride
    options.padding = schema.Padding.SAME
    if layer.kind != "max":
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    return (*found, options)


if __name__ == "__main__":
    main()
