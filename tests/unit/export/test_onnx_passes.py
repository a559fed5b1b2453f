# SPDX-License-Identifier: Apache-2.0
"""The passes on models of a few nodes, written as ONNX text."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, numpy_helper, parser

from edgeprune.errors import EdgepruneError
from edgeprune.export.onnx_passes import (
    activations_to_uint8,
    clean,
    fold_pads,
    integer_bias,
    pad_integers,
    sort_nodes,
)
from edgeprune.export.onnx_tidy import finish
from edgeprune.export.onnx_weights import int8_tables, int8_weights

_CONV = """<ir_version: 9, opset_import: ["" : 20]>
model (float[1, 2, 6, 6] x) => (float[1, 3, n, m] y)
<float sx = {0.02}, int8 zx = {-10}, float sy = {0.05}, int8 zy = {3}, int64[8] pads = {PADS},
 float[3] sw = {0.01, 0.02, 0.03}, int8[3] zw = {0, 0, 0}, float[3] b = {0.5, -0.25, 0.125},
 int8[3, 2, 3, 3] w = {WEIGHTS}>
{
  q = QuantizeLinear(x, sx, zx)
  d = DequantizeLinear(q, sx, zx)
  p = Pad(d, pads)
  pq = QuantizeLinear(p, sx, zx)
  pd = DequantizeLinear(pq, sx, zx)
  wd = DequantizeLinear<axis = 0>(w, sw, zw)
  c = Conv<pads = [1, 0, 0, 0]>(pd, wd, b)
  cq = QuantizeLinear(c, sy, zy)
  y = DequantizeLinear(cq, sy, zy)
}"""


def quantized(pads: str) -> ModelProto:
    weights = np.random.default_rng(0).integers(-127, 128, 54)
    text = _CONV.replace("PADS", pads).replace("WEIGHTS", ", ".join(map(str, weights)))
    return parser.parse_model(text)


def result(model: ModelProto, **inputs: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, inputs)[0]


def image() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1, 2, 6, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("pads", "left"), [("0, 0, 1, 0, 0, 0, 2, 1", 0), ("0, 0, -1, 0, 0, 0, 2, 1", 1)]
)
def test_the_quantized_form_is_rewritten_exactly(pads: str, left: int) -> None:
    model, x = quantized(pads), image()
    wanted = result(model, x=x)
    for one_pass in (activations_to_uint8, pad_integers, fold_pads):
        one_pass(model)
        onnx.checker.check_model(model, full_check=True)
        assert np.array_equal(result(model, x=x), wanted), one_pass.__name__
    assert [n.op_type for n in model.graph.node].count("Pad") == left
    integer_bias(model)
    onnx.checker.check_model(model, full_check=True)
    assert np.abs(result(model, x=x) - wanted).max() <= 0.05 * 1.001  # a step, where it rounds
    assert len([n for n in model.graph.node if n.op_type == "DequantizeLinear"]) == 4


def test_a_pad_with_another_value_stays_float() -> None:
    model = quantized("0, 0, 1, 0, 0, 0, 2, 1")
    pad = next(n for n in model.graph.node if n.op_type == "Pad")
    pad.input.append("one")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1), "one"))
    wanted = result(model, x=image())
    pad_integers(model)
    fold_pads(model)
    assert pad.input[0] == "d"
    assert np.array_equal(result(model, x=image()), wanted)


_BRANCH = """<ir_version: 9, opset_import: ["" : 20]>
model (float[2] x, bool yes) => (float[2] y)
<float[2] one = {1.0, 1.0}, float[2] same = {1.0, 1.0}, float[2] idle = {2.0, 2.0}>
{
  y = If(yes)<
    then_branch = then () => (float[2] t) { t = Add(late, same) },
    else_branch = other () => (float[2] e) { e = Add(x, one) }
  >
  late = Mul(x, one)
}"""


def test_what_branches_read_is_kept_sorted_and_shared() -> None:
    model = parser.parse_model(_BRANCH)
    sort_nodes(model)
    assert [n.op_type for n in model.graph.node] == ["Mul", "If"]
    clean(model)
    assert {t.name for t in model.graph.initializer} == {"one", "same"}
    finish(model, 20)
    assert [t.name for t in model.graph.initializer] == ["one"]
    x = np.array([3.0, 4.0], np.float32)
    assert result(model, x=x, yes=np.array(True)).tolist() == [4.0, 5.0]


_LOOKUP = """<ir_version: 9, opset_import: ["" : 20]>
model (int64[n] ids) => (float[n, 4] y, float[4, 4] z)
<float[5, 4] table = {TABLE}>
{
  rows = Gather(table, ids)
  y = MatMul(rows, w)
  t = Transpose(table2)
  z = MatMul(t, table2)
}"""


def test_tables_and_shared_weights_are_stored_once() -> None:
    text = _LOOKUP.replace("TABLE", ", ".join(f"{v:.3f}" for v in np.linspace(-1, 2, 20)))
    model = parser.parse_model(text)
    for name, shape in (("w", (4, 4)), ("table2", (4, 4))):
        array = np.random.default_rng(2).normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    ids = np.array([4, 0, 2])
    wanted = result(model, ids=ids)
    int8_tables(model)
    int8_weights(model, frozenset({"MatMul"}))
    onnx.checker.check_model(model, full_check=True)
    kinds = {t.name: numpy_helper.to_array(t).dtype for t in model.graph.initializer}
    assert kinds["table_rows"] == kinds["w_int8"] == kinds["table2_int8"] == np.int8
    assert np.abs(result(model, ids=ids) - wanted).max() < 0.06
    assert "table" not in kinds


def test_a_model_that_is_not_valid_is_refused() -> None:
    model = parser.parse_model(_BRANCH)
    with pytest.raises(EdgepruneError, match="not valid"):
        finish(model, 20)
    with pytest.raises(EdgepruneError, match="opset 21"):
        finish(model, 21)
