# SPDX-License-Identifier: Apache-2.0
"""What is recorded of an artifact for the health check on a device."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeprune.context import Context
from edgeprune.deploy.health import Health, read_batch
from edgeprune.export import export
from edgeprune.health import output_steps, record
from edgeprune.model import Model
from edgeprune.profiler.runtime import open_session
from edgeprune.recipe import ExportOptions, Numerics
from edgeprune.report.schema import Artifact
from edgeprune.target import find_target
from tests.unit.export import lite

SCALE = 0.25


def exported(model: Model, folder: Path) -> tuple[tuple[Artifact, ...], dict[str, Path]]:
    _, report = export(model, ExportOptions(), Context(find_target("rpi4"), folder))
    return report.artifacts, {a.file: folder / a.file for a in report.artifacts}


def recorded(numerics: Numerics, folder: Path, seed: int = 0) -> tuple[Health, dict[str, Path]]:
    model = lite.cnn(numerics)
    artifacts, files = exported(model, folder)
    path = folder / "health.npz"
    return record(artifacts, files, model, path, data=None, seed=seed), files


@pytest.mark.parametrize("numerics", ["fp32", "int8"])
def test_each_artifact_gives_what_was_recorded_of_it(tmp_path: Path, numerics: Numerics) -> None:
    health, files = recorded(numerics, tmp_path)
    assert set(health.artifacts) == set(files) == {"model.onnx", "model.tflite"}
    for name, expected in health.artifacts.items():
        batch = read_batch(tmp_path / health.file, name, expected)
        session = open_session(files[name])
        assert [spec.name for spec in session.inputs] == list(expected.inputs)
        assert [spec.name for spec in session.outputs] == [o.name for o in expected.outputs]
        for again, before in zip(session.run(list(batch.inputs)), batch.outputs, strict=True):
            assert np.array_equal(again, before)
        assert len(batch.inputs[0]) == 1


def test_floats_may_differ_by_a_hundred_thousandth_of_their_range(tmp_path: Path) -> None:
    health, _ = recorded("fp32", tmp_path)
    for name, expected in health.artifacts.items():
        (output,) = expected.outputs
        (values,) = read_batch(tmp_path / health.file, name, expected).outputs
        least = 1e-5 * max(np.ptp(values), np.abs(values).max())
        assert output.tolerance == pytest.approx(least, rel=1e-6)
        assert "another order" in output.why


def test_int8_may_differ_by_whole_steps_of_its_own_scale(tmp_path: Path) -> None:
    health, files = recorded("int8", tmp_path)
    for name, expected in health.artifacts.items():
        (output,) = expected.outputs
        step = output_steps(files[name])[output.name]
        (values,) = read_batch(tmp_path / health.file, name, expected).outputs
        steps = values / step
        assert np.allclose(steps, np.round(steps), atol=1e-3), name  # so it is the output's scale
        assert output.tolerance is not None
        count = output.tolerance / step
        assert 1 <= count < 10
        assert count == pytest.approx(round(count), rel=2e-3)
        assert "int8 step" in output.why


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(folders, (3, 3, 4), strict=True):
        folder.mkdir()
        recorded("fp32", folder, seed)
    a, b, c = ((folder / "health.npz").read_bytes() for folder in folders)
    assert a == b != c


def quantized_end(path: Path, tail: str) -> Path:
    """``x`` through quantize and dequantize with ``SCALE``, and what ``tail`` says after it."""
    scale = numpy_helper.from_array(np.array(SCALE, "float32"), "scale")
    zero = numpy_helper.from_array(np.array(0, "uint8"), "zero")
    shape = numpy_helper.from_array(np.array([1, 2, 2]), "shape")
    nodes: list[Any] = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["f"]),
    ]
    if tail == "Reshape":
        nodes.append(helper.make_node("Reshape", ["f", "shape"], ["y"]))
    elif tail == "Softmax":
        nodes.append(helper.make_node("Softmax", ["f"], ["y"]))
    end = {"none": "f", "integer": "q"}.get(tail, "y")
    kind = TensorProto.UINT8 if tail == "integer" else TensorProto.FLOAT
    sizes = [1, 2, 2] if tail == "Reshape" else [1, 4]
    graph = helper.make_graph(
        nodes,
        "end",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info(end, kind, sizes)],
        [scale, zero, shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("tail", "steps"),
    [
        ("none", {"f": SCALE}),
        ("Reshape", {"y": SCALE}),
        ("integer", {"q": 1.0}),
        ("Softmax", {}),
    ],
)
def test_the_step_of_an_output_is_that_of_its_last_dequantizer(
    tmp_path: Path, tail: str, steps: dict[str, float]
) -> None:
    assert output_steps(quantized_end(tmp_path / "m.onnx", tail)) == steps
