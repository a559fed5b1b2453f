# SPDX-License-Identifier: Apache-2.0
"""Shapes, types and values that are worked out, against what the operators really give."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from edgeprune.artifact import contents, read
from edgeprune.artifact.shapes import resolve
from edgeprune.errors import InputError
from tests.model_files import onnx_model, save, value

DATA = Path(onnx.__file__).parent / "backend/test/data"
_KNOWN = (np.int64, np.int32, np.float32, np.uint8, np.int8, np.bool_)


def bare(case: Any) -> onnx.ModelProto:
    """A case's model, its outputs not declared and its small inputs constant."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for output in model.graph.output:
        if output.type.HasField("tensor_type"):
            output.type.tensor_type.Clear()
    names = [i.name for i in model.graph.input]
    for at, (name, array) in enumerate(zip(names, case.data_sets[0][0], strict=False)):
        if not isinstance(array, np.ndarray) or array.dtype not in _KNOWN:
            continue
        if at or (len(names) == 1 and array.dtype == np.int64):
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


@pytest.mark.slow  # some 20 s, most of it the cases making their inputs
def test_what_is_worked_out_is_what_the_operators_give(tmp_path: Path) -> None:
    """ONNX's own node tests: some 1900 small models with the outputs that a runtime must give."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, where a case divides by zero
        cases = [c for c in collect_testcases(None) if c.model is not None and c.data_sets]
    known: Counter[str] = Counter()
    wrong = []
    for case in cases:
        found = resolve(read(save(tmp_path / "m.onnx", bare(case)))).graph
        for output, array in zip(case.model.graph.output, case.data_sets[0][1], strict=False):
            tensor = found.tensors.get(output.name)
            if not hasattr(array, "shape") or tensor is None or tensor.shape is None:
                continue
            if None in tensor.shape:
                continue
            known["shapes"] += 1
            if tensor.shape != tuple(array.shape) or tensor.dtype not in ("", str(array.dtype)):
                wrong.append((case.name, tensor.shape, array.shape, tensor.dtype, array.dtype))
            elif tensor.values is not None and None not in tensor.values:
                known["values"] += 1
                told = np.array(tensor.values, np.float64).reshape(array.shape)
                if not np.allclose(told, array.astype(np.float64), equal_nan=True, atol=1e-4):
                    wrong.append((case.name, "values", tensor.values, array))
    assert wrong == []
    assert known["shapes"] > 1500, known
    assert known["values"] > 10, known


@pytest.mark.parametrize("path", sorted(DATA.glob("light/*.onnx")), ids=lambda p: p.stem)
def test_whole_networks_as_onnx_itself_infers_them(path: Path) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    graph = resolve(read(path)).graph
    compared = 0
    for info in model.graph.value_info:
        dims = info.type.tensor_type.shape.dim
        tensor = graph.tensors[info.name]
        if info.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            assert tensor.shape == tuple(d.dim_value for d in dims), info.name
            compared += 1
    assert compared > 20


def test_a_shape_computed_in_the_graph(tmp_path: Path) -> None:
    """As exporters write ``x.view(x.shape[0], -1)``."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}
    model = onnx_model(nodes, {"x": ("batch", 3, 4)}, ["y"], constants)
    found = resolve(read(save(tmp_path / "m.onnx", model)))
    assert found.gaps == ()
    assert found.graph.tensors["y"].shape == (1, 12)


def conv(shape: tuple[int | str | None, ...]) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="c")
    return onnx_model([node], {"x": shape}, ["y"], {"w": np.ones((2, 3, 1, 1), np.float32)})


def test_a_batch_that_is_open_is_one(tmp_path: Path) -> None:
    for batch in ("n", None):
        found = contents(read(save(tmp_path / "m.onnx", conv((batch, 3, 4, 4)))))
        assert found.counts.macs == 2 * 3 * 16


def test_other_open_sizes_are_told_or_unknown(tmp_path: Path) -> None:
    artifact = read(save(tmp_path / "m.onnx", conv(("n", 3, "h", 4))))
    found = contents(artifact)
    assert found.counts.macs is None
    assert "a size of its output 'y' isn't known" in found.counts.uncounted[0].reason
    assert found.arena is None
    assert "isn't known" in found.no_arena
    assert contents(artifact, {"h": 8}).counts.macs == 2 * 3 * 32
    assert contents(artifact, {"h": 8, "n": 2}).counts.macs == 2 * 2 * 3 * 32
    with pytest.raises(InputError, match="open size named 'height'; there are: n, h"):
        contents(artifact, {"height": 8})


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (helper.make_node("Conv", ["x", "w"], ["y"], strides=[0, 0]), (1, 3, 4, 4)),
        (helper.make_node("Conv", ["x", "w"], ["y"], pads=[1]), (1, 3, 4, 4)),
        (helper.make_node("Conv", ["x", "w"], ["y"], dilations=[99, 99]), (1, 3, 4, 4)),
        (helper.make_node("Conv", ["x", "w"], ["y"], pads=[-9] * 4), (1, 3, 4, 4)),
        (helper.make_node("Conv", ["x", "w"], ["y"], pads=[2**62] * 4), (1, 3, 4, 4)),
        (helper.make_node("Transpose", ["x"], ["y"], perm=[9, 1]), (3, 4)),
        (helper.make_node("Flatten", ["x"], ["y"], axis=-9), None),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), ()),
        (helper.make_node("Concat", ["x", "w"], ["y"], axis=9), (3, 4)),
        (helper.make_node("Split", ["x"], ["y"], axis=0), ()),
        (helper.make_node("Einsum", ["x", "w"], ["y"], equation="ab,->c"), (3, 4)),
        (helper.make_node("Relu", [], ["y"]), (3, 4)),
        (helper.make_node("LSTM", ["x"], ["y"]), (3, 4)),
    ],
    ids=lambda case: getattr(case, "op_type", None),
)
def test_what_no_operator_has_is_unknown_with_a_reason(
    tmp_path: Path, node: onnx.NodeProto, shape: tuple[int, ...] | None
) -> None:
    constants = {"w": np.ones((2, 3, 3, 3), np.float32)}
    model = onnx_model([node], {"x": shape}, ["y"], constants)
    found = contents(read(save(tmp_path / "m.onnx", model)))
    (gap,) = found.gaps
    assert gap.type == node.op_type
    assert gap.reason


