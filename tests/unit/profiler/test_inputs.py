# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest

from edgeprune.errors import InputError
from edgeprune.profiler.inputs import random_inputs, real_inputs
from edgeprune.profiler.runtime import TensorSpec

IMAGE = TensorSpec("image", ("batch", 4, 6, 3), "float32")
TOKENS = TensorSpec("tokens", (1, 5), "int32")


def test_random_inputs_follow_the_seed() -> None:
    one, other = random_inputs([IMAGE, TOKENS], 1), random_inputs([IMAGE, TOKENS], 2)
    again = random_inputs([IMAGE, TOKENS], 1)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[0], other[0])
    assert one[0].shape == (1, 4, 6, 3)
    assert one[0].dtype == np.float32


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("int64", 0, 1), ("int32", 0, 1), ("bool", 0, 1), ("int8", -128, 127), ("uint8", 0, 255)],
)
def test_integers_span_what_their_type_is_used_for(dtype: str, low: int, high: int) -> None:
    (array,) = random_inputs([TensorSpec("x", (1, 5000), dtype)], 0)
    assert (int(array.min()), int(array.max())) == (low, high)
    assert array.dtype.name == dtype


def test_a_dynamic_length_needs_real_inputs() -> None:
    with pytest.raises(InputError, match="input x has a dynamic dimension 'length'"):
        random_inputs([TensorSpec("x", (1, "length"), "float32")], 0)


def test_real_inputs_by_name_cut_to_a_batch(tmp_path: Path) -> None:
    image = np.arange(2 * 4 * 6 * 3, dtype="float64").reshape(2, 4, 6, 3)
    np.savez(tmp_path / "x.npz", tokens=np.ones((3, 5), "int64"), image=image)
    first, second = real_inputs([IMAGE, TOKENS], tmp_path / "x.npz")
    np.testing.assert_array_equal(first, image[:1].astype("float32"))
    assert (first.dtype.name, second.dtype.name) == ("float32", "int32")
    assert second.shape == (1, 5)


def test_real_inputs_in_order_turned_to_the_layout(tmp_path: Path) -> None:
    channels_first = np.arange(2 * 3 * 4 * 6, dtype="float32").reshape(2, 3, 4, 6)
    np.savez(tmp_path / "x.npz", channels_first)
    (image,) = real_inputs([IMAGE], tmp_path / "x.npz")
    np.testing.assert_array_equal(image, channels_first[:1].transpose(0, 2, 3, 1))
    assert image.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.ones((1, 5), "int32"), "more": np.ones(1)}, "holds other, more"),
        ({"tokens": np.ones((1, 6), "int32")}, "input tokens is int32 1x5, the array is int32 1x6"),
        ({"tokens": np.ones((1, 5), "float32")}, "the array is float32 1x5"),
    ],
)
def test_wrong_arrays_are_named(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=message):
        real_inputs([TOKENS], tmp_path / "x.npz")


@pytest.mark.parametrize("content", [None, b"", b"no zip", b"PK\x03\x04 broken"])
def test_no_npz(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"can't be read as \.npz"):
        real_inputs([TOKENS], path)


def test_pickles_in_npz_are_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", tokens=np.array([[{}]], dtype=object))
    with pytest.raises(InputError, match=r"holds Python objects"):
        real_inputs([TOKENS], tmp_path / "x.npz")


def test_a_single_npy_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 5), "int32"))
    with pytest.raises(InputError, match=r"can't be read as \.npz"):
        real_inputs([TOKENS], tmp_path / "x.npy")
