# SPDX-License-Identifier: Apache-2.0
"""Both files keep the model's names, axes and types, and give its values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeprune.export.feed import artifact_runner, random_batches
from edgeprune.export.onnx import write_onnx
from edgeprune.export.tflite import write_tflite
from edgeprune.model import Event, Model, capture, runner
from edgeprune.profiler.runtime import open_session


class Everything(nn.Module):
    """Bytes, a state with its batch along axis 1, a matrix and a scalar for all samples; outputs
    called like an inner value, a weight and an input, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, state: Tensor, matrix: Tensor, scale: Tensor) -> dict[str, object]:
        y = torch.relu(self.head((x.to(torch.float32) / 255) @ matrix) * scale)
        z = y + state.mean(0)
        return {
            "relu": z,
            "head.weight": z * 2,
            "nested": {"same as relu": z},
            "x": x.to(torch.float32) * 2,
            "state": state + z,
        }


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    example = (
        torch.zeros(2, 4, dtype=torch.uint8),
        torch.rand(2, 2, 3),
        torch.rand(4, 4),
        torch.tensor(2.0),
    )
    return capture(Everything().eval(), example, event=Event("load"), axes=(0, 1, None, None))[0]


NAMES = ["relu", "output_head.weight", "nested_same_as_relu", "output_x", "output_state"]


@pytest.mark.parametrize("form", ["onnx", "dynamic.onnx", "tflite"])
def test_a_file_has_the_models_names_axes_types_and_values(form, model, tmp_path: Path):
    path = tmp_path / f"m.{form}"
    if form == "tflite":
        write_tflite(model, path, batch=1)
    else:
        write_onnx(model, path, opset=18, batch=1 if form == "onnx" else "dynamic")
    session = open_session(path, 1)
    assert [o.name for o in model.outputs] == NAMES
    assert sorted(s.name for s in session.outputs) == sorted(NAMES)
    kinds = {spec.name: (spec.shape, spec.dtype) for spec in session.inputs}
    batch = kinds["x"][0][0]
    assert isinstance(batch, str) if form == "dynamic.onnx" else batch == 1
    assert kinds == {
        "x": ((batch, 4), "uint8"),
        "state": ((2, batch, 3), "float32"),
        "matrix": ((4, 4), "float32"),
        "scale": ((), "float32"),
    }
    (arrays,) = random_batches(model, 3, seed=0)
    got = artifact_runner(path, model)(arrays)
    wanted = runner(model)(arrays)
    for spec, a, b in zip(model.outputs, got, wanted, strict=True):
        assert len(a) == 3
        np.testing.assert_allclose(a, b, atol=1e-5, err_msg=spec.name)
