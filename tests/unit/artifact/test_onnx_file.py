# SPDX-License-Identifier: Apache-2.0
"""ONNX files as read: what is in them, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.artifact import contents, read
from edgeprune.artifact.limits import NESTING
from edgeprune.errors import InputError
from tests.model_files import control, onnx_model, quantized, save, value


def refusal(path: Path, model: onnx.ModelProto) -> str:
    with pytest.raises(InputError) as caught:
        contents(read(save(path / "m.onnx", model)))
    assert str(caught.value).isprintable()
    return str(caught.value)


def linear() -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")
    return onnx_model([node], {"x": ("n", 4)}, ["y"], {"w": np.ones((4, 3), np.float32)})


def test_the_carrier(tmp_path: Path) -> None:
    artifact = read(save(tmp_path / "m.onnx", linear()))
    (operator,) = artifact.graph.operators
    assert (operator.name, operator.type, operator.inputs) == ("fc", "MatMul", ("x", "w"))
    assert artifact.graph.inputs == ("x",)
    assert artifact.graph.tensors["x"].shape == ("n", 4)
    weight = artifact.graph.tensors["w"]
    assert (weight.shape, weight.dtype, weight.constant, weight.bytes) == (
        (4, 3),
        "float32",
        True,
        48,
    )
    assert artifact.opsets[""] == 20
    assert artifact.bytes == (tmp_path / "m.onnx").stat().st_size


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_])
def test_constants_keep_their_values(tmp_path: Path, dtype: type, raw: bool) -> None:
    array = np.array([[0, 1], [1, 3]], dtype)
    model = onnx_model([helper.make_node("Identity", ["c"], ["y"])], {"x": (1,)}, ["y"])
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    data = array.tobytes() if raw else array.ravel().tolist()
    model.graph.initializer.append(helper.make_tensor("c", kind, (2, 2), data, raw=raw))
    tensor = read(save(tmp_path / "m.onnx", model)).graph.tensors["c"]
    assert tensor.values == tuple(array.ravel().tolist())
    assert (tensor.shape, tensor.dtype) == ((2, 2), array.dtype.name)


@pytest.mark.parametrize(
    ("name", "given", "shape", "dtype"),
    [
        ("value_int", 7, (), "int64"),
        ("value_ints", [1, 2], (2,), "int64"),
        ("value_float", 0.5, (), "float32"),
        ("value_floats", [0.5, 1.0, 2.0], (3,), "float32"),
        ("value_strings", [b"a"], (1,), "string"),
    ],
)
def test_constant_nodes_are_tensors(
    tmp_path: Path, name: str, given: object, shape: tuple[int, ...], dtype: str
) -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], **{name: given}),
        helper.make_node("Identity", ["c"], ["y"]),
    ]
    graph = read(save(tmp_path / "m.onnx", onnx_model(nodes, {"x": (1,)}, ["y"]))).graph
    tensor = graph.tensors["c"]
    assert (tensor.shape, tensor.dtype, tensor.constant) == (shape, dtype, True)
    assert [operator.type for operator in graph.operators] == ["Identity"]


def test_sparse_constants_count_as_the_dense_ones(tmp_path: Path) -> None:
    model = linear()
    del model.graph.initializer[:]
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    indices = numpy_helper.from_array(np.array([0, 5]), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 3]))
    found = contents(read(save(tmp_path / "m.onnx", model)))
    assert found.artifact.graph.tensors["w"].shape == (4, 3)
    assert (found.counts.parameters, found.counts.macs) == (12, 12)


def test_operators_out_of_order_are_sorted(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Abs", ["x"], ["a"])]
    graph = read(save(tmp_path / "m.onnx", onnx_model(nodes, {"x": (1,)}, ["y"]))).graph
    assert [operator.type for operator in graph.operators] == ["Abs", "Relu"]


def test_names_of_operators_are_made_unique(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="n"),
        helper.make_node("Relu", ["a"], ["b"], name="n"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    graph = read(save(tmp_path / "m.onnx", onnx_model(nodes, {"x": (1,)}, ["y"]))).graph
    assert [operator.name for operator in graph.operators] == ["n", "n#2", "y"]


def test_an_initializer_is_no_input(tmp_path: Path) -> None:
    model = linear()
    model.graph.input.append(value("w", (4, 3)))  # as before IR version 4
    assert read(save(tmp_path / "m.onnx", model)).graph.inputs == ("x",)


def test_a_cycle(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    assert "has a cycle" in refusal(tmp_path, onnx_model(nodes, {"x": (1,)}, ["b"]))


def test_a_tensor_that_nothing_makes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["gone"], ["y"])]
    assert "'gone', which nothing makes" in refusal(tmp_path, onnx_model(nodes, {"x": (1,)}, ["y"]))
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    assert "the output 'z'" in refusal(tmp_path, onnx_model(nodes, {"x": (1,)}, ["z"]))


@pytest.mark.parametrize("where", ["nodes", "initializers", "inputs"])
def test_two_tensors_of_one_name(tmp_path: Path, where: str) -> None:
    model = linear()
    if where == "nodes":
        model.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))
    elif where == "initializers":
        model.graph.initializer.append(model.graph.initializer[0])
    else:
        model.graph.input.append(model.graph.input[0])
    assert "have the name" in refusal(tmp_path, model)


def test_two_graphs(tmp_path: Path) -> None:
    """Protobuf joins them, so a runtime would run more than was counted."""
    content = linear().SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(content + quantized().SerializeToString())
    with pytest.raises(InputError, match="2 graphs"):
        read(path)


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    content = linear().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content.replace(b"fc", b"\xff\n"))
    with pytest.raises(InputError, match=r"'\\xff\\n' at byte \d+ isn't UTF-8"):
        read(tmp_path / "m.onnx")


@pytest.mark.parametrize("dims", [[-1, 3], [2**62, 2**62], [2**40 + 1], [1] * 33])
def test_impossible_sizes_of_a_constant(tmp_path: Path, dims: list[int]) -> None:
    model = linear()
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    assert "tensor 'w' has the shape" in refusal(tmp_path, model)


@pytest.mark.parametrize("size", [-2, -(2**63), 2**62])
def test_impossible_sizes_of_an_input(tmp_path: Path, size: int) -> None:
    model = linear()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = size
    assert "tensor 'x' has the shape" in refusal(tmp_path, model)


def test_minus_one_is_an_open_size(tmp_path: Path) -> None:
    model = linear()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert contents(read(save(tmp_path / "m.onnx", model))).counts.macs == 12


def test_data_that_does_not_fit_its_shape(tmp_path: Path) -> None:
    model = linear()
    model.graph.initializer[0].dims[0] = 400
    assert "holds 48 bytes, and its shape takes 4800" in refusal(tmp_path, model)


def nested(depth: int) -> onnx.GraphProto:
    node = helper.make_node("Relu", ["x"], [f"y{depth}"])
    if depth:
        inner = nested(depth - 1)
        node = helper.make_node("If", ["t"], [f"y{depth}"], then_branch=inner, else_branch=inner)
    return helper.make_graph([node], f"g{depth}", [], [value(f"y{depth}", None)])


@pytest.mark.parametrize(("depth", "fits"), [(8, True), (NESTING + 1, False)])
def test_nesting_has_a_limit(tmp_path: Path, depth: int, fits: bool) -> None:
    graph = nested(depth)
    graph.input.extend([value("x", (1,)), value("t", (), TensorProto.BOOL)])
    path = save(tmp_path / "m.onnx", helper.make_model(graph))
    if fits:
        assert contents(read(path)).counts.kinds["If"] == 2**depth - 1
    else:
        with pytest.raises(InputError, match="sub-graphs 17 deep"):
            read(path)


def functions(count: int, calls: int) -> onnx.ModelProto:
    """Each function calls the one before ``calls`` times."""
    made = []
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("f", 1)]
    for number in range(count):
        op, domain = (f"F{number - 1}", "f") if number else ("Relu", "")
        nodes, last = [], "a"
        for call in range(calls):
            nodes.append(helper.make_node(op, [last], [f"b{call}"], domain=domain))
            last = f"b{call}"
        made.append(helper.make_function("f", f"F{number}", ["a"], [last], nodes, domains))
    node = helper.make_node(f"F{count - 1}", ["x"], ["y"], domain="f")
    return onnx_model([node], {"x": (1,)}, ["y"], functions=made)


def test_functions_that_grow_without_end_are_refused(tmp_path: Path) -> None:
    assert contents(read(save(tmp_path / "m.onnx", functions(5, 2)))).counts.kinds["Relu"] == 2**5
    assert "once functions are written out" in refusal(tmp_path, functions(30, 2))


def test_a_function_that_calls_itself(tmp_path: Path) -> None:
    node = helper.make_node("F", ["a"], ["b"], domain="f")
    domains = [helper.make_opsetid("f", 1)]
    body = helper.make_function("f", "F", ["a"], ["b"], [node], domains)
    call = helper.make_node("F", ["x"], ["y"], domain="f")
    assert "without end" in refusal(
        tmp_path, onnx_model([call], {"x": (1,)}, ["y"], functions=[body])
    )


def test_attributes_of_a_call_reach_the_function(tmp_path: Path) -> None:
    node = helper.make_node("Gemm", ["a", "b"], ["c"])
    reference = onnx.AttributeProto(name="transB", ref_attr_name="turned")
    reference.type = onnx.AttributeProto.INT
    node.attribute.append(reference)
    body = helper.make_function(
        "f", "F", ["a", "b"], ["c"], [node], [helper.make_opsetid("", 20)], ["turned"]
    )
    call = helper.make_node("F", ["x", "w"], ["y"], domain="f", turned=1)
    weight = {"w": np.ones((5, 3), np.float32)}
    model = onnx_model([call], {"x": (2, 3)}, ["y"], weight, [body])
    found = contents(read(save(tmp_path / "m.onnx", model)))
    assert (found.counts.macs, found.counts.parameters) == (2 * 3 * 5, 15)


def external(folder: Path, location: str, offset: int = 0, length: int | None = None) -> Path:
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="offset", value=str(offset))
    if length is not None:
        tensor.external_data.add(key="length", value=str(length))
    folder.mkdir(exist_ok=True)
    return save(folder / "m.onnx", model)


@pytest.mark.parametrize("length", [48, None])
def test_weights_in_a_file_of_their_own(tmp_path: Path, length: int | None) -> None:
    path = external(tmp_path, "w.bin", 16, length)
    (tmp_path / "w.bin").write_bytes(bytes(64))
    found = contents(read(path))
    assert found.artifact.bytes == path.stat().st_size + 64
    assert found.counts.layers[0].bytes == 48


@pytest.mark.parametrize(
    "location",
    [
        "../w.bin",
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../w.bin",
        "..\\w.bin",
        "C:\\w",
        "",
        "a\0",
    ],
)
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    with pytest.raises(InputError, match="outside the model's folder"):
        read(external(tmp_path / "inner", location))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    path = external(tmp_path / "inner", "link.bin")
    (path.parent / "link.bin").symlink_to("../w.bin")
    with pytest.raises(InputError, match="outside the model's folder"):
        read(path)
    (path.parent / "loop.bin").symlink_to("loop.bin")
    with pytest.raises(InputError):
        read(external(path.parent, "loop.bin"))


@pytest.mark.parametrize(
    ("offset", "length", "text"),
    [(32, 48, "lies at bytes 32 to 80"), (0, 47, "holds 47 bytes"), (60, None, "holds 4 bytes")],
)
def test_weights_that_do_not_fit_their_file(
    tmp_path: Path, offset: int, length: int | None, text: str
) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    with pytest.raises(InputError, match=text):
        read(external(tmp_path, "w.bin", offset, length))


def test_weights_in_a_missing_file_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m.onnx: .*gone.bin: can't be read"):
        read(external(tmp_path, "gone.bin"))
    with pytest.raises(InputError, match="a folder"):
        read(external(tmp_path, "."))


def test_weights_at_no_number(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(64))
    path = external(tmp_path, "w.bin", -1)
    with pytest.raises(InputError, match="lies at '-1'"):
        read(path)


def test_sub_graphs_are_read(tmp_path: Path) -> None:
    graph = read(save(tmp_path / "m.onnx", control())).graph
    roles = {operator.name: set(operator.graphs) for operator in graph.operators}
    assert roles["if"] == {"then_branch", "else_branch"}
    assert roles["loop"] == {"body"}


@pytest.mark.parametrize("count", [3_000_000])
def test_more_fields_than_any_model_has(tmp_path: Path, count: int) -> None:
    """Every second byte a field: the work is limited, not only the bytes."""
    graph = b"\x60\x00" * count
    size = len(graph)
    head = b"\x3a" + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128])
    (tmp_path / "m.onnx").write_bytes(head + bytes([size >> 21]) + graph)
    with pytest.raises(InputError, match="fields"):
        read(tmp_path / "m.onnx")
