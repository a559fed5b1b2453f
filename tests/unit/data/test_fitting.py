# SPDX-License-Identifier: Apache-2.0
"""Data in the types and along the axes that a model takes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgeprune.data import open_data
from edgeprune.errors import DataError
from edgeprune.model import Wanted
from edgeprune.profiler.inputs import real_inputs
from edgeprune.profiler.runtime import TensorSpec
from tests.unit.data.pictures import folder, png

X = np.random.default_rng(0).random((12, 5, 3), np.float32)


def npz(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path / "a.npz", **arrays)
    return str(path / "a.npz")


def spec(path: Path, text: str, **arrays: np.ndarray) -> str:
    npz(path, **arrays)
    head = 'schema_version = 1\nname = "a"\n[source]\nkind = "npz"\npath = "a.npz"\n'
    (path / "a.toml").write_text(head + text)
    return str(path / "a.toml")


def takes(*shape: int | None, dtype: torch.dtype = torch.float32, **more) -> Wanted:
    return Wanted(more.pop("name", None), shape, dtype, **more)


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "int64", "uint8", "bool", "float16", "float32", "float64"]
)
def test_the_very_type_goes_through(dtype, tmp_path):
    values = np.arange(24).reshape(12, 2).astype(dtype)
    wanted = (takes(None, 2, dtype=getattr(torch, dtype)),)
    data = open_data(npz(tmp_path, x=values), seed=0, wanted=wanted)
    got = torch.cat([b.inputs[0] for b in data.evaluation(4)])
    assert str(got.dtype) == f"torch.{dtype}"
    assert {tuple(row) for row in got.tolist()} <= {tuple(row) for row in values.tolist()}
    assert not any("cast" in note for note in data.notes)


@pytest.mark.parametrize(
    ("given", "dtype", "largest"),
    [("int64", torch.int32, 19), ("uint8", torch.int16, 255), ("int64", torch.bool, 1)],
)
def test_whole_numbers_of_another_type_are_cast_where_all_fit(given, dtype, largest, tmp_path):
    values = (np.arange(24) % (largest + 1)).reshape(12, 2).astype(given)
    data = open_data(npz(tmp_path, x=values), seed=0, wanted=(takes(None, 2, dtype=dtype),))
    assert data.example()[0].dtype == dtype
    kind = str(dtype).removeprefix("torch.")
    assert any(f"{given} cast to {kind}" in note for note in data.notes)


@pytest.mark.parametrize(
    ("values", "dtype", "why"),
    [
        (np.full((12, 2), 300), torch.uint8, "has values of 300 to 300, but the model takes uint8"),
        (np.full((12, 2), 2), torch.bool, "the model takes bool there (0 to 1)"),
        (np.full((12, 2), -1), torch.uint8, "has values of -1 to -1"),
        (np.full((12, 2), 0.5), torch.int32, "has type float64, but the model takes int32"),
        (np.full((12, 2), 2**40), torch.float32, "which float32 can't hold exactly"),
    ],
)
def test_what_does_not_fit_is_refused(values, dtype, why, tmp_path):
    with pytest.raises(DataError) as error:
        open_data(npz(tmp_path, x=values), seed=0, wanted=(takes(None, 2, dtype=dtype),))
    assert why in str(error.value)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_a_model_that_takes_integers_is_fed_the_bytes_of_pictures(dtype, tmp_path):
    root = folder(tmp_path / "p", {f"{i}.png": png(10 * i, (8, 8)) for i in range(12)})
    data = open_data(str(root), seed=0, wanted=(takes(None, 3, 8, 8, dtype=dtype),))
    (images,) = data.example()
    assert images.dtype == dtype
    assert images.shape == (2, 3, 8, 8)
    assert set(images.unique().tolist()) <= {10 * i for i in range(12)}
    assert data.preprocessing["scale"] == 1.0
    assert any("bytes 0 to 255" in note for note in data.notes)
    with pytest.raises(DataError, match="don't fit the model's int8"):
        open_data(str(root), seed=0, wanted=(takes(None, 3, 8, 8, dtype=torch.int8),))


def test_values_taken_as_integers_cannot_be_scaled(tmp_path):
    pictures = np.zeros((12, 3, 8, 8), np.uint8)
    name = spec(tmp_path, '[preprocessing]\nscale = "1/255"\n', x=pictures)
    with pytest.raises(DataError, match="leave preprocessing"):
        open_data(name, seed=0, wanted=(takes(None, 3, 8, 8, dtype=torch.uint8),))


STATE = np.arange(2 * 12 * 4, dtype=np.float32).reshape(2, 12, 4)
BOTH = (takes(None, 5, 3, name="x"), takes(2, None, 4, axis=1, name="state"))


@pytest.mark.parametrize("state", [STATE, STATE.transpose(1, 0, 2)])
def test_samples_lie_where_the_model_has_its_batch(state, tmp_path):
    data = open_data(npz(tmp_path, x=X, state=state), seed=0, wanted=BOTH)
    assert data.axes == (0, 1)
    seen = 0
    for batch in (*data.calibration(4, 99), *data.holdout(4), *data.evaluation(4)):
        x, part = batch.inputs
        assert part.shape == (2, len(batch), 4)
        rows = [int(np.flatnonzero((sample == X).all((1, 2)))[0]) for sample in x.numpy()]
        np.testing.assert_array_equal(part, STATE[:, rows])
        seen += len(rows)
    assert seen == 12
    assert [tuple(t.shape) for t in data.example()] == [(2, 5, 3), (2, 2, 4)]


def test_the_spec_says_where_the_samples_lie(tmp_path):
    text = 'inputs = ["x", "state", "m"]\nbatch_axis = [0, 1, "none"]\n'
    name = spec(tmp_path, text, x=X, state=STATE, m=np.eye(4))
    data = open_data(name, seed=0)
    assert data.axes == (0, 1, None)
    x, state, matrix = next(data.evaluation(2)).inputs
    assert (x.shape, state.shape) == ((2, 5, 3), (2, 2, 4))
    np.testing.assert_array_equal(matrix, np.eye(4, dtype=np.float32))
    for axes, why in (("[0]", "1 entries for 3 inputs"), ("[0, 5, 0]", "which has 3 dimensions")):
        bad = spec(tmp_path, text.replace('[0, 1, "none"]', axes), x=X, state=STATE, m=np.eye(4))
        with pytest.raises(DataError, match=why):
            open_data(bad, seed=0)


@pytest.mark.parametrize("m", [np.eye(4), np.tile(np.eye(4), (12, 1, 1))])
def test_an_input_without_a_batch_is_given_whole(m, tmp_path):
    name = spec(tmp_path, 'inputs = ["x", "m", "s"]\n', x=X, m=m, s=np.float32(2))
    wanted = (takes(None, 5, 3), takes(4, 4, axis=None), takes(axis=None))
    data = open_data(name, seed=0, wanted=wanted)
    _, matrix, scalar = next(data.evaluation(2)).inputs
    assert matrix.tolist() == np.eye(4).tolist()
    assert scalar.shape == ()
    rising = np.arange(12 * 16, dtype=np.float32).reshape(12, 4, 4)
    bad = spec(tmp_path, 'inputs = ["x", "m", "s"]\n', x=X, m=rising, s=np.float32(2))
    with pytest.raises(DataError, match="has a value for each sample, but the model takes one"):
        open_data(bad, seed=0, wanted=wanted)


def test_a_fixed_batch_of_one_is_told_by_the_data(tmp_path):
    wanted = (takes(1, 5, 3, fixed=True, name="x"), takes(2, 1, 4, axis=1, fixed=True, name="s"))
    data = open_data(npz(tmp_path, x=X, s=STATE), seed=0, wanted=wanted)
    assert data.axes == (0, 1)


class Items:
    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int):
        return (X[i], STATE[:, i])


@pytest.mark.parametrize("memory", [2**30, 0])
def test_a_dataset_gives_samples_and_batches_lie_as_the_model_takes_them(
    memory, tmp_path, monkeypatch
):
    (tmp_path / "my_items.py").write_text(
        "from tests.unit.data.test_fitting import Items\ndef make(): return Items()\n"
    )
    monkeypatch.chdir(tmp_path)
    data = open_data("my_items:make", seed=0, wanted=BOTH, memory=memory)
    x, state = next(data.evaluation(2)).inputs
    rows = [int(np.flatnonzero((sample == X).all((1, 2)))[0]) for sample in x.numpy()]
    np.testing.assert_array_equal(state, STATE[:, rows])


def test_real_inputs_are_cut_along_the_batch(tmp_path):
    path = Path(npz(tmp_path, x=X, state=STATE))
    for batch in (1, "batch"):
        specs = (
            TensorSpec("x", (batch, 5, 3), "float32"),
            TensorSpec("state", (2, batch, 4), "float32"),
        )
        x, state = real_inputs(specs, path)
        np.testing.assert_array_equal(x, X[:1])
        np.testing.assert_array_equal(state, STATE[:, :1])
