# SPDX-License-Identifier: Apache-2.0
import pytest

from edgeprune.export.counts import op_counts
from edgeprune.export.onnx import write_onnx
from tests.unit.export.lite import bert, cnn

# int8, dynamic, float: three convolutions, an addition, a mean, a linear layer
LITE = {
    "fp32": (0, 0, 6),
    "int8": (6, 0, 0),
    "int8-dynamic": (0, 4, 2),
    "int8-weights": (0, 0, 6),
    "fp16": (0, 0, 6),
}


@pytest.mark.parametrize("numerics", LITE)
def test_tflite_operators_by_what_they_compute_in(lite, numerics):
    counts = op_counts(lite(numerics).path)
    assert (counts.int8, counts.dynamic, counts.floating) == LITE[numerics]
    assert counts.kinds["CONV_2D"] == 2
    kind = {"int8": "int8", "int8-dynamic": "dynamic"}.get(numerics, "float")
    assert [k for _, k in counts.products] == [kind] * 4
    assert len(counts.float_products()) == (4 if kind == "float" else 0)


def test_onnx_is_counted_as_the_runtime_runs_it(tmp_path):
    path = tmp_path / "m.onnx"
    write_onnx(cnn("int8"), path, opset=20, batch=1)
    counts = op_counts(path)
    assert counts.kinds["QLinearConv"] == 3  # in the file these are Conv between Q and DQ
    assert "Conv" not in counts.kinds
    assert counts.float_products() == ()
    # The mean, for which onnxruntime has no integer kernel.
    assert (counts.int8, counts.floating, counts.dynamic) == (5, 1, 0)


def test_onnx_float_and_dynamic(tmp_path):
    path = tmp_path / "m.onnx"
    write_onnx(cnn("fp32"), path, opset=20, batch=1)
    counts = op_counts(path)
    assert (counts.int8, counts.dynamic) == (0, 0)
    assert len(counts.float_products()) == 4
    write_onnx(bert("int8-dynamic"), path, opset=20, batch=1)
    counts = op_counts(path)
    kinds = [kind for _, kind in counts.products]
    assert (kinds.count("dynamic"), counts.int8) == (9, 0)
    assert kinds.count("float") == 4  # attention's own products have no weights
