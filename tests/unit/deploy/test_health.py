# SPDX-License-Identifier: Apache-2.0
"""How outputs of a device are held against the expected ones."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.deploy.health import Expected, ExpectedOutput, compare, read_batch
from edgeprune.errors import CheckFailed, InputError

SCORES = np.array([[0.5, -1.0, 2.0]], "float32")


def expected(tolerance: float | None) -> Expected:
    output = ExpectedOutput(name="scores", tolerance=tolerance, why="a test")
    return Expected(runtime="none", inputs=("x",), outputs=(output,))


def check(got: np.ndarray, tolerance: float | None = 1e-3, wanted: np.ndarray = SCORES) -> float:
    (difference,) = compare("m.onnx", expected(tolerance), [wanted], {"scores": got})
    return difference.largest


@given(st.floats(-2.0, 2.0, width=32), st.floats(0.0, 1.0, width=32))
def test_a_difference_passes_up_to_its_tolerance_and_no_further(
    shift: float, tolerance: float
) -> None:
    wanted = np.zeros((1, 2))
    got = np.array([[0.0, shift]])
    if abs(shift) <= tolerance:
        assert check(got, tolerance, wanted) == abs(shift)
    else:
        with pytest.raises(CheckFailed, match=r"m\.onnx, output scores: off by up to"):
            check(got, tolerance, wanted)


def test_the_message_has_both_figures_and_the_reason() -> None:
    with pytest.raises(CheckFailed, match=r"up to 0\.5; 0\.001 is allowed \(a test\)"):
        check(SCORES + np.float32(0.5))


@pytest.mark.parametrize(
    ("got", "message"),
    [
        (SCORES[:, :2], r"gives float32 \(1, 2\), float32 \(1, 3\) was expected"),
        (SCORES.astype("float64"), "gives float64"),
        (np.array([[0.5, np.nan, 2.0]], "float32"), "1 values are NaN or infinite on the device"),
    ],
)
def test_another_kind_of_output_fails_whatever_is_allowed(got: np.ndarray, message: str) -> None:
    for tolerance in (100.0, None):
        with pytest.raises(CheckFailed, match=message):
            check(got, tolerance)


def test_a_missing_output_fails() -> None:
    with pytest.raises(CheckFailed, match="gives no such output"):
        compare("m.onnx", expected(1.0), [SCORES], {"other": SCORES})


def test_nan_is_right_where_it_is_expected() -> None:
    wanted = np.array([[np.nan, 1.0, np.inf]], "float32")
    assert check(wanted.copy(), 0.0, wanted) == 0.0
    with pytest.raises(CheckFailed, match="NaN or infinite elsewhere are others"):
        check(np.array([[np.nan, 1.0, -np.inf]], "float32"), 9.0, wanted)
    with pytest.raises(CheckFailed, match="NaN or infinite elsewhere are others"):
        check(np.array([[0.0, 1.0, np.inf]], "float32"), 9.0, wanted)


def test_values_that_rounding_may_change_are_not_compared() -> None:
    assert check(SCORES + np.float32(9), None) == 9.0


def test_the_batch_comes_back_by_place(tmp_path: Path) -> None:
    path = tmp_path / "health.npz"
    inputs, outputs = np.zeros((1, 2)), np.ones((1, 3))
    np.savez(path, **{"m.onnx:input:0": inputs, "m.onnx:output:0": outputs})
    batch = read_batch(path, "m.onnx", expected(1.0))
    assert np.array_equal(batch.inputs[0], inputs)
    assert np.array_equal(batch.outputs[0], outputs)
    with pytest.raises(InputError, match=r"has no array 'other\.onnx:input:0'"):
        read_batch(path, "other.onnx", expected(1.0))
    path.write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"can.t be read as"):
        read_batch(path, "m.onnx", expected(1.0))
