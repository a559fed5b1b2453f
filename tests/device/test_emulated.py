# SPDX-License-Identifier: Apache-2.0
"""An emulated Raspberry Pi: reached as a board is, and used for what it is good for."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.cli.main import main
from edgeprune.data import open_data
from edgeprune.device.address import parse_address
from edgeprune.device.agent import Agent
from edgeprune.device.emulated import python_words, read_board, set_up
from edgeprune.device.emulated.tools import find_tools, start
from edgeprune.device.local import LocalShell
from edgeprune.device.ssh import SshOptions, SshShell
from edgeprune.measure.emulator import RUNS, measure_emulated
from edgeprune.measure.onboard import measure_onboard
from edgeprune.measure.result import Conditions, Profile
from edgeprune.model import Event, capture, save
from edgeprune.profiler.run import write_npz
from edgeprune.profiler.runtime import open_session
from edgeprune.recipe import ProfileOptions
from edgeprune.target import find_target
from tests.networks import ResNet
from tests.sshd import Server

pytestmark = pytest.mark.device

CLOSE = 1e-5
"""Of fp32 outputs there and here: sums in another order."""
BOARD = "Raspberry Pi 4 Model B"
QUICK = ProfileOptions(blocks=2, max_blocks=2, block_seconds=0.02, min_runs=3)
PATIENT = ProfileOptions(time_limit=900)


@pytest.fixture
def agent(pi: Server) -> Iterator[Agent]:
    """The agent behind ssh."""
    shell = SshShell(parse_address(pi.address), SshOptions(pi.known_hosts, pi.identity))
    with Agent(shell) as agent:
        yield agent


@pytest.fixture(scope="session")
def compressed(digits_pt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits network as the demo compresses it for a Raspberry Pi 4: int8."""
    folder = tmp_path_factory.mktemp("compressed")
    (folder / "quick.toml").write_text(
        "[profile]\nblocks = 2\nmax_blocks = 2\nblock_seconds = 0.02\nmin_runs = 3\n"
    )
    words = ["compress", str(digits_pt2), "--target", "rpi4", "--data", "digits", "--ratio", "0.5"]
    quick = ["--recipe", str(folder / "quick.toml"), "--epochs", "2", "--max-drop", "100"]
    where = ["--out", str(folder), "--threads", "1", "--allow-unmeasured"]
    assert main([*words, *quick, *where]) == 0
    return folder / "rpi4"


