# SPDX-License-Identifier: Apache-2.0
"""Arrays: what ``.npz`` files and dictionaries of arrays become."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.data import Data, open_data
from edgeprune.errors import DataError

X = np.arange(60, dtype=np.float64).reshape(20, 3)
Y = np.arange(20) % 2


def npz(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "a.npz", **arrays)
    return str(folder / "a.npz")


def spec(folder: Path, text: str, **arrays: Any) -> str:
    npz(folder, **arrays)
    path = folder / "mine.toml"
    path.write_text(
        'schema_version = 1\nname = "mine"\n'
        + text.replace("[source]", '[source]\nkind = "npz"\npath = "a.npz"')
    )
    return str(path)


def everything(data: Data) -> list[tuple[torch.Tensor, ...]]:
    parts = (data.train(7, seed=0, epoch=0), data.holdout(7), data.evaluation(7))
    return [batch.inputs for part in parts for batch in part]


@pytest.mark.parametrize("inputs", ["x", "X", "images", "data", "inputs", "anything"])
@pytest.mark.parametrize("labels", ["y", "labels", "target"])
def test_usual_names_are_found(tmp_path: Path, inputs: str, labels: str) -> None:
    data = open_data(npz(tmp_path, **{inputs: X, labels: Y}), seed=0)
    assert data.labelled
    assert data.sizes == {"train": 14, "holdout": 2, "calibration": 14, "evaluation": 4}
    batch = next(data.evaluation(4))
    assert batch.inputs[0].dtype == torch.float32
    assert batch.labels is not None
    assert batch.labels.dtype == torch.int64
    rows = [int(row[0]) // 3 for row in batch.inputs[0]]
    assert batch.labels.tolist() == [Y[row] for row in rows]
    assert data.preprocessing is None


def test_without_labels_there_are_none(tmp_path: Path) -> None:
    data = open_data(npz(tmp_path, x=X), seed=0)
    assert not data.labelled
    assert next(data.evaluation(4)).labels is None
    assert data.largest_label is None


@pytest.mark.parametrize("pattern", ["{0}_{1}", "{1}_{0}"])
@pytest.mark.parametrize("other", ["test", "val"])
def test_splits_are_in_the_names(tmp_path: Path, pattern: str, other: str) -> None:
    arrays = {
        pattern.format(name, split): array[part]
        for name, array in (("x", X), ("y", Y))
        for split, part in (("train", slice(0, 15)), (other, slice(15, 20)))
    }
    data = open_data(npz(tmp_path, **arrays), seed=0)
    assert data.sizes["evaluation"] == 5
    batch = next(data.evaluation(5))
    assert torch.equal(batch.inputs[0], torch.tensor(X[15:], dtype=torch.float32))


def test_several_inputs_keep_the_specs_order(tmp_path: Path) -> None:
    arrays = {"input_ids": np.ones((20, 5), np.int32), "attention_mask": np.zeros((20, 5), bool)}
    data = open_data(npz(tmp_path, label=Y, **arrays), seed=0)
    first, second = data.example()
    assert (first.dtype, second.dtype) == (torch.int64, torch.bool)
    assert first.shape == (2, 5)
    text = '[source]\ninputs = ["attention_mask", "input_ids"]\n'
    second, first = open_data(spec(tmp_path, text, **arrays), seed=0).example()
    assert (first.dtype, second.dtype) == (torch.int64, torch.bool)


def test_eight_bit_images_are_scaled_and_turned(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3)).astype(np.uint8)
    data = open_data(npz(tmp_path, x=pixels), seed=0)
    found = torch.cat([inputs for (inputs,) in everything(data)])
    assert found.shape == (20, 3, 6, 5)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    wanted = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    assert np.allclose(np.sort(found.numpy(), 0), np.sort(wanted, 0), atol=1e-5)
    assert data.preprocessing is not None
    assert data.preprocessing == {
        "scale": 1 / 255,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "layout": "NCHW",
        "input_size": [6, 5],
        "channels": 3,
        "formula": "(value * scale - mean) / std",
    }
    assert any("ImageNet" in note for note in data.notes)
    assert any("NHWC" in note for note in data.notes)


def test_the_specs_preprocessing_is_applied(tmp_path: Path) -> None:
    pixels = np.full((20, 4, 4), 100, np.uint8)
    text = "[source]\n[preprocessing]\nscale = 0.01\nmean = [0.5]\nstd = [2.0]\n"
    text += 'layout = "NHWC"\n'
    data = open_data(spec(tmp_path, text, x=pixels), seed=0)
    (batch,) = data.example()
    assert batch.shape == (2, 4, 4, 1)
    assert torch.allclose(batch, torch.tensor(0.25))


def test_float_images_stay_as_they_are(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20, 3, 4, 4)).astype(np.float32)
    (batch,) = open_data(npz(tmp_path, x=x), seed=0).example()
    assert any(np.array_equal(batch[0].numpy(), row) for row in x)


def bad(array: np.ndarray, row: int, value: float) -> np.ndarray:
    changed = array.copy()
    changed[row] = value
    return changed


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": bad(X, 7, np.nan), "y": Y}, "array 'x' has a value in row 7 that isn't finite"),
        ({"x": bad(X, 7, 1e300), "y": Y}, "row 7 that isn't finite"),
        ({"x": X, "y": bad(Y, 5, -1)}, "label -1 in row 5 is out of range; allowed: 0 and more"),
        ({"x": X, "y": Y[:19]}, "labels 'y' have 19 rows for 20 inputs"),
        ({"x": X, "y": Y + 0.5}, "they must be integer class indices"),
        ({"x": X, "y": np.eye(20)}, "one class index a sample is needed"),
        ({"x": X.astype(str), "y": Y}, "allowed: floats, integers, bool"),
        ({"x": X + 1j, "y": Y}, "has type complex128"),
        ({"x": X[:0], "y": Y[:0]}, "array 'x' has no rows"),
        ({"x": np.float32(1)}, "single value"),
        ({"a": X, "b": X, "y": Y}, "can't tell the inputs among a, b, y"),
        ({"input_ids": X, "attention_mask": X[:9]}, "'attention_mask' has 9 rows and 'input_ids'"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "evaluation split has no labels"),
        ({"x_train": X, "x_test": X[:, :2]}, "training samples are float32[3], evaluation"),
        ({"x": X[:2]}, "2 training and 0 evaluation samples; needed are at least 2 and 1"),
        ({}, "no .npz file"),
    ],
)
def test_unusable_arrays_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as error:
        open_data(npz(tmp_path, **arrays), seed=0)
    assert message in str(error.value)
    assert "a.npz" in str(error.value)


def test_labels_outside_the_specs_classes_are_named(tmp_path: Path) -> None:
    text = "[source]\nclasses = 2\n"
    with pytest.raises(DataError, match="label 2 in row 3 is out of range; allowed: 0 to 1"):
        open_data(spec(tmp_path, text, x=X, y=bad(Y, 3, 2)), seed=0)


def test_bad_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    text = 'on_error = "skip"\n[source]\nclasses = 2\n'
    name = spec(tmp_path, text, x=bad(X, 4, np.inf), y=bad(bad(Y, 5, 2), 6, -1))
    data = open_data(name, seed=0)
    assert sum(data.sizes[part] for part in ("train", "holdout", "evaluation")) == 17
    rows = {int(row[0]) // 3 for (inputs,) in everything(data) for row in inputs}
    assert not rows & {4, 5, 6}
    assert "3 rows with bad values or labels were left out" in data.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[source]\ninputs = ["z"]\n', "no array or column 'z'"),
        ('[source]\nlabels = "yy"\n', "did you mean 'y'"),
        ('[source]\ntrain = "fit"\n', "no arrays for split 'fit'"),
        ('[source]\nlayout = "NHWC"\n', "source.layout is NHWC, but the first input has shape"),
        ("[source]\n[preprocessing]\nresize = 4\n", "are for image files"),
        ("[source]\n[preprocessing]\nmean = [0, 0]\nstd = [1, 1]\n", "2 values for 3 channels"),
        ('[source]\n[preprocessing]\nlayout = "NHWC"\n', "preprocessing.layout is for images"),
        ('augment = "flip-shift"\n[source]\n', "augment = 'flip-shift' needs images"),
    ],
)
def test_an_option_that_cant_work_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        open_data(spec(tmp_path, text, x=X, y=Y), seed=0)
    assert message in str(error.value)


def write_member(path: Path, content: bytes) -> str:
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("x.npy", content)
    return str(path)


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_pickles_are_never_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([pickle.dumps(1), None], object), allow_pickle=True)
    with pytest.raises(DataError, match="array 'x' holds Python objects"):
        open_data(write_member(tmp_path / "a.npz", stream.getvalue()), seed=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("(1000000000000,)"), "is truncated"),
        (header("(4,)") + b"12", "is truncated"),
        (header("(4, nonsense)"), "can't be read"),
        (b"no array", "can't be read"),
        (b"", "can't be read"),
    ],
)
def test_broken_members_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError) as error:
        open_data(write_member(tmp_path / "a.npz", content), seed=0)
    assert f"a.npz: array 'x' {message}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"text"])
def test_what_is_no_npz_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.npz: can't be read as \.npz"):
        open_data(str(path), seed=0)