def test_a_rule_comes_before_what_the_file_declares(tmp_path: Path) -> None:
    model = conv((1, 3, 4, 4))
    model.graph.value_info.append(value("y", (1, 99, 9, 9)))
    found = resolve(read(save(tmp_path / "m.onnx", model))).graph
    assert found.tensors["y"].shape == (1, 2, 4, 4)


def test_what_has_no_rule_is_as_the_file_declares(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mine", ["x"], ["a"], domain="other"),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    model = onnx_model(nodes, {"x": (1, 4)}, ["y"])
    model.graph.value_info.append(value("a", (1, 7)))
    model.opset_import.append(helper.make_opsetid("other", 1))
    found = contents(read(save(tmp_path / "m.onnx", model)))
    assert resolve(found.artifact).graph.tensors["y"].shape == (1, 7)
    assert [u.type for u in found.counts.uncounted] == ["other.Mine"]


def loop(times: int | None, grows: bool) -> onnx.ModelProto:
    """The state times a matrix, ``times`` times; or joined to itself, so that it grows."""
    step = ("Concat", ["state", "state"], {"axis": 0}) if grows else ("MatMul", ["state", "w"], {})
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node(step[0], step[1], ["next"], **step[2]),
            helper.make_node("MatMul", ["next", "w"], ["row"]),
        ],
        "body",
        [
            value("i", (), TensorProto.INT64),
            value("go", (), TensorProto.BOOL),
            value("state", None),
        ],
        [value("on", (), TensorProto.BOOL), value("next", None), value("row", None)],
    )
    constants = {"w": np.ones((4, 4), np.float32)}
    if times is not None:
        constants["n"] = np.array(times)
    node = helper.make_node("Loop", ["n", "", "x"], ["y", "rows"], body=body, name="loop")
    model = onnx_model([node], {"x": (2, 4)}, ["y", "rows"], constants)
    if times is None:
        model.graph.input.append(value("n", (), TensorProto.INT64))
    return model


def test_loops(tmp_path: Path) -> None:
    steady = contents(read(save(tmp_path / "m.onnx", loop(5, False))))
    assert steady.counts.macs == 5 * 2 * (2 * 4 * 4)
    graph = resolve(steady.artifact).graph
    assert (graph.tensors["y"].shape, graph.tensors["rows"].shape) == ((2, 4), (None, 2, 4))
    unknown = contents(read(save(tmp_path / "m.onnx", loop(None, False)))).counts
    assert unknown.macs is None
    assert [u.reason for u in unknown.uncounted] == ["how often its sub-graph runs isn't known"]
    growing = contents(read(save(tmp_path / "m.onnx", loop(5, True))))
    assert growing.counts.macs is None
    assert resolve(growing.artifact).graph.tensors["y"].shape is None


@pytest.mark.parametrize("test", [True, False])
def test_a_branch_that_is_known_is_the_one_that_counts(tmp_path: Path, test: bool) -> None:
    def branch(name: str, width: int) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["x", f"w{width}"], [name])
        return helper.make_graph([node], name, [], [value(name, None)])

    node = helper.make_node(
        "If", ["t"], ["y"], then_branch=branch("a", 3), else_branch=branch("b", 5)
    )
    constants = {f"w{n}": np.ones((4, n), np.float32) for n in (3, 5)} | {"t": np.array(test)}
    model = onnx_model([node], {"x": (2, 4)}, ["y"], constants)
    artifact = read(save(tmp_path / "m.onnx", model))
    assert resolve(artifact).graph.tensors["y"].shape == (2, 3 if test else 5)
    assert contents(artifact).counts.macs == 8 * (3 if test else 5)


def test_operators_of_very_many_inputs_are_limited(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sum", ["x"] * 3000, [f"y{at}"]) for at in range(300)]
    model = onnx_model(nodes, {"x": (1,) * 30}, ["y0"])
    with pytest.raises(InputError, match="no model has as many"):
        contents(read(save(tmp_path / "m.onnx", model)))
