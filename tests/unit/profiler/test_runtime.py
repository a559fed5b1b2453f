# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import DeviceError, InputError
from edgeprune.profiler.formats import detect_format
from edgeprune.profiler.runtime import TensorSpec, open_session
from tests.unit.profiler import models

ROOT = Path(__file__).parents[3]


def rows(count: int) -> np.ndarray:
    return np.arange(count * 8, dtype="float32").reshape(count, 8)


@pytest.mark.parametrize("batch", [1, 2, "n"])
def test_onnx_runs_any_batch_as_its_samples(tmp_path: Path, batch: int | str) -> None:
    session = open_session(models.chain(tmp_path / "m.onnx", batch=batch))
    assert session.inputs == (TensorSpec("x", (batch, 8), "float32"),)
    assert session.outputs == (TensorSpec("y", (batch, 8), "float32"),)
    assert session.runtime.startswith("onnxruntime ")
    (together,) = session.run([rows(5)])
    alone = [session.run([rows(5)[k : k + 1]])[0] for k in range(5)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-6)
    assert together.shape == (5, 8)


def test_a_resizable_tflite_is_resized(tmp_path: Path) -> None:
    session = open_session(models.sums(tmp_path / "m.tflite", ["output_0", "output_1"]))
    for count in (1, 5, 3, 1):
        first, second = session.run([rows(count)])
        np.testing.assert_array_equal(first, rows(count))
        np.testing.assert_array_equal(second, rows(count) + 1)


def test_a_tflite_that_cannot_be_resized_runs_in_chunks(tmp_path: Path) -> None:
    session = open_session(models.reshaped(tmp_path / "m.tflite"))
    for count in (3, 1, 4):
        (result,) = session.run([rows(count)])
        np.testing.assert_array_equal(result, rows(count).reshape(count, 2, 4))


def test_outputs_follow_the_numbers_of_the_signature(tmp_path: Path) -> None:
    names = [f"output_{k}" for k in range(12)]
    session = open_session(models.sums(tmp_path / "m.tflite", names))
    assert [spec.name for spec in session.inputs] == ["args_0"]
    assert [spec.name for spec in session.outputs] == names
    for k, result in enumerate(session.run([rows(1)])):
        np.testing.assert_array_equal(result, rows(1) + k)


def test_without_a_signature_the_graph_names_and_orders(tmp_path: Path) -> None:
    path = models.sums(tmp_path / "m.tflite", ["output_0", "output_1"], signature=False)
    session = open_session(path)
    assert [spec.name for spec in session.outputs] == ["sum1", "sum0"]
    np.testing.assert_array_equal(session.run([rows(1)])[0], rows(1) + 1)


def test_unnumbered_signature_names_keep_the_order_of_the_graph(tmp_path: Path) -> None:
    session = open_session(models.sums(tmp_path / "m.tflite", ["alpha", "beta", "gamma"]))
    assert [spec.name for spec in session.outputs] == ["gamma", "beta", "alpha"]
    np.testing.assert_array_equal(session.run([rows(1)])[0], rows(1) + 2)


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    assert detect_format(models.sums(tmp_path / "m.onnx", ["y"])) == "tflite"
    assert detect_format(models.chain(tmp_path / "m.tflite")) == "onnx"


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04" + bytes(60), b"\x00" * 64, b"\xff" * 64, b"hello, this is no model at all"],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="neither an ONNX nor a TFLite") as error:
        open_session(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_truncated_onnx_is_refused(tmp_path: Path, cut: int) -> None:
    path = models.chain(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(InputError):
        open_session(path)


def test_a_broken_tflite_is_refused_quietly(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = models.sums(tmp_path / "m.tflite", ["y"])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="refuses it") as error:
        open_session(path)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nope\.onnx: can't be read: No such file"):
        open_session(tmp_path / "nope.onnx")


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [rows(1), rows(1)],
        [rows(1).astype("float64")],
        [rows(1)[:, :7]],
        [rows(1)[0]],
        [rows(1)[:0]],
    ],
)
@pytest.mark.parametrize("warm", [False, True])
def test_wrong_inputs_are_named(tmp_path: Path, arrays: list[np.ndarray], warm: bool) -> None:
    for path in (models.chain(tmp_path / "m.onnx"), models.sums(tmp_path / "m.tflite", ["y"])):
        session = open_session(path)
        if warm:
            session.run([rows(1)])
        with pytest.raises(InputError, match=path.name):
            session.run(arrays)


def test_an_output_without_batch_is_not_put_together(tmp_path: Path) -> None:
    session = open_session(models.flattened(tmp_path / "m.onnx"))
    assert session.run([rows(1)])[0].shape == (8,)
    with pytest.raises(InputError, match="output y has no batch dimension"):
        session.run([rows(2)])


def test_a_failing_run_is_a_device_error(tmp_path: Path) -> None:
    session = open_session(models.lookup(tmp_path / "m.onnx"))
    with pytest.raises(DeviceError, match=r"m\.onnx: onnxruntime .* failed"):
        session.run([np.full((1, 6), 2)])


def test_loading_and_running_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (models.chain(tmp_path / "m.onnx"), models.sums(tmp_path / "m.tflite", ["y"])):
        open_session(path).run([rows(3)])
    assert capfd.readouterr() == ("", "")


def test_nothing_is_written_into_the_home_folder(tmp_path: Path) -> None:
    """The runtime would leave an identity of the machine there, to report its use by."""
    models.chain(tmp_path / "a.onnx")
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from pathlib import Path; from edgeprune.profiler.runtime import open_session;"
        "open_session(Path(sys.argv[1]))"
    )
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path / "a.onnx")]
    subprocess.run(command, env=environment, check=True)
    assert list(home.rglob("*")) == []