@pytest.fixture(scope="session")
def exported(digits_pt2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network as it is, in float."""
    return export(digits_pt2, tmp_path_factory.mktemp("exported"), "fp32", "digits")


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures of digits, as the network gets them."""
    path = tmp_path_factory.mktemp("samples") / "digits.npz"
    batch = next(open_data("digits", seed=0).sample_train(16, 16, 0))
    write_npz(path, {"x": batch.inputs[0].numpy()})
    return path


def export(model: Path, folder: Path, numerics: str, data: str, *more: str) -> Path:
    """``model`` quantized to ``numerics`` and exported; the folder with its two artifacts."""
    small, out = folder / f"{numerics}.pt2", folder / numerics
    common = ["--data", data, "-t", "rpi4", "--threads", "1"]
    quantize = ["quantize", str(model), "--numerics", numerics, *more, *common, "-o", str(small)]
    assert main(quantize) == 0
    assert main(["export", str(small), *common, "-o", str(out)]) == 0
    return out


def step_of(path: Path) -> float:
    """The quantization step of an int8 artifact's (dequantized) outputs."""
    session = open_session(path)
    generator = np.random.default_rng(1)
    shape = [d if isinstance(d, int) else 1 for d in session.inputs[0].shape]
    values = [
        session.run([generator.standard_normal(shape).astype(np.float32)])[0] for _ in range(40)
    ]
    levels = np.unique(np.stack(values).astype(np.float64).round(9))
    return float(np.diff(levels).min())


def test_the_board_says_what_it_is(agent: Agent) -> None:
    facts = agent.probe()
    assert facts["machine"] == "aarch64"
    assert facts["board"] == BOARD
    assert facts["cpu"] == "Cortex-A72"
    assert facts["emulated"] == "qemu-user"
    assert facts["ram"] == 2**30
    runtimes = {form: find_target("rpi4").runtime(form) for form in ("onnx", "tflite")}  # type: ignore[arg-type]
    assert facts["runtimes"] == {r.name: r.version for r in runtimes.values()}


def test_artifacts_compute_there_what_they_compute_here(
    agent: Agent, compressed: Path, exported: Path, samples: Path, tmp_path: Path
) -> None:
    """In float to rounding, in int8 to one step of the output."""
    for folder in (compressed, exported):
        for name in ("model.onnx", "model.tflite"):
            path = folder / name
            allowed = CLOSE if folder == exported else step_of(path) * 1.001
            there = outputs_there(agent, path, samples, tmp_path)
            here = open_session(path).run(read_inputs(path, samples))
            assert there[0].shape == (16, 10)
            assert len(np.unique(here[0])) > 16
            worst = max(
                float(np.abs(one - other).max()) for one, other in zip(there, here, strict=True)
            )
            assert worst <= allowed, path


def outputs_there(agent: Agent, path: Path, samples: Path, folder: Path) -> list[Any]:
    outputs = folder / "outputs.npz"
    agent.run(path, samples, outputs)
    with np.load(outputs) as file:
        return [file[spec.name] for spec in open_session(path).outputs]


def read_inputs(path: Path, samples: Path) -> list[Any]:
    from edgeprune.profiler.inputs import real_inputs

    return real_inputs(open_session(path).inputs, samples, whole=True)


def test_its_times_are_no_evidence(agent: Agent, compressed: Path) -> None:
    files = {name: compressed / name for name in ("model.onnx", "model.tflite")}
    found = measure_onboard(agent, files, QUICK, Conditions())
    assert "emulated (qemu-user)" in found.not_measured[0]
    assert {key for figures in found.figures.values() for key in figures} == {"bytes"}
    assert "emulated by qemu-user" in found.machine


def test_a_board_that_is_there_is_taken_as_it_is(rpi4: Path) -> None:
    before = (rpi4 / "board.json").stat().st_mtime_ns
    said = set_up(rpi4, find_target("rpi4"))
    assert (rpi4 / "board.json").stat().st_mtime_ns == before
    assert said.startswith(f"{BOARD}, emulated by QEMU ")
    assert [path.name for path in rpi4.parent.iterdir() if path.name.startswith(".")] == []


def test_it_runs_from_wherever_it_is_moved_to(rpi4: Path, tmp_path: Path) -> None:
    """Also with the user's own Python paths around, and with odd characters in the path."""
    moved = rpi4.with_name("a 'board': $HOME")
    rpi4.rename(moved)
    try:
        words = python_words(moved, find_target("rpi4"))
        code = "import subprocess, sys; print(subprocess.run([sys.executable, '-c', sys.argv[1]]))"
        inner = "import numpy, platform; print(platform.machine(), numpy.__file__)"
        around = {"PYTHONPATH": str(Path(np.__file__).parents[1]), "PYTHONHOME": sys.prefix}
        told = start([*words, "-c", code, inner], timeout=120, environment=around)
        assert told.startswith(f"aarch64 {moved}/root/"), told
    finally:
        moved.rename(rpi4)


def test_an_interrupted_set_up_leaves_nothing(boards: Path) -> None:
    """Ctrl-C in the middle: the process ends, its children too, and the folder isn't there."""
    folder = boards / "interrupted"
    code = (
        "import sys; from pathlib import Path; from edgeprune.target import find_target; "
        "from edgeprune.device.emulated import set_up; "
        "set_up(Path(sys.argv[1]), find_target('rpi4'))"
    )
    words = [sys.executable, "-c", code, str(folder)]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    work = folder.with_name(".interrupted.work")
    try:
        while process.poll() is None and not (work / "new" / "root" / "usr").exists():
            pass
        process.send_signal(2)
        assert process.wait(60) != 0
    finally:
        process.kill()
    assert [path.name for path in boards.iterdir() if "interrupted" in path.name] == []


@pytest.fixture(scope="session")
def resnets(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A small ResNet in float and in int8, as TFLite."""
    folder = tmp_path_factory.mktemp("resnets")
    torch.manual_seed(0)
    example = (torch.randn(2, 3, 32, 32),)
    model, _ = capture(ResNet(1).eval(), example, event=Event("test"))
    save(model, folder / "resnet.pt2")
    images = np.random.default_rng(0).standard_normal((32, 3, 32, 32)).astype(np.float32)
    np.savez(folder / "images.npz", x=images)
    found = {}
    for numerics in ("fp32", "int8"):
        out = export(folder / "resnet.pt2", folder, numerics, str(folder / "images.npz"))
        found[f"{numerics}.tflite"] = out / "model.tflite"
    return found


@pytest.fixture(scope="session")
def counted(rpi4: Path, rpi5: Path, resnets: Mapping[str, Path]) -> Mapping[str, Profile]:
    """What both boards tell of the ResNets."""
    return {
        name: measure_emulated(
            resnets, PATIENT, Conditions(), folder=folder, target=find_target(name)
        )
        for name, folder in (("rpi4", rpi4), ("rpi5", rpi5))
    }


def instructions(found: Profile) -> dict[str, float]:
    return {name: figures["instructions"].value for name, figures in found.figures.items()}


@pytest.mark.parametrize("name", ["rpi4", "rpi5"])
def test_an_emulator_tells_instructions_and_drift_alone(
    counted: Mapping[str, Profile], name: str
) -> None:
    found = counted[name]
    assert f"QEMU {find_tools().version} as {find_target(name).reach.emulator}" in found.machine
    assert any(text.startswith("latency, memory, energy: ") for text in found.not_measured)
    for file, figures in found.figures.items():
        assert set(figures) == {"bytes", "drift", "instructions"}, file
        count = figures["instructions"]
        assert count.origin.runs == RUNS
        assert "count in an emulator" in count.origin.how
        assert count.low is not None
        assert count.value <= 1.01 * count.low, file
        assert figures["drift"].value <= (CLOSE if file.startswith("fp32") else 0.05), file


def test_instructions_show_the_dot_product(counted: Mapping[str, Profile]) -> None:
    """A Pi 4 has to multiply bytes as 16-bit numbers; a Pi 5 has an instruction for it."""
    found = {name: instructions(profile) for name, profile in counted.items()}
    shares = {name: c["int8.tflite"] / c["fp32.tflite"] for name, c in found.items()}
    assert 0.6 < shares["rpi4"] < 1.1
    assert 0.2 < shares["rpi5"] < 0.6


def test_counts_repeat(
    rpi4: Path, resnets: Mapping[str, Path], counted: Mapping[str, Profile]
) -> None:
    one = {"int8.tflite": resnets["int8.tflite"]}
    target = find_target("rpi4")
    again = measure_emulated(one, PATIENT, Conditions(), folder=rpi4, target=target)
    first = instructions(counted["rpi4"])["int8.tflite"]
    assert instructions(again)["int8.tflite"] == pytest.approx(first, rel=0.005)


def test_without_the_counter_it_is_said_and_the_rest_is_there(rpi4: Path, compressed: Path) -> None:
    text = (rpi4 / "board.json").read_text()
    (rpi4 / "board.json").write_text(json.dumps(json.loads(text) | {"uncounted": "no compiler"}))
    try:
        files = {"model.tflite": compressed / "model.tflite"}
        found = measure_emulated(
            files, PATIENT, Conditions(), folder=rpi4, target=find_target("rpi4")
        )
        assert "model.tflite: instructions: no compiler" in found.not_measured
        assert set(found.figures["model.tflite"]) == {"bytes", "drift"}
    finally:
        (rpi4 / "board.json").write_text(text)


def test_a_file_that_is_no_artifact_is_refused_there(rpi4: Path, tmp_path: Path) -> None:
    """By the emulated agent, in one line that names the file."""
    from edgeprune.errors import InputError

    assert read_board(rpi4) is not None
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    python = python_words(rpi4, find_target("rpi4"))
    with (
        Agent(LocalShell(), python, folder=str(tmp_path / "agent")) as agent,
        pytest.raises(InputError, match=r"bad\.tflite"),
    ):
        agent.ask("count", [bad], {"runs": 1})
