# SPDX-License-Identifier: Apache-2.0
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.device.process import run_child
from edgeprune.errors import DeviceError, InputError
from edgeprune.measure import profile as module
from edgeprune.measure.profile import profile
from edgeprune.profiler import memory
from edgeprune.recipe import ProfileOptions
from tests.unit.profiler import models

QUICK = ProfileOptions(blocks=2, block_seconds=0.02, min_runs=5, time_limit=30)


@pytest.fixture(autouse=True)
def short_warmup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WARMUP", 0.01)


class Counting:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.total = self.done = 0

    def bar(self, title: str, total: int) -> "Counting":
        self.total = total
        return self

    def __enter__(self) -> "Counting":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def advance(self, steps: int = 1, **_: float) -> None:
        self.done += steps

    def say(self, text: str) -> None:
        return None


def test_a_model_of_more_work_is_slower_and_bigger(tmp_path: Path) -> None:
    small = models.chain(tmp_path / "small.onnx", width=512, batch="n")
    large = models.chain(tmp_path / "large.onnx", width=512, depth=50, batch="n")
    options = ProfileOptions(blocks=3, block_seconds=0.05, min_runs=100, time_limit=60)
    progress = Counting()
    result = profile(
        {"dense.onnx": small, "model.onnx": large}, options, where="a desk", progress=progress
    )
    dense, model = result.figures["dense.onnx"], result.figures["model.onnx"]
    ratio = model["latency_ratio"]
    assert ratio.low is not None
    assert ratio.low > 2
    assert "latency_ratio" not in dense
    assert model["bytes"].value == large.stat().st_size
    assert model["bytes"].origin.kind == "counted"
    assert model["memory_model"].value - dense["memory_model"].value > 0.8 * 49 * 512 * 512 * 4
    assert dense["memory_peak"].value > 10e6
    for figures in (dense, model):
        p50, p90, p99 = (figures[f"latency_p{k}"] for k in (50, 90, 99))
        assert 0 < p50.value <= p90.value <= p99.value
        assert p50.low is not None
        assert p50.high is not None
        assert p50.low <= p50.value <= p50.high
        assert p50.origin.where == "a desk"
        assert p50.origin.runs is not None
        assert p50.origin.runs >= 2 * 100
        assert figures["load"].value > 0
        assert figures["first_run"].unit == "s"
    assert progress.done == progress.total == 2 * (3 + 3)
    assert result.machine == "a desk"
    assert result.not_measured == ()


def test_tflite_and_onnx_have_their_own_dense(tmp_path: Path) -> None:
    files = {
        "dense.onnx": models.chain(tmp_path / "a.onnx"),
        "model.tflite": models.sums(tmp_path / "b.tflite", ["y"]),
    }
    result = profile(files, QUICK)
    assert "latency_ratio" not in result.figures["model.tflite"]
    assert "ai-edge-litert" in result.figures["model.tflite"]["latency_p50"].origin.how
    assert "onnxruntime" in result.figures["dense.onnx"]["latency_p50"].origin.how


def test_few_runs_give_no_99th_percentile(tmp_path: Path) -> None:
    options = ProfileOptions(blocks=2, block_seconds=1e-6, min_runs=20, time_limit=30)
    result = profile({"a.onnx": models.chain(tmp_path / "a.onnx")}, options)
    assert {"latency_p50", "latency_p90"} <= set(result.figures["a.onnx"])
    assert "latency_p99" not in result.figures["a.onnx"]
    assert "a.onnx: latency_p99: 20 runs a block are too few" in result.not_measured[0]


def test_the_time_limit_ends_it_and_says_so(tmp_path: Path) -> None:
    options = ProfileOptions(blocks=50, block_seconds=0.2, time_limit=0.5)
    start = time.monotonic()
    result = profile({"a.onnx": models.chain(tmp_path / "a.onnx")}, options)
    assert time.monotonic() - start < 15
    assert "the time limit of 0.5 s ended the measuring" in result.not_measured
    assert any("a.onnx: latency: " in text for text in result.not_measured)
    assert "latency_p50" not in result.figures["a.onnx"]


def test_real_inputs_are_what_is_run(tmp_path: Path) -> None:
    path = models.lookup(tmp_path / "a.onnx", length="n")
    with pytest.raises(InputError, match=r"a\.onnx: input x has a dynamic dimension 'n'"):
        profile({"a.onnx": path}, QUICK)
    np.savez(tmp_path / "x.npz", x=np.ones((1, 9), "int64"))
    result = profile({"a.onnx": path}, QUICK, inputs=tmp_path / "x.npz")
    assert "real inputs" in result.figures["a.onnx"]["latency_p50"].origin.how
    np.savez(tmp_path / "bad.npz", x=np.full((1, 9), 7))
    with pytest.raises(DeviceError, match=r"a\.onnx: .*failed"):
        profile({"a.onnx": path}, QUICK, inputs=tmp_path / "bad.npz")


def test_where_memory_cannot_be_read_it_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: False)
    result = profile({"a.onnx": models.chain(tmp_path / "a.onnx")}, QUICK, where="another system")
    assert not any(key.startswith("memory") for key in result.figures["a.onnx"])
    assert "memory: this system (another system) doesn't tell" in result.not_measured[0]


def test_a_missing_file_and_a_wrong_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        profile({"a.onnx": tmp_path / "a.onnx"}, QUICK)
    (tmp_path / "a.onnx").write_text("no model")
    with pytest.raises(InputError, match=r"a\.onnx: .*neither an ONNX nor"):
        profile({"a.onnx": tmp_path / "a.onnx"}, QUICK)


def job(path: Path, **others: Any) -> dict[str, Any]:
    common = {"task": "memory", "path": str(path), "threads": 1, "seed": 0, "inputs": None}
    return common | others


def test_a_hanging_process_is_stopped(tmp_path: Path) -> None:
    path = models.chain(tmp_path / "a.onnx")
    latency = {"task": "latency", "warmup": 60, "seconds": 60, "max_seconds": 60, "min_runs": 1}
    with pytest.raises(DeviceError, match=r"^model\.onnx: measuring its latency took more than"):
        run_child("model.onnx", job(path, **latency), timeout=1.5)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", "killed, most likely for want of memory"),
        ("import os; os.abort()", "died of signal 6"),
        ("raise SystemExit('no such thing')", "ended with 1: no such thing"),
        ("pass", "ended with 0: no message"),
    ],
)
def test_a_dying_process_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}"\n')
    script.chmod(0o755)
    monkeypatch.setattr("edgeprune.device.process.sys.executable", str(script))
    with pytest.raises(DeviceError, match=f"^model.onnx: measuring its memory failed: .*{message}"):
        run_child("model.onnx", job(tmp_path / "a.onnx"), timeout=30)


def test_the_child_runs_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.chain(tmp_path / "a.onnx")
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, "PYTHONPATH", "")
    result = profile({"a.onnx": Path("a.onnx")}, QUICK)
    assert "memory_peak" in result.figures["a.onnx"]
