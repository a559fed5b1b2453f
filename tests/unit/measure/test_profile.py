# SPDX-License-Identifier: Apache-2.0
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.device.address import parse_address
from edgeprune.device.settings import Entry, Named, Places
from edgeprune.errors import DeviceError, InputError
from edgeprune.measure.onboard import measure_onboard
from edgeprune.measure.profile import Reached, here, profile
from edgeprune.measure.result import Conditions, Profile
from edgeprune.recipe import ProfileOptions
from edgeprune.target import find_target
from tests.unit.profiler import models

QUICK = ProfileOptions(blocks=2, max_blocks=2, block_seconds=0.02, min_runs=5, time_limit=30)


def measure(
    files: dict[str, Path], options: ProfileOptions = QUICK, inputs: Path | None = None, **more: Any
) -> Profile:
    return profile(files, options, Conditions(inputs=inputs), here(), **more)


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
    options = ProfileOptions(
        blocks=3, max_blocks=3, block_seconds=0.05, min_runs=100, time_limit=60
    )
    progress = Counting()
    result = measure({"dense.onnx": small, "model.onnx": large}, options, progress=progress)
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
        assert p50.origin.where == result.machine
        assert p50.origin.runs is not None
        assert p50.origin.runs >= 2 * 100
        assert figures["load"].value > 0
        assert figures["first_run"].unit == "s"
        assert figures["arena"].value > 0
    assert model["arena"].value > dense["arena"].value
    assert progress.done > 0
    assert "core" in result.machine
    assert [text.split(":")[0] for text in result.not_measured] == ["energy"]


def test_tflite_and_onnx_have_their_own_dense(tmp_path: Path) -> None:
    files = {
        "dense.onnx": models.chain(tmp_path / "a.onnx"),
        "model.tflite": models.sums(tmp_path / "b.tflite", ["y"]),
    }
    result = measure(files)
    assert "latency_ratio" not in result.figures["model.tflite"]
    assert "ai-edge-litert" in result.figures["model.tflite"]["latency_p50"].origin.how
    assert "onnxruntime" in result.figures["dense.onnx"]["latency_p50"].origin.how


def test_the_time_limit_ends_it_and_says_so(tmp_path: Path) -> None:
    options = ProfileOptions(blocks=50, block_seconds=0.2, time_limit=0.5)
    start = time.monotonic()
    result = measure({"a.onnx": models.chain(tmp_path / "a.onnx")}, options)
    assert time.monotonic() - start < 15
    told = [text for text in result.not_measured if text.startswith("a.onnx: ")]
    assert any("time limit" in text or "was killed" in text for text in told)


def test_real_inputs_are_what_is_run(tmp_path: Path) -> None:
    path = models.lookup(tmp_path / "a.onnx", length="n")
    with pytest.raises(InputError, match=r"a\.onnx: input x has a dynamic dimension 'n'"):
        measure({"a.onnx": path})
    np.savez(tmp_path / "x.npz", x=np.ones((1, 9), "int64"))
    result = measure({"a.onnx": path}, inputs=tmp_path / "x.npz")
    assert "real inputs" in result.figures["a.onnx"]["latency_p50"].origin.how
    np.savez(tmp_path / "bad.npz", x=np.full((1, 9), 7))
    with pytest.raises(DeviceError, match=r"a\.onnx: .*failed"):
        measure({"a.onnx": path}, inputs=tmp_path / "bad.npz")


def test_a_missing_file_and_a_wrong_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        measure({"a.onnx": tmp_path / "a.onnx"})
    (tmp_path / "a.onnx").write_text("no model")
    with pytest.raises(InputError, match=r"a\.onnx: .*neither an ONNX nor"):
        measure({"a.onnx": tmp_path / "a.onnx"})


