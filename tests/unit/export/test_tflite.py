# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.errors import CheckFailed, InputError
from edgeprune.export import flatbuffer
from edgeprune.export.check import check, expect
from edgeprune.export.feed import evaluation_batches, random_batches
from edgeprune.export.tflite import check_biases, write_tflite
from edgeprune.model import Event, capture
from edgeprune.profiler.runtime import open_session
from tests.unit.export.lite import bert, cnn, digits, written

# Signal to noise (dB) below which something other than rounding went on; measured: 138, 44, 54,
# 138, 88 and up.
FLOORS = {"fp32": 110, "int8": 30, "int8-dynamic": 40, "int8-weights": 110, "fp16": 70}


@pytest.mark.parametrize("numerics", FLOORS)
def test_the_file_computes_what_the_model_does(lite, numerics):
    made = lite(numerics)
    expected = expect(made.model, evaluation_batches(digits(), 32), "evaluation data")
    figures, _ = check(made.path, made.model, expected, name="model.tflite")
    assert figures.sqnr_db is None or figures.sqnr_db > FLOORS[numerics]
    assert figures.samples == 32
    assert figures.top1_agreement > 0.95


def test_images_are_nhwc_and_named_in_the_signature(lite):
    session = open_session(lite("fp32").path)
    (entry,), (result,) = session.inputs, session.outputs
    assert (entry.name, entry.shape) == (lite("fp32").model.inputs[0].name, (1, 8, 8, 1))
    assert (result.name, result.shape) == ("output", (1, 10))
    model = flatbuffer.load(lite("fp32").path.read_bytes(), "m")
    assert [s.signatureKey for s in model.signatureDefs] == [b"serving_default"]


@pytest.mark.parametrize("numerics", ["int8-dynamic", "int8-weights"])
def test_stored_weights_are_those_of_the_model(lite, numerics):
    made = lite(numerics)
    assert made.notes == ()
    state = made.model.program.state_dict
    held = [t.detach().numpy() for t in state.values() if t.ndim in (2, 4)]
    graph = flatbuffer.read(made.path)
    stored = {
        t.name: t for op in graph.ops for t in op.inputs if t is not None and t.dtype == "int8"
    }
    assert len(stored) == len(held) == 4
    for tensor in stored.values():
        values = tensor.values()
        if "depthwise" in tensor.name:
            values = values.transpose(3, 0, 1, 2)
        elif values.ndim == 4:
            values = values.transpose(0, 3, 1, 2)
        same = [w for w in held if w.shape == values.shape and np.allclose(w, values, atol=1e-6)]
        assert len(same) == 1, tensor.name


def test_token_models_take_32_bit_indices(tmp_path):
    made = written(tmp_path, bert("int8-dynamic"))
    (entry,) = open_session(made.path).inputs
    assert (entry.shape, entry.dtype) == ((1, 16), "int32")
    batches = random_batches(made.model, 8, seed=0)
    assert batches[0][0].max() > 50  # the whole table is looked up in, not its first rows
    figures, counts = check(made.path, made.model, expect(made.model, batches, "random"), name="m")
    assert figures.sqnr_db > 30
    assert counts.dynamic == 9


def test_one_scale_a_tensor_for_the_oldest_runtime(tmp_path):
    made = written(tmp_path, cnn("int8-dynamic"), per_channel=False)
    linear = next(o for o in flatbuffer.read(made.path).ops if o.kind == "FULLY_CONNECTED")
    assert len(linear.inputs[1].scale) == 1
    assert linear.version <= 10
    assert "not on the grid: 1, fully_connected_" in made.notes[0]


class Several(nn.Module):
    """Two inputs in an order that is not the alphabet's, an image out, an index out."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(5, 4)

    def forward(self, picture, features):
        image = self.convolution(picture)
        scores = image.mean((2, 3)) * self.linear(features)
        return image, scores, scores.argmax(1)


def test_several_inputs_and_outputs_keep_their_order(tmp_path):
    torch.manual_seed(0)
    example = (torch.randn(2, 3, 8, 8), torch.randn(2, 5))
    model, _ = capture(Several().eval(), example, event=Event("load"))
    path = tmp_path / "m.tflite"
    write_tflite(model, path, batch=3)
    session = open_session(path)
    assert [s.name for s in session.inputs] == ["picture", "features"]
    assert [s.shape for s in session.inputs] == [(3, 8, 8, 3), (3, 5)]
    assert [s.shape for s in session.outputs] == [(3, 4, 6, 6), (3, 4), (3,)]
    expected = expect(model, random_batches(model, 7, 0), "random")
    figures, _ = check(path, model, expected, name="m")
    assert figures.sqnr_db > 100


class Refused(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)


def test_a_refused_operator_is_named_and_nothing_is_left(tmp_path):
    model, _ = capture(Refused(), (torch.randn(2, 4, 4),), event=Event("load"))
    with pytest.raises(InputError, match=r"aten\._linalg_svd\.default is refused.*onnx") as caught:
        write_tflite(model, tmp_path / "m.tflite", batch=1)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_bias_on_another_scale_is_found(lite):
    graph = flatbuffer.read(lite("int8").path)
    check_biases(graph, "m")
    place = max(i for i, op in enumerate(graph.ops) if op.kind == "FULLY_CONNECTED")
    op = graph.ops[place]
    source, weight, bias = op.inputs
    wrong = replace(op, inputs=(source, weight, replace(bias, scale=bias.scale * 2.3)))
    ops = (*graph.ops[:place], wrong, *graph.ops[place + 1 :])
    with pytest.raises(CheckFailed, match=r"fully_connected_\d+.bias a scale 2.3 times"):
        check_biases(replace(graph, ops=ops), "m")


SCRIPT = """
import sys
from pathlib import Path
from tests.unit.export.lite import cnn, digits, target
from edgeprune.context import Context
from edgeprune.export import export
from edgeprune.recipe import ExportOptions
for numerics in ("int8", "int8-dynamic"):
    folder = Path(sys.argv[1]) / numerics
    folder.mkdir()
    export(cnn(numerics), ExportOptions(samples=4), Context(target(), folder, digits()))
"""


def test_another_process_writes_the_same_bytes_and_is_silent(lite, tmp_path):
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
    for numerics in ("int8", "int8-dynamic"):
        content = (tmp_path / numerics / "model.tflite").read_bytes()
        assert content == lite(numerics).path.read_bytes()
        names = [t.name for t in flatbuffer.load(content, "m").subgraphs[0].tensors]
        assert not any(word in name for name in names for word in (b"/", b".py", b"edgeprune"))
        assert str(root).encode() not in content


class OneHead(nn.Module):
    """Attention in which all query heads share one head of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(32, 16), nn.Linear(32, 8), nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q = self.q(x).view(b, n, 2, 8).transpose(1, 2)
        k, v = (
            layer(x).view(b, n, 1, 8).transpose(1, 2)[:, :, None]
            .expand(-1, 1, 2, n, 8).reshape(b, 2, n, 8)
            for layer in (self.k, self.v)
        )  # fmt: skip
        return nn.functional.scaled_dot_product_attention(q, k, v)


def test_one_head_that_serves_all_queries_is_repeated_rightly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, _ = capture(OneHead().eval(), (torch.randn(2, 12, 32),), event=Event("capture"))
    path = tmp_path / "one.tflite"
    write_tflite(model, path, batch=1)
    expected = expect(model, random_batches(model, 4, seed=2), "random")
    figures, _ = check(path, model, expected, name="one.tflite")
    assert figures.sqnr_db is None or figures.sqnr_db > 110
