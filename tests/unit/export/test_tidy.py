# SPDX-License-Identifier: Apache-2.0
import pytest

from edgeprune.errors import EdgepruneError
from edgeprune.export import flatbuffer, tidy


def unpacked(written):
    return flatbuffer.load(written.path.read_bytes(), "m")


def test_an_int8_graph_has_float_edges(lite):
    graph = flatbuffer.read(lite("int8").path)
    assert [t.dtype for t in (*graph.inputs, *graph.outputs)] == ["float32", "float32"]
    assert (graph.ops[0].kind, graph.ops[0].inputs) == ("QUANTIZE", graph.inputs)
    assert (graph.ops[-1].kind, graph.ops[-1].outputs) == ("DEQUANTIZE", graph.outputs)
    assert graph.ops[0].outputs[0].dtype == graph.ops[-1].inputs[0].dtype == "int8"


def test_float_edges_twice_is_once(lite):
    model = unpacked(lite("int8"))
    before = flatbuffer.pack(model)
    tidy.float_edges(model)
    assert flatbuffer.pack(model) == before


def test_versions_tell_of_the_kernels_that_are_needed(lite):
    def versions(numerics):
        ops = flatbuffer.read(lite(numerics).path).ops
        return {op.kind: op.version for op in ops}

    dynamic, weights = versions("int8-dynamic"), versions("int8-weights")
    assert (dynamic["FULLY_CONNECTED"], dynamic["CONV_2D"]) == (12, 5)
    assert (weights["DEQUANTIZE"], versions("fp16")["DEQUANTIZE"]) == (5, 3)
    assert weights["CONV_2D"] == versions("fp32")["CONV_2D"] == 1


def test_names_tell_the_operator(lite):
    graph = flatbuffer.read(lite("int8-weights").path)
    convolution = next(op for op in graph.ops if op.kind == "CONV_2D")
    _, weight, bias = (t.name for t in convolution.inputs)
    name = convolution.outputs[0].name
    assert name.startswith("conv_2d_")
    assert (weight, bias) == (f"{name}.weight.float", f"{name}.bias")
    stored = next(op.inputs[0] for op in graph.ops if op.outputs[0].name == weight)
    assert (stored.name, stored.dtype) == (f"{name}.weight", "int8")
    names = [t.name for op in graph.ops for t in (*op.inputs, *op.outputs)]
    assert len({*names}) == len({t.index for op in graph.ops for t in (*op.inputs, *op.outputs)})


def test_nothing_unused_is_left(lite):
    model = unpacked(lite("int8"))
    assert (model.metadata, model.description) == (None, b"edgeprune")
    used = {t.buffer for t in model.subgraphs[0].tensors}
    assert used | {0} == set(range(len(model.buffers)))
    assert {op.opcodeIndex for op in model.subgraphs[0].operators} == set(
        range(len(model.operatorCodes))
    )


def test_a_lost_output_is_named(lite):
    with pytest.raises(EdgepruneError, match="lost the outputs mask"):
        tidy.order_edges(unpacked(lite("fp32")), ["x"], ["output", "mask"])
