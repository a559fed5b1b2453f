# SPDX-License-Identifier: Apache-2.0
"""Integer and float operators: as the runtimes have them, by the definition of the export."""

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from edgeprune.artifact import contents, read
from edgeprune.export.counts import op_counts
from edgeprune.export.onnx import write_onnx
from edgeprune.recipe import Numerics
from tests.model_files import onnx_model, quantized, save
from tests.unit.export.lite import bert, cnn, written


@pytest.mark.parametrize("numerics", ["fp32", "fp16", "int8", "int8-dynamic", "int8-weights"])
def test_tflite_files_count_as_the_export_counts_them(tmp_path: Path, numerics: Numerics) -> None:
    path = written(tmp_path, cnn(numerics)).path
    mine, theirs = contents(read(path)).counts, op_counts(path)
    assert (mine.int8, mine.dynamic, mine.floating) == (
        theirs.int8,
        theirs.dynamic,
        theirs.floating,
    )
    assert dict(mine.kinds) == theirs.kinds
    assert mine.float_products == theirs.float_products()


def test_an_integer_onnx_file_counts_as_onnxruntime_runs_it(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", quantized())
    mine, theirs = contents(read(path)).counts, op_counts(path)
    assert (mine.int8, mine.floating) == (theirs.int8, theirs.floating) == (1, 0)
    assert mine.float_products == theirs.float_products() == ()


def test_an_activation_that_the_integers_do_not_clip_stays_float(tmp_path: Path) -> None:
    """Zero isn't the lowest integer, so the ReLU is computed, and the convolution in float too."""
    model = quantized()
    low = next(tensor for tensor in model.graph.initializer if tensor.name == "low")
    low.raw_data = b"\x00"
    path = save(tmp_path / "m.onnx", model)
    mine, theirs = contents(read(path)).counts, op_counts(path)
    assert (mine.int8, mine.floating) == (0, 2)
    assert mine.float_products == theirs.float_products() == ("conv",)


@pytest.mark.parametrize("numerics", ["fp32", "int8"])
def test_onnx_files_of_the_export(tmp_path: Path, numerics: Numerics) -> None:
    path = tmp_path / "m.onnx"
    write_onnx(cnn(numerics), path, opset=20, batch=1)
    mine, theirs = contents(read(path)).counts, op_counts(path)
    assert (
        len(mine.float_products) == len(theirs.float_products()) == (4 if numerics == "fp32" else 0)
    )
    if numerics == "int8":
        assert (mine.int8, mine.floating) == (theirs.int8, theirs.floating) == (5, 1)


def test_onnx_files_of_the_export_with_dynamic_attention(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write_onnx(bert("int8-dynamic"), path, opset=20, batch=1)
    mine, theirs = contents(read(path)).counts, op_counts(path)
    assert mine.dynamic == theirs.dynamic == 9
    assert len(mine.float_products) == len(theirs.float_products()) == 4


def test_dynamic_quantization(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=1),
        helper.make_node("Mul", ["f", "s"], ["y"]),
    ]
    weight = {"w": np.ones((4, 3), np.int8)}
    path = save(tmp_path / "m.onnx", onnx_model(nodes, {"x": (2, 4)}, ["y"], weight))
    counts = contents(read(path)).counts
    assert (counts.int8, counts.dynamic, counts.floating) == (0, 1, 1)


def test_weights_stored_in_eight_bits_are_computed_with_as_float(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["wd"]),
        helper.make_node("MatMul", ["x", "wd"], ["y"]),
    ]
    constants = {"w": np.ones((4, 3), np.int8), "s": np.array(0.1, np.float32)}
    path = save(tmp_path / "m.onnx", onnx_model(nodes, {"x": (2, 4)}, ["y"], constants))
    counts = contents(read(path)).counts
    assert (counts.int8, counts.floating, counts.parameters) == (0, 1, 12)
    assert counts.layers[0].bytes == 12 + 4


def test_shape_arithmetic_is_neither(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Add", ["s", "one"], ["t"]),
        helper.make_node("Expand", ["x", "t"], ["y"]),
    ]
    constants = {"one": np.array([0, 0])}
    path = save(tmp_path / "m.onnx", onnx_model(nodes, {"x": (1, 4)}, ["y"], constants))
    counts = contents(read(path)).counts
    assert (counts.int8, counts.dynamic, counts.floating) == (0, 0, 0)
