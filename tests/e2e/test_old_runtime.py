# SPDX-License-Identifier: Apache-2.0
"""tflite-runtime 2.14, the last one, in an environment of its own (it needs numpy < 2)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprune.device import archive
from edgeprune.export.compat import oldest_runtime_blockers
from edgeprune.export.feed import artifact_runner, evaluation_batches
from edgeprune.export.tflite import write_tflite
from tests.unit.export.lite import cnn, digits

SAMPLES = 16
RUN = """
import json, sys
import numpy as np
from tflite_runtime.interpreter import Interpreter

said = {}
for path in sys.argv[2:]:
    try:
        lite = Interpreter(model_path=path)
        lite.allocate_tensors()
        (entry,), (result,) = lite.get_input_details(), lite.get_output_details()
        rows = []
        for sample in np.load(sys.argv[1]):
            lite.set_tensor(entry["index"], sample[None])
            lite.invoke()
            rows.append(lite.get_tensor(result["index"])[0].tolist())
        said[path] = rows
    except ValueError as error:
        said[path] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="session")
def old_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with tflite-runtime 2.14 and numpy 1."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("tflite-runtime 2.14 has wheels up to Python 3.11 only")
    folder = tmp_path_factory.mktemp("old") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    packages = ["tflite-runtime==2.14.0", "numpy<2"]
    done = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"pip can't install tflite-runtime 2.14: {done.stderr.strip()[-200:]}")
    return python


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lite")
    made = {}
    for name, numerics, per_channel in (
        ("fp32", "fp32", True),
        ("int8", "int8", True),
        ("per-tensor", "int8-dynamic", False),
        ("per-channel", "int8-dynamic", True),
    ):
        made[name] = folder / f"{name}.tflite"
        write_tflite(cnn(numerics), made[name], batch=1, per_channel=per_channel)
    return made


@pytest.fixture(scope="session")
def said(old_python: Path, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory):
    """What the old runtime gives for each file: its outputs, or its refusal."""
    (batch,) = evaluation_batches(digits(), SAMPLES)
    samples = tmp_path_factory.mktemp("samples") / "x.npy"
    np.save(samples, batch[0].transpose(0, 2, 3, 1))
    paths = {name: str(path) for name, path in files.items()}
    done = subprocess.run(
        [old_python, "-c", RUN, samples, *paths.values()],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    return {name: found[path] for name, path in paths.items()}


# Integer kernels round alike but for single steps; measured: equal, 45 dB, 48 dB.
@pytest.mark.parametrize(("name", "floor"), [("fp32", 100), ("int8", 30), ("per-tensor", 35)])
def test_the_old_runtime_gives_what_the_new_one_does(files, said, name, floor):
    numerics = {"per-tensor": "int8-dynamic"}.get(name, name)
    (wanted,) = artifact_runner(files[name], cnn(numerics))(*evaluation_batches(digits(), SAMPLES))
    noise = float(((np.array(said[name]) - wanted) ** 2).sum())
    signal = float((wanted**2).sum())
    assert noise <= signal * 10 ** (-floor / 10)
    assert oldest_runtime_blockers(files[name]) == []


def test_what_it_refuses_is_what_we_say(files, said):
    assert "'FULLY_CONNECTED' version '12'" in said["per-channel"]
    (blocker,) = oldest_runtime_blockers(files["per-channel"])
    assert "FULLY_CONNECTED version 12" in blocker


@pytest.fixture(scope="session")
def agent(old_python: Path, tmp_path_factory: pytest.TempPathFactory):
    """What the agent, as the one file that a board gets, answers in the old environment."""
    folder = tmp_path_factory.mktemp("agent")
    path = folder / archive.name()
    path.write_bytes(archive.build())

    def ask(*words: str | Path) -> dict:
        done = subprocess.run(
            [old_python, path, *words], cwd=folder, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return json.loads(done.stdout)["result"]

    return ask


def test_the_agent_measures_with_the_old_runtime(agent, files):
    probed = agent("probe")
    assert probed["runtimes"] == {"tflite-runtime": "2.14.0"}
    assert probed["numpy"].startswith("1.")
    float32, int8 = agent("memory", files["fp32"], files["int8"])["files"]
    for file in (float32, int8):
        assert file["runtime"] == "tflite-runtime 2.14.0"
        assert len(file["peak"]) == 3
        assert min(file["peak"]) > min(file["base"]) > 0
        assert len(set(file["arenas"])) == 1
    assert 0 < int8["arena"]["bytes"] < float32["arena"]["bytes"]
    (file,) = agent("latency", "--block-seconds", "0.1", "--max-blocks", "5", files["int8"])[
        "files"
    ]
    assert len(file["blocks"]) == 5
    assert all(block["p50"] > 0 for block in file["blocks"])


def test_the_agent_gives_what_the_new_runtime_does(agent, files, tmp_path):
    (batch,) = evaluation_batches(digits(), SAMPLES)
    np.savez(tmp_path / "x.npz", batch[0])  # NCHW, as the data is: the agent turns it
    result = agent(
        *("run", "--inputs", tmp_path / "x.npz", "--outputs", tmp_path / "y.npz", files["fp32"])
    )
    (told,) = result["outputs"]
    with np.load(tmp_path / "y.npz") as outputs:
        found = outputs[told["name"]]
    (wanted,) = artifact_runner(files["fp32"], cnn("fp32"))(*evaluation_batches(digits(), SAMPLES))
    assert list(found.shape) == told["shape"] == [SAMPLES, 10]
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.ptp(wanted))
