# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.measure.simulator import Drift, compare


def outputs(*values: float, kind: type = np.float32) -> dict[str, np.ndarray]:
    return {"y": np.array([values], kind)}


def test_equal_outputs_are_told_bit_for_bit() -> None:
    drift = compare(outputs(1, 2), outputs(1, 2), {"y": 0.5})
    assert drift == Drift(2, 0, 0.0, 0.0)
    assert str(drift) == "bit for bit (2 values)"
    assert not drift.wrong


def test_quantized_outputs_differ_in_steps() -> None:
    drift = compare(outputs(1, 2, 4), outputs(1, 2.5, 3), {"y": 0.5})
    assert (drift.differ, drift.steps) == (2, 2.0)
    assert str(drift) == ("but for 2 of 3 values, which differ by at most 2 quantization steps")
    one = compare(outputs(1.0), outputs(1.5), {"y": 0.5})
    assert str(one).endswith("at most 1 quantization step")


def test_stored_integers_have_a_step_of_one() -> None:
    """Also where the difference doesn't fit their own type."""
    drift = compare(outputs(-128, kind=np.int8), outputs(127, kind=np.int8), {"y": 0.01})
    assert drift.steps == 255
    assert drift.wrong


def test_float_outputs_differ_by_a_share_of_the_magnitude() -> None:
    drift = compare(outputs(100, 0.5), outputs(100, 1.5), {"y": None})
    assert drift.steps is None
    assert drift.relative == pytest.approx(0.01)
    assert str(drift).endswith("at most 0.01 of the largest magnitude")
    assert drift.wrong
    assert not compare(outputs(1.0), outputs(1.0000001), {"y": None}).wrong


def test_one_output_without_a_step_makes_all_relative() -> None:
    ours = outputs(1.0) | {"z": np.zeros((1, 2), np.float32)}
    theirs = outputs(1.5) | {"z": np.zeros((1, 2), np.float32)}
    assert compare(ours, theirs, {"y": 0.5, "z": None}).steps is None


def test_zeros_are_compared_too() -> None:
    assert compare(outputs(0.0), outputs(0.0), {"y": 0.5}) == Drift(1, 0, 0.0, 0.0)


@given(
    stored=st.lists(st.tuples(st.integers(-128, 127), st.integers(-128, 127)), min_size=1),
    step=st.floats(1e-4, 10),
)
def test_steps_are_what_integers_differ_by(stored: list[tuple[int, int]], step: float) -> None:
    """Dequantized to float32 and back."""
    one, other = (np.array([pair[k] for pair in stored]) for k in (0, 1))
    drift = compare(
        {"y": (one * step).astype(np.float32)},
        {"y": (other * step).astype(np.float32)},
        {"y": step},
    )
    assert drift.steps == np.abs(one - other).max()
    assert drift.differ == np.count_nonzero(one != other)
