# SPDX-License-Identifier: Apache-2.0
"""What is made of an emulated agent's answers; ``tests/device`` has the emulator itself."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeprune.errors import DeviceError, InputError
from edgeprune.measure import emulator
from edgeprune.measure.emulator import RUNS, measure_emulated
from edgeprune.measure.result import Conditions, Profile
from edgeprune.profiler.count import EMPTY
from edgeprune.profiler.inputs import real_inputs
from edgeprune.profiler.run import write_npz
from edgeprune.profiler.runtime import open_session
from edgeprune.recipe import ProfileOptions
from edgeprune.target import find_target
from tests.unit.profiler.models import chain

COUNTS = (1010, 1000, 1020, 1000, 1030, 1400)
MARKING = 7


class EmulatedAgent:
    """Computes what this machine does, but for ``apart``; counts ``COUNTS``."""

    apart = 0.25
    counts = True

    def __init__(self, shell: object, python: Sequence[str], folder: str) -> None:
        self.python = list(python)

    def run(self, path: Path, inputs: Path, outputs: Path, *, threads: int) -> dict[str, Any]:
        session = open_session(path, threads)
        made = session.run(real_inputs(session.inputs, inputs, whole=True))
        names = [spec.name for spec in session.outputs]
        write_npz(outputs, {n: made[k] + np.float32(self.apart) for k, n in enumerate(names)})
        return {"runtime": "onnxruntime 9"}

    def ask(
        self, task: str, files: Sequence[Path], options: Mapping[str, Any], *, timeout: float
    ) -> dict[str, Any]:
        assert task == "count"
        assert options["threads"] == 1
        (out,) = [w.partition(",out=")[2] for w in self.python if w.startswith("QEMU_PLUGIN=")]
        total, lines = 0, []
        for spent in (*([0] * EMPTY), *COUNTS):
            for step in (5, spent + MARKING):
                total += step
                lines.append(f"{len(lines)} {total}")
        if self.counts:
            Path(out).write_text("\n".join(lines) + "\n")
        return {"result": {"runtime": "onnxruntime 9", "empty": EMPTY, "runs": options["runs"]}}


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(emulator, "Agent", EmulatedAgent)
    facts = {
        "key": "k",
        "title": "Raspberry Pi 4 Model B",
        "cpu": "cortex-a72",
        "qemu": "7.2",
        "debian": "12",
        "python": "3.11.2",
        "versions": {},
        "lacking": [],
        "uncounted": None,
    }
    folder = tmp_path / "board"
    folder.mkdir()
    (folder / "board.json").write_text(json.dumps(facts))
    return folder


def measure(board: Path, seconds: float = 60.0, **conditions: Any) -> Profile:
    files = {"model.onnx": chain(board.parent / "model.onnx", width=4)}
    return measure_emulated(
        files,
        ProfileOptions(time_limit=seconds),
        Conditions(**conditions),
        folder=board,
        target=find_target("rpi4"),
    )


def test_counts_and_drift_with_their_origins(board: Path) -> None:
    found = measure(board, threads=3)
    figures = found.figures["model.onnx"]
    count = figures["instructions"]
    assert (count.value, count.low, count.high) == (1015, 1000, 1400)
    assert count.origin.runs == RUNS == len(COUNTS)
    assert "QEMU 7.2 as cortex-a72: a count in an emulator" in count.origin.how
    assert "no time" in count.origin.how
    assert figures["drift"].value == pytest.approx(0.25)
    assert set(figures) == {"bytes", "instructions", "drift"}
    assert found.machine.startswith("Raspberry Pi 4 Model B emulated by QEMU 7.2 as cortex-a72 on")
    assert found.not_measured == (
        "latency, memory, energy: an emulator's are its own and no evidence of a Raspberry Pi 4 "
        "Model B; measure there: --device ssh://USER@BOARD",
    )
    assert "differ from this machine's by at most 0.25" in found.notes[0]


def test_all_samples_of_real_inputs_are_held_against_each_other(
    board: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((5, 4), np.float32))
    drift = measure(board, inputs=tmp_path / "x.npz").figures["model.onnx"]["drift"]
    assert "20 values" in drift.origin.how
    assert "real inputs" in drift.origin.how


def test_a_counter_that_saw_nothing_is_no_zero(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmulatedAgent, "counts", False)
    found = measure(board)
    assert set(found.figures["model.onnx"]) == {"bytes", "drift"}
    assert any("model.onnx: instructions: the emulator saw 0 of" in t for t in found.not_measured)


def test_outputs_that_are_no_numbers_have_no_drift(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmulatedAgent, "apart", float("nan"))
    found = measure(board)
    assert set(found.figures["model.onnx"]) == {"bytes", "instructions"}
    assert "model.onnx: drift: its outputs are not all finite" in found.not_measured


def test_the_time_limit_ends_it(board: Path) -> None:
    found = measure(board, seconds=1e-9)
    assert set(found.figures["model.onnx"]) == {"bytes"}
    assert "model.onnx: instructions, drift: the time limit" in found.not_measured[0]


def test_no_board_and_no_file(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, target = ProfileOptions(), find_target("rpi4")
    with pytest.raises(InputError, match=r"nothing\.onnx: can't be read"):
        measure_emulated(
            {"x": board / "nothing.onnx"}, options, Conditions(), folder=board, target=target
        )
    (board / "board.json").unlink()
    with pytest.raises(InputError, match="edgeprune device add emulated:rpi4"):
        measure(board)


def test_what_the_emulated_agent_refuses_is_raised(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DeviceError("emulated:rpi4: run: the agent ended with exit code 1")

    monkeypatch.setattr(EmulatedAgent, "run", refuse)
    with pytest.raises(DeviceError, match="emulated:rpi4"):
        measure(board)