class Fake:
    """An agent on a board that isn't here, with what it would say."""

    def __init__(self, **facts: Any) -> None:
        usual = {"board": None, "cpu": "A CPU", "cores": 4, "os": "Linux", "kernel": "6.6"}
        self.facts = usual | {"machine": "aarch64", "governor": None, "emulated": None}
        self.facts |= {"isa": ["fp", "asimd", "crc32"], "energy_meters": [], "time": time.time()}
        self.facts |= facts
        self.asked: list[str] = []

    def probe(self) -> dict[str, Any]:
        return self.facts

    def ask(self, task: str, files: Any = (), options: Any = None, **_: Any) -> dict[str, Any]:
        self.asked.append(task)
        blocks = [
            {"turn": k, "runtime": "r", "runs": 200, "tainted": [], "load": 1, "first": 1}
            | {"p50": 1 + k, "p90": 2 + k, "p99": 3 + k}
            for k in range(5)
        ]
        memory = {"runtime": "r", "peak": [9], "base": [3], "model": [4], "reset": True}
        memory |= {"arena": None, "arena_reason": "r tells none", "killed": None}
        answers: dict[str, Any] = {
            "latency": {"files": [{"blocks": blocks, "killed": None, "cut": None}] * len(files)},
            "memory": {"files": [memory] * len(files)},
            "energy": {
                "meter": "pmic",
                "idle": {"start": 0.0, "end": 1.0, "watts": 2.0},
                "busy": {"start": 2.0, "end": 3.0, "runs": 10, "joules": 5.0},
                "joules_per_inference": 0.3,
            },
        }
        return {"result": answers[task]}


def onboard(agent: Fake, path: Path, target: str | None = None, **more: Any) -> Profile:
    path.write_bytes(b"x" * 10)
    board = None if target is None else find_target(target)
    return measure_onboard(agent, {"a.onnx": path}, QUICK, Conditions(), target=board, **more)


def test_an_emulated_boards_times_are_refused(tmp_path: Path) -> None:
    agent = Fake(emulated="qemu-user", board="Raspberry Pi 4 Model B Rev 1.4")
    result = onboard(agent, tmp_path / "a.onnx", "rpi4")
    assert set(result.figures["a.onnx"]) == {"bytes"}
    assert agent.asked == []
    assert result.refused is not None
    assert "emulated (qemu-user)" in result.not_measured[0]


@pytest.mark.parametrize(
    ("facts", "target", "refused"),
    [
        ({"board": "Raspberry Pi 4 Model B Rev 1.4"}, "rpi4", None),
        ({"board": "Raspberry Pi 5 Model B Rev 1.0"}, "rpi4", "it is Raspberry Pi 5 Model B Rev"),
        ({"machine": "x86_64"}, "rpi4", "it is x86_64, and rpi4 is a Raspberry Pi 4 Model B"),
        ({"machine": "x86_64"}, "host", None),
        ({"machine": "x86_64"}, None, None),
    ],
)
def test_another_board_is_no_evidence(
    tmp_path: Path, facts: dict[str, Any], target: str | None, refused: str | None
) -> None:
    result = onboard(Fake(**facts), tmp_path / "a.onnx", target)
    assert result.figures["a.onnx"]["latency_p50"].value == 3
    if refused is None:
        assert result.refused is None
    else:
        assert result.refused is not None
        assert refused in result.refused


def test_energy_by_the_devices_meter_and_by_one_beside_it(tmp_path: Path) -> None:
    result = onboard(Fake(energy_meters=["pmic"]), tmp_path / "a.onnx")
    assert result.figures["a.onnx"]["energy"].value == 0.3
    readings = tmp_path / "power.csv"
    readings.write_text("".join(f"{k / 10},{4 if k > 15 else 2}\n" for k in range(40)))
    now = time.time()
    result = onboard(Fake(time=now), tmp_path / "a.onnx", meter=readings)
    energy = result.figures["a.onnx"]["energy"]
    assert energy.value == pytest.approx(0.2, rel=0.01)
    assert "power.csv" in energy.origin.how
    with pytest.raises(InputError, match=r"none\.csv: can't be read"):
        onboard(Fake(), tmp_path / "a.onnx", meter=tmp_path / "none.csv")


def test_what_a_device_needs_and_lacks_is_one_line(tmp_path: Path) -> None:
    path = models.chain(tmp_path / "a.onnx")
    places = Places(tmp_path / "config", tmp_path / "cache")
    for address, message in (
        ("adb:XYZ", "needs LiteRT's benchmark_model"),
        ("tflm", "device add tflm"),
        ("web", "device add web"),
        ("emulated:rpi4", "device add emulated:rpi4"),
    ):
        named = Named(address, parse_address(address), Entry(address=address))
        with pytest.raises((InputError, DeviceError), match=message):
            profile({"a.onnx": path}, QUICK, Conditions(), Reached(named, places))
        with pytest.raises(InputError, match=r"m\.csv: readings of a meter fit"):
            profile(
                {"a.onnx": path},
                QUICK,
                Conditions(),
                Reached(named, places),
                meter=tmp_path / "m.csv",
            )
