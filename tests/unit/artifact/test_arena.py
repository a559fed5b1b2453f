# SPDX-License-Identifier: Apache-2.0
"""The plan of the memory: no two tensors in one place at one time, and what files need by hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from edgeprune.artifact import contents, read
from edgeprune.artifact.arena import Life, plan
from edgeprune.artifact.call import Unknown
from edgeprune.export import flatbuffer
from tests.model_files import (
    LiteGraph,
    LiteOp,
    LiteTensor,
    lite_cnn,
    lite_model,
    onnx_model,
    quantized,
    save,
)

lives = st.lists(
    st.builds(
        lambda size, first, length: Life("t", size, first, first + length),
        st.integers(1, 1000),
        st.integers(0, 12),
        st.integers(0, 5),
    ),
    max_size=30,
)


@given(lives)
def test_tensors_that_live_together_lie_apart(tensors: list[Life]) -> None:
    places = plan(tensors)
    for at, one in enumerate(tensors):
        assert places[at] >= 0
        for other_at, other in enumerate(tensors[:at]):
            if one.first <= other.last and other.first <= one.last:
                start, other_start = places[at], places[other_at]
                apart = start + one.bytes <= other_start or other_start + other.bytes <= start
                assert apart, (one, other)


@given(lives)
def test_a_plan_needs_between_the_peak_and_the_sum(tensors: list[Life]) -> None:
    size = max((p + t.bytes for p, t in zip(plan(tensors), tensors, strict=True)), default=0)
    at = [sum(t.bytes for t in tensors if t.first <= step <= t.last) for step in range(20)]
    assert max(at) <= size <= sum(t.bytes for t in tensors)


def test_a_chain_takes_its_two_largest_neighbours() -> None:
    chain = [Life(str(n), size, n, n + 1) for n, size in enumerate((16, 64, 48, 32))]
    assert plan(chain) == [64, 0, 64, 0]


def test_too_many_to_plan_is_said() -> None:
    with pytest.raises(Unknown, match="too many tensors"):
        plan([Life("t", 16, 0, 3000)] * 3000)


def arena_of(path: Path) -> tuple[int, str]:
    planned = contents(read(path)).arena
    assert planned is not None
    return planned.bytes, planned.widest


def test_a_tflite_network(tmp_path: Path) -> None:
    """Input 64 B, convolution 256 B, depthwise 64 B: most while the first two live."""
    (tmp_path / "m").write_bytes(flatbuffer.pack(lite_model(lite_cnn())))
    assert arena_of(tmp_path / "m") == (64 + 256, "c")


def test_state_lives_all_the_time(tmp_path: Path) -> None:
    row = LiteTensor((1, 16))
    tensors = {"x": row, "s": row._replace(variable=True), "a": row, "y": row}
    ops = [LiteOp("ADD", ["x", "s"], ["a"]), LiteOp("ABS", ["a"], ["y"])]
    (tmp_path / "m").write_bytes(flatbuffer.pack(lite_model(LiteGraph(tensors, ops, ["x"], ["y"]))))
    assert arena_of(tmp_path / "m")[0] == 3 * 64


def test_float_tensors_inside_integer_operators_take_nothing(tmp_path: Path) -> None:
    """Float input 256 B, as int8 64 B, convolved int8 128 B, float output 512 B."""
    assert arena_of(save(tmp_path / "m.onnx", quantized())) == (128 + 512, "y")


def test_constants_and_what_follows_from_them_take_nothing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["wt"]),
        helper.make_node("MatMul", ["x", "wt"], ["y"]),
    ]
    weight = {"w": np.ones((100, 4), np.float32)}
    path = save(tmp_path / "m.onnx", onnx_model(nodes, {"x": (1, 4)}, ["y"], weight))
    assert arena_of(path)[0] == 16 + 400


def test_an_unread_optional_output_takes_nothing(tmp_path: Path) -> None:
    nodes = [helper.make_node("Dropout", ["x"], ["y", "mask"])]
    path = save(tmp_path / "m.onnx", onnx_model(nodes, {"x": (1, 4)}, ["y"]))
    assert arena_of(path)[0] == 32


def test_a_sub_graph_s_memory_is_part_of_it(tmp_path: Path) -> None:
    inner = [
        helper.make_node("Concat", ["v"] * 8, ["wide"], axis=0),
        helper.make_node("ReduceSum", ["wide"], ["w"], keepdims=0),
    ]
    body = helper.make_function("f", "F", ["v"], ["w"], inner, [helper.make_opsetid("", 20)])
    call = helper.make_node("F", ["x"], ["y"], domain="f")
    path = save(tmp_path / "m.onnx", onnx_model([call], {"x": (16,)}, ["y"], functions=[body]))
    assert arena_of(path)[0] >= 64 + 512
