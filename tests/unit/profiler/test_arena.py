# SPDX-License-Identifier: Apache-2.0
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.profiler.arena import mapped, measure_arena, span
from edgeprune.profiler.ops import summed
from tests.unit.profiler import models


def test_weights_and_activations_are_onnxruntimes_arena(tmp_path: Path) -> None:
    path = models.chain(tmp_path / "m.onnx", width=256, depth=6)
    found = measure_arena(path, 1, [np.ones((1, 256), "float32")])
    weights = 6 * 256 * 256 * 4
    assert weights < found["arena"]["bytes"] < weights * 1.01
    assert found["arena_reason"] is None


def test_activations_alone_are_litert_arena(tmp_path: Path) -> None:
    path = models.sums(tmp_path / "m.tflite", ["y", "z"])
    found = measure_arena(path, 1, [np.ones((1, 8), "float32")])
    tensors = 3 * 8 * 4  # x, y and z are needed at the same time
    assert tensors <= found["arena"]["bytes"] <= 3 * 64
    larger = measure_arena(path, 1, [np.ones((1000, 8), "float32")])
    assert larger["arena"]["bytes"] >= 1000 * tensors


def test_several_inputs_keep_to_the_signature(tmp_path: Path) -> None:
    path = models.two_inputs(tmp_path / "m.tflite")
    found = measure_arena(path, 1, [np.ones((1, 8), "float32"), np.ones((1, 1), "float32")])
    assert 2 * 32 <= found["arena"]["bytes"] <= 3 * 64


def test_what_only_runs_otherwise_has_no_arena(tmp_path: Path) -> None:
    path = models.reshaped(tmp_path / "m.tflite")
    found = measure_arena(path, 1, [np.ones((2, 8), "float32")])  # it can't be resized
    assert found["arena"] is None
    assert "without delegates" in found["arena_reason"]


@given(
    st.lists(st.integers(1, 5000), min_size=1, max_size=20),
    st.lists(st.integers(64, 1 << 20), min_size=0, max_size=3),
    st.randoms(),
)
def test_a_block_is_as_large_as_what_is_planned_into_it(
    sizes: list[int], gaps: list[int], order: random.Random
) -> None:
    """Each tensor begins where another ends, rounded up to 64 bytes; others lie elsewhere."""
    base = 1 << 30
    ends, tensors = [base], []
    for size in sizes:
        start = -(-order.choice(ends) // 64) * 64
        tensors.append((start, size))
        ends.append(start + size)
    wanted = max(ends) - base
    elsewhere = max(ends)
    for gap in gaps:
        elsewhere += gap
        tensors.append((elsewhere, 16))
        elsewhere += 16
    order.shuffle(tensors)
    assert span(tensors, base) == wanted


def test_no_tensor_no_block() -> None:
    assert span([], 4096) is None
    assert span([(4096, 100)], 8192) is None
    assert span([(4096, 100), (8192, 50)], 8200) == 50


@pytest.mark.parametrize("name", ["/a/m.tflite", "/a/with space.tflite"])
def test_where_a_file_is_mapped(name: str) -> None:
    maps = (
        "7f00-7f10 r--p 00000000 fe:00 12    " + name + "\n"
        "7f10-7f30 r--p 00001000 fe:00 12    " + name + ".other\n"
        "7f40-7f50 rw-p 00000000 00:00 0 \n"
    )
    assert mapped(maps, name) == [(0x7F00, 0x7F10)]


def event(name: str, start: int, seconds: float, node: int | None = None) -> dict:
    args = {} if node is None else {"op_name": name.split("_")[0], "node_index": str(node)}
    return {"name": name, "ts": start, "dur": seconds * 1e6, "args": args}


def test_the_first_runs_are_no_part_of_the_ops() -> None:
    runs = []
    for start, slow in ((100, 10.0), (200, 1.0), (300, 3.0)):
        runs += [
            event("Conv_0_kernel_time", start + 1, slow, 0),
            event("Conv_0_fence_after", start + 2, slow, 0),
            event("Relu_1_kernel_time", start + 5, slow / 2, 1),
            event("Conv_0_kernel_time", start + 7, slow, 2),  # another node of the same name
            event("model_run", start, 3 * slow),
        ]
    assert summed([event("session_initialization", 0, 9.0), *runs], 1, 2) == [
        {"name": "Conv_0", "type": "Conv", "seconds": 2.0, "calls": 2},
        {"name": "Relu_1", "type": "Relu", "seconds": 1.0, "calls": 2},
        {"name": "Conv_0", "type": "Conv", "seconds": 2.0, "calls": 2},
    ]
