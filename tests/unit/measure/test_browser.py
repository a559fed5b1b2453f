# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeprune.errors import DeviceError, InputError
from edgeprune.measure import browser
from edgeprune.measure.browser import measure_web
from edgeprune.measure.result import Conditions
from edgeprune.recipe import ProfileOptions
from tests.unit.profiler.models import chain, lookup, sums
from tests.unit.web_runtime import chromium, web_folder

QUICK = ProfileOptions(blocks=2, block_seconds=0.1, min_runs=100)
__all__ = ["web_folder"]


@pytest.fixture(autouse=True)
def short_warmup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "WARMUP", 0.05)


def infinite(path: Path) -> Path:
    """One over zero, as ONNX."""
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    graph = helper.make_graph(
        [helper.make_node("Abs", ["x"], ["a"]), helper.make_node("Div", ["a", "zero"], ["y"])],
        "infinite",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [zero],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_node_measures_onnx_files_and_says_what_it_can_not(
    web_folder: Path, tmp_path: Path
) -> None:
    files = {
        "dense.onnx": chain(tmp_path / "dense.onnx", width=256, depth=4),
        "model.onnx": chain(tmp_path / "model.onnx", width=32, depth=2),
        "model.tflite": sums(tmp_path / "model.tflite", ["y"]),
    }
    found = measure_web(files, QUICK, Conditions(), folder=web_folder, engine="node")
    figures = found.figures["model.onnx"]
    assert {"bytes", "load", "first_run", "latency_p50", "latency_p90", "latency_p99"} <= set(
        figures
    )
    assert {"memory_wasm", "drift", "latency_ratio"} <= set(figures)
    assert "latency_ratio" not in found.figures["dense.onnx"]
    assert 0 < figures["latency_p50"].value <= figures["latency_p90"].value
    assert figures["latency_ratio"].value < 1
    assert figures["memory_wasm"].value % 65536 == 0
    assert figures["drift"].value < 1e-6
    assert found.machine.startswith("Node ")
    assert "timer steps of" in found.machine
    for key, figure in figures.items():
        if key != "bytes":
            assert figure.origin.where == found.machine
            assert "onnxruntime-web 1.30.0" in figure.origin.how or key == "latency_ratio"
    assert figures["latency_p50"].origin.runs >= 200
    assert set(found.figures["model.tflite"]) == {"bytes"}
    text = "\n".join(found.not_measured)
    assert "model.tflite: @litertjs/core 2.5.3 needs a browser" in text
    assert "memory_peak: a page isn't told" in text


def test_chromium_measures_both_formats(web_folder: Path, tmp_path: Path) -> None:
    chromium()
    files = {
        "model.onnx": chain(tmp_path / "model.onnx", width=32, depth=2),
        "model.tflite": sums(tmp_path / "model.tflite", ["b", "a"]),
    }
    found = measure_web(files, QUICK, Conditions(), folder=web_folder, engine="chromium")
    for name, runtime in (("model.onnx", "onnxruntime-web"), ("model.tflite", "@litertjs/core")):
        figures = found.figures[name]
        assert {"load", "latency_p50", "memory_wasm", "drift"} <= set(figures)
        assert runtime in figures["load"].origin.how
        assert figures["drift"].value < 1e-6
    assert "Chromium " in found.machine or "Chrome " in found.machine
    notes = "\n".join(found.notes)
    assert "a page isn't told its CPU time" in notes
    assert "is short for a timer with steps of" in notes  # these models take microseconds


def test_real_inputs_are_used(web_folder: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "x.npz"
    np.savez(inputs, x=np.array([[0, 1, 0, 1, 0, 1]]))
    files = {"m.onnx": lookup(tmp_path / "m.onnx")}
    found = measure_web(files, QUICK, Conditions(inputs=inputs), folder=web_folder, engine="node")
    assert found.figures["m.onnx"]["latency_p50"].origin.how.endswith("real inputs")
    np.savez(inputs, x=np.zeros((1, 7), "int64"))
    with pytest.raises(InputError, match=r"x\.npz: input x is int64 1x6"):
        measure_web(files, QUICK, Conditions(inputs=inputs), folder=web_folder, engine="node")


def test_an_infinite_output_has_no_drift(web_folder: Path, tmp_path: Path) -> None:
    files = {"m.onnx": infinite(tmp_path / "m.onnx")}
    found = measure_web(files, QUICK, Conditions(), folder=web_folder, engine="node")
    assert "drift" not in found.figures["m.onnx"]
    assert "m.onnx: drift: an output is infinite or not a number" in found.not_measured


def test_the_time_limit_leaves_figures_out(web_folder: Path, tmp_path: Path) -> None:
    files = {"m.onnx": chain(tmp_path / "m.onnx")}
    options = ProfileOptions(blocks=3, time_limit=0.01)
    found = measure_web(files, options, Conditions(), folder=web_folder, engine="node")
    assert "the time limit of 0.01 s ended the measuring" in found.not_measured
    assert "latency_p50" not in found.figures["m.onnx"]
    assert "load" not in found.figures["m.onnx"]


def test_bad_files(web_folder: Path, tmp_path: Path) -> None:
    def measure(path: Path, folder: Path = web_folder) -> None:
        measure_web({path.name: path}, QUICK, Conditions(), folder=folder, engine="node")

    with pytest.raises(InputError, match=r"absent\.onnx: can't be read"):
        measure(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(InputError, match="neither an ONNX nor a TFLite file"):
        measure(tmp_path / "text.onnx")
    with pytest.raises(DeviceError, match="edgeprune device add web"):
        measure(chain(tmp_path / "m.onnx"), tmp_path)


def test_weights_in_a_file_of_their_own_are_refused(web_folder: Path, tmp_path: Path) -> None:
    path = chain(tmp_path / "model.onnx", width=32, depth=2)
    beside = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx.save(onnx.load(path), path, **beside)
    with pytest.raises(InputError, match=r"has weights in w\.bin"):
        measure_web({"model.onnx": path}, QUICK, Conditions(), folder=web_folder, engine="node")
