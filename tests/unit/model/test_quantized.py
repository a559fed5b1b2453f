# SPDX-License-Identifier: Apache-2.0
"""Graphs with quantize and dequantize nodes are saved, read, run and captured again."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from edgeprune.model import Event, capture, load, parameters, read, recapture, save
from tests.unit.model.nets import captured, sample

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchao.quantization.pt2e import HistogramObserver, PerChannelMinMaxObserver
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import (
        QuantizationAnnotation,
        QuantizationSpec,
        Quantizer,
    )

ACTIVATION = QuantizationSpec(
    torch.int8, HistogramObserver, -128, 127, torch.per_tensor_affine, is_dynamic=False
)
WEIGHT = QuantizationSpec(
    torch.int8, PerChannelMinMaxObserver, -127, 127, torch.per_channel_symmetric, 0
)
ROOT = Path(__file__).parents[3]


class Convolutions(Quantizer):
    """int8 inputs and weights of every convolution and linear layer."""

    def annotate(self, model):
        for node in model.graph.nodes:
            if node.target in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
                inputs = {node.args[0]: ACTIVATION, node.args[1]: WEIGHT}
                node.meta["quantization_annotation"] = QuantizationAnnotation(inputs, ACTIVATION)
        return model

    def validate(self, model):
        pass


@pytest.fixture(scope="module")
def quantized():
    model = captured("digits_cnn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = prepare_pt2e(model.module(), Convolutions())
        with torch.no_grad():
            module(sample("digits_cnn", 16))
        module = convert_pt2e(module, fold_quantize=True)
    return recapture(model, module, Event("quantize"), "int8")


def test_it_holds_int8_weights_and_quantize_nodes(quantized):
    targets = [str(n.target) for n in quantized.program.graph.nodes]
    assert any("quantized_decomposed.quantize_per_tensor" in t for t in targets)
    assert any("quantized_decomposed.dequantize_per_channel" in t for t in targets)
    assert any(t.dtype is torch.int8 for t in quantized.program.state_dict.values())
    assert parameters(quantized) < parameters(captured("digits_cnn"))


def test_it_comes_back_bit_equal(quantized, tmp_path):
    save(quantized, tmp_path / "m.pt2")
    again = read(tmp_path / "m.pt2")
    assert again.numerics == "int8"
    assert again.fingerprint() == quantized.fingerprint()
    x = sample("digits_cnn", 5)
    with torch.no_grad():
        assert torch.equal(again.module()(x), quantized.module()(x))
    save(again, tmp_path / "n.pt2")
    assert (tmp_path / "m.pt2").read_bytes() == (tmp_path / "n.pt2").read_bytes()
    assert load(tmp_path / "m.pt2").model.fingerprint() == quantized.fingerprint()
    assert recapture(again, again.module(), Event("x")).fingerprint() == quantized.fingerprint()


def test_a_fresh_process_reads_it_without_the_class_and_without_torchao(quantized, tmp_path):
    save(quantized, tmp_path / "int8.pt2")
    save(captured("TinyBert"), tmp_path / "float.pt2")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/edgeprune").symlink_to(ROOT / "edgeprune")
    code = """
import sys
sys.modules["torchao"] = None
from pathlib import Path
import numpy as np
from edgeprune.model import read, runner
for name, array in (
    ("int8", np.zeros((3, 1, 8, 8), np.float32)), ("float", np.zeros((3, 16), np.int64))
):
    model = read(Path(f"{name}.pt2"))
    print(model.fingerprint(), runner(model)((array,))[0].shape)
assert not any(name.startswith("tests") for name in sys.modules)
"""
    env = os.environ | {"PYTHONPATH": str(tmp_path / "lib")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"{quantized.fingerprint()} (3, 10)",
        f"{captured('TinyBert').fingerprint()} (3, 4)",
    ]


def test_plain_torch_loads_it_with_the_import_that_the_readme_names(quantized, tmp_path):
    bring = "import torch.ao.quantization.fx._decomposed"
    assert f"`{bring}`" in (ROOT / "README.md").read_text()
    save(quantized, tmp_path / "int8.pt2")
    code = f"""
import sys
sys.modules["edgeprune"] = None
import torch
{bring}
print(tuple(torch.export.load("int8.pt2").module()(torch.zeros(3, 1, 8, 8)).shape))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "(3, 10)\n", done.stderr


def test_a_static_batch_survives_quantization(tmp_path):
    class Fixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return self.conv(x.reshape(2, 1, 8, 8))

    model, _ = capture(Fixed(), (torch.randn(2, 1, 8, 8),), event=Event("load"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = prepare_pt2e(model.module(), Convolutions())
        module(torch.randn(2, 1, 8, 8))
        module = convert_pt2e(module)
    again = recapture(model, module, Event("quantize"), "int8")
    assert again.inputs == model.inputs
    save(again, tmp_path / "m.pt2")
    assert read(tmp_path / "m.pt2").fingerprint() == again.fingerprint()
