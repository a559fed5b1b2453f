# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Lite Micro itself: its environment, arenas, operators, outputs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeprune.device.tflm import Environment, examine, find, set_up
from edgeprune.device.tflm.reference import reference_outputs
from edgeprune.errors import DeviceError, EdgepruneError, InputError
from edgeprune.export.c_array import write_c_array
from edgeprune.measure.result import Conditions
from edgeprune.measure.simulator import compare, measure_tflm
from edgeprune.model import Event, Model, capture, recapture
from edgeprune.profiler.runtime import open_session
from edgeprune.progress import Silent
from edgeprune.quantize.static import quantize_static
from tests.e2e.support import environment as process_environment
from tests.networks import TinyMobileNet, resnet20
from tests.unit.export.lite import cnn, written

Files = Callable[[str], Path]
ALONE = """
import sys
from tflite_micro.python.tflite_micro import runtime
interpreter = runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2]))
shape = interpreter.get_input_details(0)
import numpy
interpreter.set_input(numpy.zeros(shape["shape"], shape["dtype"]), 0)
interpreter.invoke()
"""
"""Loads and runs a file in an arena, without any code of ours."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tflm") / "environment"
    try:
        set_up(place, Silent())
    except EdgepruneError as error:
        pytest.skip(f"{error}; `pip install --pre tflite-micro` has to work")
    return place


@pytest.fixture(scope="module")
def environment(folder: Path) -> Environment:
    found = find(folder)
    assert found is not None
    return found


def int8(network: nn.Module, shape: tuple[int, ...]) -> Model:
    model, _ = capture(network.eval(), (torch.zeros(2, *shape),), event=Event("test"))
    batches = ((torch.randn(16, *shape),) for _ in range(2))
    with Silent().bar("", 1) as bar:
        module = quantize_static(model, batches, float_adds=False, bar=bar).module
    return recapture(model, module, Event("test"), "int8")


class TwoInputs(nn.Module):
    """Inputs that only their names tell apart, in an order that isn't alphabetical."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 8)
        self.two = nn.Linear(6, 8)

    def forward(
        self, zebra: torch.Tensor, apple: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.one(zebra) - 3 * self.two(apple), torch.relu(self.two(apple))


def make(name: str) -> Model:
    torch.manual_seed(0)
    if name == "mobilenet-int8":
        return int8(TinyMobileNet(), (3, 32, 32))
    if name == "convolutions-int8":
        return int8(TinyMobileNet().features, (3, 32, 32))
    if name == "resnet20-int8":
        return int8(resnet20(), (3, 32, 32))
    if name == "two-inputs":
        example = (torch.zeros(2, 6), torch.zeros(2, 6))
        return capture(TwoInputs().eval(), example, event=Event("test"))[0]
    if name == "gelu":
        layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.GELU(approximate="tanh"))
        return capture(layers.eval(), (torch.zeros(2, 1, 8, 8),), event=Event("test"))[0]
    return cnn(name.removeprefix("digits-"))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    @cache
    def file(name: str) -> Path:
        return written(tmp_path_factory.mktemp(name), make(name)).path

    return file


INT8 = ["digits-int8", "mobilenet-int8", "resnet20-int8"]


def loads(environment: Environment, path: Path, size: int) -> bool:
    command = [str(environment.python), "-I", "-c", ALONE, str(path), str(size)]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("name", [*INT8, "digits-fp32"])
def test_the_arena_works_and_two_percent_less_fails(
    environment: Environment, folder: Path, files: Files, name: str
) -> None:
    profile = measure_tflm({"model.tflite": files(name)}, Conditions(), folder=folder)
    figures = profile.figures["model.tflite"]
    arena = int(figures["arena"].value)
    assert loads(environment, files(name), arena)
    assert not loads(environment, files(name), int(0.98 * arena))
    assert not loads(environment, files(name), arena - 16)
    assert figures["bytes"].value == files(name).stat().st_size
    assert figures["arena"].low is not None and figures["arena"].high == arena
    assert 0 < figures["arena"].low < arena
    again = measure_tflm({"model.tflite": files(name)}, Conditions(seed=9), folder=folder)
    assert again.figures["model.tflite"]["arena"].value == arena


@pytest.mark.parametrize("name", [*INT8, "convolutions-int8"])
def test_int8_outputs_are_those_of_the_reference_kernels(
    environment: Environment, files: Files, name: str
) -> None:
    """Bit for bit in convolutions; a fully connected layer may round a half the other way."""
    path = files(name)
    shape = (1, 8, 8, 1) if name == "digits-int8" else (1, 32, 32, 3)
    samples = np.random.default_rng(0).standard_normal((10, *shape)).astype(np.float32)
    inputs = {open_session(path).inputs[0].name: samples}
    found = examine(environment, path, inputs)
    expected = reference_outputs(path, inputs)
    assert list(found.outputs) == list(expected) == list(found.steps)
    drift = compare(found.outputs, expected, found.steps)
    assert drift.values == sum(value.size for value in expected.values())
    if name == "convolutions-int8":
        assert drift.differ == 0
        assert str(drift).startswith("bit for bit")
    assert drift.differ <= 0.03 * drift.values
    assert drift.steps is not None and drift.steps <= 1
    for value in found.outputs.values():
        assert len(np.unique(value.reshape(10, -1), axis=0)) == 10  # it answers to its inputs
    assert found.arena.reported == found.arena.head + found.arena.tail
    assert found.arena.bytes - found.arena.reported in range(16)


