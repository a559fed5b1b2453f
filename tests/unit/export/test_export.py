# SPDX-License-Identifier: Apache-2.0
import hashlib
import importlib

import pytest
import torch
from torch import nn

from edgeprune.context import Context
from edgeprune.errors import CheckFailed, ConfigError
from edgeprune.export import export
from edgeprune.model import Event, capture, recapture
from edgeprune.progress import Silent
from edgeprune.recipe import ExportOptions
from tests.unit.export.lite import cnn, digits, target

OPTIONS = ExportOptions(samples=16)


class Told(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def write_instead(monkeypatch, model):
    """Let the stage write another network's file."""
    room = importlib.import_module("edgeprune.export.export")
    real = room.write_tflite
    monkeypatch.setattr(room, "write_tflite", lambda _, path, **kw: real(model, path, **kw))


@pytest.mark.parametrize("numerics", ["int8", "int8-dynamic"])
def test_both_artifacts_with_their_facts(tmp_path, numerics):
    told = Told()
    context = Context(target=target(), folder=tmp_path, data=digits(), progress=told)
    model, report = export(cnn(numerics), OPTIONS, context)
    assert model is cnn(numerics)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.tflite"]
    for artifact, layout in zip(report.artifacts, ("NCHW", "NHWC"), strict=True):
        content = (tmp_path / artifact.file).read_bytes()
        assert artifact.sha256 == hashlib.sha256(content).hexdigest()
        assert (artifact.bytes, artifact.numerics) == (len(content), numerics)
        assert artifact.inputs[0].layout == layout
        assert artifact.outputs[0].shape == (1, 10)
        assert (artifact.check.samples, artifact.check.inputs) == (16, "evaluation data")
        assert any(artifact.file in line for line in told.lines)
    lite = report.artifacts[1]
    assert lite.check.int8_ops == (6 if numerics == "int8" else 0)
    assert f"input {lite.inputs[0].name} is NHWC; the model's own is NCHW" in lite.notes
    refusals = [note for note in lite.notes if "refuses FULLY_CONNECTED version 12" in note]
    assert len(refusals) == (numerics == "int8-dynamic")
    assert report.details["model.tflite"]["dynamic"] == (4 if numerics == "int8-dynamic" else 0)


def test_an_artifact_that_does_something_else_leaves_nothing(tmp_path, monkeypatch):
    context = Context(target=target(), folder=tmp_path, data=digits())
    options = ExportOptions(samples=16, formats=("tflite",))
    write_instead(monkeypatch, cnn("fp32", seed=1))
    with pytest.raises(CheckFailed, match=r"^model.tflite: .* dB"):
        export(cnn(), options, context)
    assert list(tmp_path.iterdir()) == []


def test_a_file_far_worse_than_the_other_leaves_with_the_reason(tmp_path, monkeypatch):
    room = importlib.import_module("edgeprune.export.export")
    real = room.check

    def spoilt(path, model, expected, *, name, threads):
        figures, counts = real(path, model, expected, name=name, threads=threads)
        if name == "model.tflite":
            worse = [c.model_copy(update={"sqnr_db": 20.0}) for c in figures.closeness]
            figures = figures.model_copy(update={"closeness": tuple(worse)})
        return figures, counts

    monkeypatch.setattr(room, "check", spoilt)
    context = Context(target=target(), folder=tmp_path, data=digits(), dense=cnn())
    _, report = export(cnn("int8-weights"), OPTIONS, context, reference=cnn())
    (missing,) = report.missing
    assert missing.reason.startswith("model.tflite, output 'output': 20.0 dB where model.onnx, of")
    assert [artifact.file for artifact in report.artifacts] == ["model.onnx"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


class Detector(nn.Module):
    """Boxes in pixels beside scores, in one output."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.boxes, self.scores = (
            nn.Conv2d(1, 8, 3, 2, 1),
            nn.Conv2d(8, 4, 1),
            nn.Conv2d(8, 3, 1),
        )

    def forward(self, x):
        y = self.body(x).relu()
        boxes, scores = self.boxes(y).sigmoid() * 640, self.scores(y).sigmoid()
        return torch.cat([boxes.flatten(2), scores.flatten(2)], 1)


def test_a_quantization_that_loses_a_small_part_is_told_though_the_file_equals_its_graph(tmp_path):
    dense, _ = capture(Detector().eval(), tuple(digits().example()), event=Event("load"))
    module = dense.module()
    (joined,) = (n for n in module.graph.nodes if n.target is torch.ops.aten.cat.default)
    with module.graph.inserting_after(joined):  # one scale for both
        step = 640 / 255
        coarse = module.graph.call_function(torch.ops.aten.div.Tensor, (joined, step))
    with module.graph.inserting_after(coarse):
        whole = module.graph.call_function(torch.ops.aten.round.default, (coarse,))
    with module.graph.inserting_after(whole):
        back = module.graph.call_function(torch.ops.aten.mul.Tensor, (whole, step))
    joined.replace_all_uses_with(back, delete_user_cb=lambda user: user is not coarse)
    module.recompile()
    rounded = recapture(dense, module, Event("quantize"), "int8-weights")
    context = Context(target=target(), folder=tmp_path, data=digits(), dense=dense)
    options = ExportOptions(samples=16, formats=("onnx",))
    words = r"^model.onnx, 4 to 6 of axis 1: 0.0 dB .* the float model .* quantization lost it"
    with pytest.raises(CheckFailed, match=words):
        export(rounded, options, context, reference=dense)
    _, report = export(rounded, options, context)  # the artifact equals its graph
    (artifact,) = report.artifacts
    assert artifact.check.least_db("model") is None or artifact.check.least_db("model") > 35
    assert artifact.check.least_db("dense") == pytest.approx(0.0, abs=0.1)
    assert any("held against its own model only" in note for note in artifact.notes)


def test_without_data_the_inputs_are_made_up_and_said_to_be(tmp_path):
    context = Context(target=target("tflite-runtime"), folder=tmp_path)
    options = ExportOptions(samples=8, formats=("tflite",))
    _, report = export(cnn("int8-dynamic"), options, context)
    (artifact,) = report.artifacts
    assert (artifact.check.inputs, artifact.check.samples) == ("random", 8)
    # This target's runtime gets a file that it can run.
    assert not any("refuses" in note for note in artifact.notes)
    assert any("one scale a tensor" in note for note in artifact.notes)


class FixedBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        return self.linear(x.reshape(2, 64))


def test_a_batch_that_the_model_fixes_stays_and_is_told(tmp_path):
    model, _ = capture(FixedBatch(), (torch.randn(2, 1, 8, 8),), event=Event("load"))
    options = ExportOptions(samples=5, formats=("tflite",))
    _, report = export(model, options, Context(target=target(), folder=tmp_path, data=digits()))
    (artifact,) = report.artifacts
    assert (artifact.inputs[0].shape, artifact.check.samples) == ((2, 8, 8, 1), 5)
    assert "takes batches of 2, which its model fixes, not of 1" in artifact.notes


def test_a_format_without_a_runtime_is_refused(tmp_path):
    onnx_only = target().model_copy(update={"tflite": None})
    options = ExportOptions(formats=("tflite",))
    with pytest.raises(ConfigError, match="no runtime for tflite"):
        export(cnn(), options, Context(target=onnx_only, folder=tmp_path))
    assert list(tmp_path.iterdir()) == []
