# SPDX-License-Identifier: Apache-2.0
"""TFLite files as read: what is in them, and what is refused."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.artifact import contents, read
from edgeprune.artifact.tflite_names import OPERATORS, TYPES
from edgeprune.errors import InputError
from edgeprune.export import flatbuffer
from tests.model_files import LiteGraph, LiteOp, LiteTensor, lite_branches, lite_cnn, lite_model


def written(folder: Path, model: Any) -> Path:
    path = folder / "m.tflite"
    path.write_bytes(flatbuffer.pack(model))
    return path


def refusal(folder: Path, model: Any) -> str:
    with pytest.raises(InputError) as caught:
        contents(read(written(folder, model)))
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_the_names_are_the_schema_s() -> None:
    schema = flatbuffer.schema()
    for names, enumeration in ((OPERATORS, schema.BuiltinOperator), (TYPES, schema.TensorType)):
        told = {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}
        assert [name.upper() for name in names] == [told[n] for n in range(len(told))]


def test_the_carrier_is_what_the_schema_s_own_bindings_read(tmp_path: Path) -> None:
    path = written(tmp_path, lite_model(lite_cnn()))
    graph, theirs = read(path).graph, flatbuffer.read(path)
    assert [operator.type for operator in graph.operators] == [op.kind for op in theirs.ops]
    for operator, op in zip(graph.operators, theirs.ops, strict=True):
        assert operator.outputs == tuple(t.name for t in op.outputs)
        assert operator.inputs == tuple("" if t is None else t.name for t in op.inputs)
        for other in filter(None, (*op.inputs, *op.outputs)):
            tensor = graph.tensors[other.name]
            assert (tensor.shape, tensor.dtype) == (other.shape, other.dtype)
            assert tensor.constant == (other.raw is not None)
            assert tensor.bytes == (0 if other.raw is None else len(other.raw))
            assert tensor.quantized == other.quantized


def test_signatures(tmp_path: Path) -> None:
    model, schema = lite_model(lite_cnn()), flatbuffer.schema()
    entry, signature = schema.TensorMapT(), schema.SignatureDefT()
    entry.name, entry.tensorIndex = b"image", 0
    signature.signatureKey, signature.inputs, signature.outputs = b"serve", [entry], []
    model.signatureDefs = [signature]
    assert read(written(tmp_path, model)).signatures == {"serve": ("image",)}


def test_a_signature_with_a_graph_of_its_own_is_listed(tmp_path: Path) -> None:
    """Or a model could be hidden in it."""
    model, schema = lite_model(lite_cnn(), lite_cnn()), flatbuffer.schema()
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.inputs, signature.outputs = b"more", [], []
    signature.subgraphIndex = 1
    model.signatureDefs = [signature]
    counts = contents(read(written(tmp_path, model))).counts
    assert counts.macs is None
    assert [(u.operator, u.type) for u in counts.uncounted] == [("more", "signature")]


def test_tensors_of_one_name_are_told_apart(tmp_path: Path) -> None:
    model = lite_model(lite_cnn())
    for tensor in model.subgraphs[0].tensors:
        tensor.name = b"same"
    assert contents(read(written(tmp_path, model))).counts.parameters == 36 + 36 + 4 + 640


def test_branches_are_read(tmp_path: Path) -> None:
    (branch,) = read(written(tmp_path, lite_model(*lite_branches()))).graph.operators
    assert {role: graph.operators[0].type for role, graph in branch.graphs.items()} == {
        "then_branch": "FULLY_CONNECTED",
        "else_branch": "ABS",
    }


def test_constants_behind_the_flatbuffer_are_found(tmp_path: Path) -> None:
    model = lite_model(lite_cnn())
    whole = contents(read(written(tmp_path, model))).counts
    buffer = model.buffers[1]
    content = buffer.data.tobytes()
    buffer.data, buffer.offset, buffer.size = None, 0x0123456789AB, len(content)
    builder = flatbuffer.schema().flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    packed = bytes(builder.Output())
    marker = struct.pack("<Q", 0x0123456789AB)
    assert packed.count(marker) == 1
    path = tmp_path / "m.tflite"
    path.write_bytes(packed)
    with pytest.raises(InputError, match="cut off or damaged"):
        read(path)
    path.write_bytes(packed.replace(marker, struct.pack("<Q", len(packed))) + content)
    assert contents(read(path)).counts == whole


def test_an_unknown_operator_is_listed(tmp_path: Path) -> None:
    row = LiteTensor((1, 4))
    ops = [LiteOp("", ["x"], ["y"], custom="Mine")]
    found = contents(
        read(written(tmp_path, lite_model(LiteGraph({"x": row, "y": row}, ops, "x", "y"))))
    )
    assert found.counts.macs is None
    assert [(u.operator, u.type) for u in found.counts.uncounted] == [("y", "CUSTOM:Mine")]


def test_an_operator_of_a_later_schema_is_listed(tmp_path: Path) -> None:
    model = lite_model(lite_cnn())
    model.operatorCodes[0].builtinCode = 999
    (missing,) = contents(read(written(tmp_path, model))).counts.uncounted
    assert missing.type == "BUILTIN_999"


def _shape(model: Any) -> None:
    model.subgraphs[0].tensors[0].shape = [1, -8, 8, 1]


def _huge(model: Any) -> None:
    model.subgraphs[0].tensors[0].shape = [2**31 - 1] * 4


def _rank(model: Any) -> None:
    model.subgraphs[0].tensors[0].shape = [1] * 100


def _data(model: Any) -> None:
    model.subgraphs[0].tensors[1].shape = [4, 3, 3, 2]


def _buffer(model: Any) -> None:
    model.subgraphs[0].tensors[0].buffer = 99


def _tensor(model: Any) -> None:
    model.subgraphs[0].operators[0].inputs[0] = 99


def _negative(model: Any) -> None:
    model.subgraphs[0].operators[0].inputs[0] = -2


def _code(model: Any) -> None:
    model.subgraphs[0].operators[0].opcodeIndex = 99


def _cycle(model: Any) -> None:
    model.subgraphs[0].operators[0].inputs[0] = 9  # the last one's output


def _twice(model: Any) -> None:
    model.subgraphs[0].operators[1].outputs = [3]


def _over_weights(model: Any) -> None:
    model.subgraphs[0].operators[1].outputs = [8]


def _utf8(model: Any) -> None:
    model.subgraphs[0].tensors[0].name = b"\xff\n"


def _empty(model: Any) -> None:
    model.subgraphs = []


def _long(model: Any) -> None:
    model.subgraphs[0].tensors[0].name = b"a" * 100_000


def _elsewhere(model: Any) -> None:
    model.subgraphs[0].tensors[1].externalBuffer = 1


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (_shape, "tensor 'x' has the shape"),
        (_huge, "tensor 'x' has the shape"),
        (_rank, "of 100 dimensions"),
        (_data, "holds 36 bytes, and its shape takes 72"),
        (_buffer, "has buffer 99"),
        (_tensor, "tensor 99 of 10"),
        (_negative, "tensor -2 of 10"),
        (_code, "operator code 99"),
        (_cycle, "has a cycle"),
        (_twice, "'c' is made twice"),
        (_over_weights, "'fw' is made twice"),
        (_utf8, "isn't UTF-8"),
        (_empty, "no graph"),
        (_long, "a name of 100000 bytes"),
        (_elsewhere, "lies in another file"),
    ],
)
def test_what_contradicts_itself_is_refused(
    tmp_path: Path, damage: Callable[[Any], None], text: str
) -> None:
    model = lite_model(lite_cnn())
    damage(model)
    assert text in refusal(tmp_path, model)


def test_a_graph_that_runs_itself(tmp_path: Path) -> None:
    main, linear, _ = lite_branches()
    options = main.ops[0].options
    options.thenSubgraphIndex = options.elseSubgraphIndex = 0
    assert "has a cycle: it runs itself" in refusal(tmp_path, lite_model(main, linear))
    options.thenSubgraphIndex = 7
    options.elseSubgraphIndex = 1
    assert "sub-graph 7 of 2" in refusal(tmp_path, lite_model(main, linear))


def test_graphs_that_run_each_other_have_a_limit(tmp_path: Path) -> None:
    schema, row, graphs = flatbuffer.schema(), LiteTensor((1, 4)), []
    for number in range(20):
        options = schema.CallOptionsT()
        options.subgraph = number + 1
        op = LiteOp("CALL", ["a"], ["b"], options) if number < 19 else LiteOp("ABS", ["a"], ["b"])
        graphs.append(LiteGraph({"a": row, "b": row}, [op], ["a"], ["b"]))
    assert "sub-graphs 17 deep" in refusal(tmp_path, lite_model(*graphs))
    for graph in graphs[5:19]:
        graph.ops[0].options.subgraph -= 5
    found = contents(read(written(tmp_path, lite_model(*graphs[5:]))))
    assert found.counts.kinds == {"ABS": 1, "CALL": 14}


def test_a_table_that_points_at_itself(tmp_path: Path) -> None:
    """Offsets lead forward only; one of 0, or past the end, is refused."""
    path = written(tmp_path, lite_model(lite_cnn()))
    content = bytearray(path.read_bytes())
    for offset in (0, len(content), 2**32 - 1):
        content[0:4] = struct.pack("<I", offset)
        path.write_bytes(content)
        with pytest.raises(InputError, match="cut off or damaged"):
            read(path)


def test_one_vector_told_of_many_times_is_limited(tmp_path: Path) -> None:
    """As a zip bomb: 1000 operators that all have the same long list of inputs."""
    row = LiteTensor((1,))
    ops = [LiteOp("ADD_N", ["x"] * 5000, ["y"])] + [LiteOp("ABS", ["x"], []) for _ in range(500)]
    model = lite_model(LiteGraph({"x": row, "y": row}, ops, ["x"], ["y"]))
    packed = bytearray(flatbuffer.pack(model))
    schema = flatbuffer.schema()
    graph = schema.Model.GetRootAs(packed, 0).Subgraphs(0)
    long = graph.Operators(0)._tab
    where = long.Vector(long.Offset(6)) - 4
    moved = 0
    for at in range(1, 501):
        table = graph.Operators(at)._tab
        slot = table.Pos + table.Offset(6)
        if slot < where:
            packed[slot : slot + 4] = struct.pack("<I", where - slot)
            moved += 1
    assert moved > 400
    (tmp_path / "m.tflite").write_bytes(packed)
    with pytest.raises(InputError, match="more than 2000000 fields"):
        read(tmp_path / "m.tflite")


def test_quantized_constants_are_whole(tmp_path: Path) -> None:
    packed = LiteTensor((3,), "int4", np.zeros(2, np.uint8))
    ops = [LiteOp("CAST", ["c"], ["y"])]
    graph = LiteGraph({"c": packed, "y": LiteTensor((3,))}, ops, [], ["y"])
    assert read(written(tmp_path, lite_model(graph))).graph.tensors["c"].bytes == 2