def test_a_profile_says_what_it_is_and_what_it_is_not(
    folder: Path, files: Files, tmp_path: Path
) -> None:
    inputs = tmp_path / "inputs.npz"
    np.savez(inputs, np.full((3, 1, 8, 8), 0.5, np.float32))  # NCHW, as the data is
    listed = {name: files(name) for name in ("digits-int8", "digits-fp32", "digits-int8-weights")}
    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(bytes([0x3A, 0x00]))
    profile = measure_tflm({**listed, "model.onnx": onnx}, Conditions(inputs=inputs), folder=folder)
    assert "64 bits, reference kernels" in profile.machine
    origin = profile.figures["digits-int8"]["arena"].origin
    assert origin.kind == "measured" and origin.where == profile.machine
    assert "32 bits" in origin.how
    assert list(profile.figures["model.onnx"]) == ["bytes"]
    assert [line.partition(":")[0] for line in profile.not_measured] == ["model.onnx", "latency"]
    notes = {line.split(":")[-2].strip(): line for line in profile.notes[:3]}
    assert "of TensorFlow Lite Micro equal those of LiteRT's reference" in notes["digits-int8"]
    assert "80 values" in notes["digits-int8"]
    assert not notes["digits-int8"].startswith("warning")
    assert notes["digits-int8-weights"].startswith("warning: ")  # TFLM runs these wrongly
    assert "scratch buffers" in profile.notes[-1]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gelu", "it has no kernel for GELU"),
        ("digits-int8-dynamic", "Hybrid models are not supported"),
        ("digits-fp16", "DEQUANTIZE: input->type"),
    ],
)
def test_an_operator_without_a_kernel_is_named(
    folder: Path, files: Files, name: str, reason: str
) -> None:
    listed = {"model.tflite": files(name), "good.tflite": files("digits-int8")}
    profile = measure_tflm(listed, Conditions(), folder=folder)
    assert list(profile.figures["model.tflite"]) == ["bytes"]
    assert profile.not_measured[0].startswith("model.tflite: arena: TensorFlow Lite Micro")
    assert reason in profile.not_measured[0]
    assert "arena" in profile.figures["good.tflite"]


def test_inputs_and_outputs_go_by_their_names(environment: Environment, files: Files) -> None:
    random = np.random.default_rng(0)
    inputs = {
        name: random.standard_normal((3, 1, 6)).astype(np.float32) for name in ("apple", "zebra")
    }
    found = examine(environment, files("two-inputs"), inputs)
    expected = reference_outputs(files("two-inputs"), inputs)
    assert sorted(found.outputs) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found.outputs[name], value, rtol=1e-5, atol=1e-6)
    swapped = {"apple": inputs["zebra"], "zebra": inputs["apple"]}
    other = examine(environment, files("two-inputs"), swapped)
    assert any(np.abs(other.outputs[n] - found.outputs[n]).max() > 0.1 for n in expected)
    with pytest.raises(InputError, match="its inputs are"):
        examine(environment, files("two-inputs"), {"apple": inputs["apple"]})


def test_bad_files_are_named(folder: Path, files: Files, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.tflite: can't be read"):
        measure_tflm({"model.tflite": tmp_path / "gone.tflite"}, Conditions(), folder=folder)
    (tmp_path / "text.tflite").write_text("no model at all")
    with pytest.raises(InputError, match=r"text\.tflite: neither an ONNX nor a TFLite"):
        measure_tflm({"model.tflite": tmp_path / "text.tflite"}, Conditions(), folder=folder)
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(files("digits-int8").read_bytes()[:3000])
    with pytest.raises(EdgepruneError, match=r"cut\.tflite"):
        measure_tflm({"model.tflite": cut}, Conditions(), folder=folder)


def test_without_the_environment_the_way_to_it_is_told(files: Files, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="isn't set up there: edgeprune device add tflm"):
        measure_tflm({"model.tflite": files("digits-int8")}, Conditions(), folder=tmp_path / "none")


def test_the_header_takes_the_measured_arena(folder: Path, files: Files, tmp_path: Path) -> None:
    path = files("digits-int8")
    figure = measure_tflm({"m": path}, Conditions(), folder=folder).figures["m"]["arena"]
    _, header = write_c_array(path, tmp_path, arena=int(figure.value))
    assert f"#define MODEL_ARENA_SIZE {int(figure.value)}u\n" in header.read_text()


SETS_UP = """
import sys
from pathlib import Path
from edgeprune.device.tflm import set_up
from edgeprune.profiler.runtime import open_session
from edgeprune.progress import Silent
print("begun", flush=True)
set_up(Path(sys.argv[1]), Silent())
"""


@pytest.mark.parametrize("moment", [0.2, 2.0])
def test_ctrl_c_leaves_nothing(folder: Path, tmp_path: Path, moment: float) -> None:
    place = tmp_path / "tflm"
    with subprocess.Popen(
        [sys.executable, "-c", SETS_UP, str(place)],
        env=process_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) != 0
    assert list(tmp_path.iterdir()) == []
