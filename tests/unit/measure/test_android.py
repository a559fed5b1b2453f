# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from edgeprune.device.benchmark_text import Op
from edgeprune.errors import DeviceError, InputError
from edgeprune.measure.android import measure_adb, ops_adb
from edgeprune.measure.result import Conditions, Profile
from edgeprune.recipe import ProfileOptions
from tests.unit.device.fake_adb import SERIAL, FakePhone, make_phone
from tests.unit.profiler.models import chain, sums

QUICK = ProfileOptions(blocks=3, block_seconds=0.1)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    return make_phone(tmp_path, monkeypatch)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {
        "dense.tflite": sums(tmp_path / "dense.tflite", ["y"]),
        "model.tflite": sums(tmp_path / "model.tflite", ["y"]),
        "model.onnx": chain(tmp_path / "model.onnx"),
    }


def measure(phone: FakePhone, files: dict[str, Path], options: ProfileOptions = QUICK) -> Profile:
    return measure_adb(
        files,
        options,
        Conditions(threads=2),
        serial=SERIAL,
        benchmark_model=phone.benchmark_model,
    )


def test_figures_come_from_what_the_tool_prints(phone: FakePhone, files: dict[str, Path]) -> None:
    found = measure(phone, files)
    figures = found.figures["model.tflite"]
    values = {key: figures[key].value for key in figures}
    assert values == {
        "bytes": files["model.tflite"].stat().st_size,
        "load": pytest.approx(0.087639),
        "first_run": pytest.approx(0.106436),
        "latency_mean": pytest.approx(0.105784),
        "latency_p50": pytest.approx(0.105718),
        "latency_p95": pytest.approx(0.106281),
        "latency_ratio": 1.0,
        "memory_model": round(14.8164 * 1024 * 1024),
        "memory_peak": round(93.2383 * 1024 * 1024),
    }
    origin = figures["latency_p50"].origin
    assert origin.where == found.machine
    assert found.machine.startswith("Google Pixel 6a (GS101), ")
    assert origin.runs == 3 * 50
    assert "benchmark_model with XNNPACK" in origin.how
    assert "2 threads, random inputs" in origin.how
    assert "dense.tflite" in figures["latency_ratio"].origin.how
    assert "latency_ratio" not in found.figures["dense.tflite"]


def test_each_round_runs_each_file_once_and_watches_memory_apart(
    phone: FakePhone, files: dict[str, Path]
) -> None:
    measure(phone, files, ProfileOptions(blocks=5, block_seconds=0.1, min_runs=30))
    lines = phone.runs()
    timed = [line for line in lines if "report_peak" not in line]
    assert len(timed) == 2 * 5
    assert len(lines) - len(timed) == 2 * 3
    for turn in range(5):
        assert {line.split()[0] for line in timed[2 * turn : 2 * turn + 2]} == {
            "--graph=m0.tflite",
            "--graph=m1.tflite",
        }
    assert "--num_threads=2 --warmup_runs=1 --warmup_min_secs=0.1 --num_runs=30" in timed[0]
    assert phone.left() == []


def test_what_it_can_not_measure_is_said(phone: FakePhone, files: dict[str, Path]) -> None:
    found = measure(phone, files)
    assert set(found.figures["model.onnx"]) == {"bytes"}
    text = "\n".join(found.not_measured)
    assert "model.onnx: benchmark_model runs .tflite files only" in text
    assert "latency_p90, latency_p99: benchmark_model prints" in text


def test_an_old_tool_gives_means_and_no_percentile(
    phone: FakePhone, files: dict[str, Path]
) -> None:
    phone.prints("tensorflow-1.txt")
    (phone.folder / "peak").write_text("")
    found = measure(phone, files)
    figures = found.figures["model.tflite"]
    assert set(figures) == {"bytes", "load", "first_run", "latency_mean", "latency_ratio"}
    assert "mean over that of dense.tflite" in figures["latency_ratio"].origin.how
    text = "\n".join(found.not_measured)
    assert "model.tflite: latency_p50: this benchmark_model is too old" in text
    assert "model.tflite: memory_peak: this benchmark_model doesn't print it" in text


def test_without_a_tflite_file_the_phone_is_not_asked(files: dict[str, Path]) -> None:
    only = {"model.onnx": files["model.onnx"]}
    found = measure_adb(only, QUICK, Conditions(), serial="none", benchmark_model=Path("absent"))
    assert set(found.figures["model.onnx"]) == {"bytes"}
    assert len(found.not_measured) == 1


def test_the_time_limit_leaves_figures_out(phone: FakePhone, files: dict[str, Path]) -> None:
    found = measure(phone, files, ProfileOptions(blocks=3, time_limit=0.001))
    assert "time limit" in found.not_measured[1]
    assert not any(key.startswith("latency") for f in found.figures.values() for key in f)
    assert phone.left() == []


def test_a_failing_run_names_the_file(phone: FakePhone, files: dict[str, Path]) -> None:
    phone.says("ERROR: Didn't find op\n", code=1)
    with pytest.raises(DeviceError, match=r"^(dense|model)\.tflite: .*Didn't find op$"):
        measure(phone, files)


def test_operators(phone: FakePhone, files: dict[str, Path]) -> None:
    phone.prints("tensorflow-2.8-ops.txt")
    program = phone.benchmark_model
    found = ops_adb(files["model.tflite"], serial=SERIAL, benchmark_model=program, cores="f0")
    assert found[-1] == Op("[MobilenetV1/Predictions/Reshape_1]:30", "SOFTMAX", 0.000233, 1)
    assert "--enable_op_profiling=true" in phone.runs()[-1]
    with pytest.raises(InputError, match=r"runs \.tflite files only"):
        ops_adb(files["model.onnx"], serial=SERIAL, benchmark_model=program)
