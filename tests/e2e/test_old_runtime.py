# SPDX-License-Identifier: Apache-2.0
"""tflite-runtime 2.14, the last one, in an environment of its own (it needs numpy < 2)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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
