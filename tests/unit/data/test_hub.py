# SPDX-License-Identifier: Apache-2.0
"""Hugging Face ``datasets`` folders."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgeprune.data import open_data
from edgeprune.errors import DataError, MissingExtra

datasets = pytest.importorskip("datasets")


def saved(folder: Path, made: Any) -> str:
    datasets.disable_progress_bars()
    made.save_to_disk(str(folder / "hub"))
    return str(folder / "hub")


def tokens(count: int = 12, **more: list[Any]) -> Any:
    ids = [[i, i + 1, i + 2] for i in range(count)]
    columns = {"input_ids": ids, "attention_mask": [[1, 1, 0]] * count}
    labels = [i % 2 for i in range(count)]
    text = [f"text {i}" for i in range(count)]
    return datasets.Dataset.from_dict({"text": text, **columns, "label": labels, **more})


def pictures(count: int, broken: int | None = None) -> Any:
    images: list[Any] = [Image.new("RGB", (6, 5), (i, 0, 0)) for i in range(count)]
    if broken is not None:
        images[broken] = {"bytes": b"nonsense", "path": None}
    kinds = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    labels = [i % 2 for i in range(count)]
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=kinds)


def test_a_table_of_tokens(tmp_path: Path) -> None:
    data = open_data(saved(tmp_path, tokens()), seed=0)
    assert data.labelled
    assert data.name == "hub"
    for batch in data.train(3, seed=0, epoch=0):
        ids, mask = batch.inputs
        assert ids.dtype == torch.int64
        assert mask.shape == ids.shape
        assert batch.labels is not None
        assert torch.equal(ids[:, 0] % 2, batch.labels)


def test_splits_of_a_dictionary(tmp_path: Path) -> None:
    made = datasets.DatasetDict(train=tokens(8), validation=tokens(4), extra=tokens(2))
    data = open_data(saved(tmp_path, made), seed=0)
    assert data.sizes["evaluation"] == 4
    assert data.sizes["train"] + data.sizes["holdout"] == 8
    assert "left out: extra (no split that is used)" in data.notes


@pytest.mark.parametrize("memory", [2**20, 0])
def test_a_column_of_images(tmp_path: Path, memory: int) -> None:
    made = datasets.DatasetDict(train=pictures(8), test=pictures(4))
    data = open_data(saved(tmp_path, made), seed=0, memory=memory)
    assert data.classes == ("cat", "dog")
    batch = next(data.evaluation(4))
    assert batch.inputs[0].shape == (4, 3, 5, 6)
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 0, 1]
    red = batch.inputs[0][:, 0, 0, 0] * 0.229 + 0.485
    assert np.allclose(red.numpy() * 255, [0, 1, 2, 3], atol=1e-3)


def renamed(count: int, *labels: str) -> Any:
    table = pictures(count).rename_column("label", labels[0])
    for label in labels[1:]:
        table = table.add_column(label, [0] * count)
        table = table.cast_column(label, datasets.ClassLabel(names=["a"]))
    return table


def test_a_column_of_classes_is_the_labels_whatever_its_name(tmp_path: Path) -> None:
    assert open_data(saved(tmp_path, renamed(9, "animal")), seed=0).classes == ("cat", "dog")


def test_a_broken_image_in_a_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all/3: can't be decoded"):
        open_data(saved(tmp_path, pictures(8, broken=3)), seed=0)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: datasets.Dataset.from_dict({"text": ["a"] * 9}), "no column of numbers or images"),
        (
            lambda: datasets.Dataset.from_dict({"input_ids": [[1] * (i + 1) for i in range(9)]}),
            "has type object",
        ),
        (lambda: datasets.DatasetDict(a=tokens(4), b=tokens(4)), "no split named train among a, b"),
        (lambda: renamed(9, "fine", "coarse"), "can't tell the labels among fine, coarse"),
        (lambda: tokens(9).cast_column("label", datasets.Value("float32")), "integer class"),
    ],
)
def test_what_cant_be_used_is_named(tmp_path: Path, made: Any, message: str) -> None:
    with pytest.raises(DataError) as error:
        open_data(saved(tmp_path, made()), seed=0)
    assert message in str(error.value)


def test_a_broken_folder_is_named(tmp_path: Path) -> None:
    name = saved(tmp_path, tokens())
    next(Path(name).glob("*.arrow")).write_bytes(b"nonsense")
    with pytest.raises(DataError, match="can't be read as a datasets folder"):
        open_data(name, seed=0)


def test_without_the_package_the_way_to_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = saved(tmp_path, tokens())
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r"pip install 'edgeprune\[datasets\]'"):
        open_data(name, seed=0)


def test_compressed_batches_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa

    made = datasets.Dataset.from_dict({"x": [[float(i), 0.0] for i in range(12)]})
    made.save_to_disk(str(tmp_path / "hub"))
    assert len(open_data(str(tmp_path / "hub"), seed=0).example()[0]) == 2
    (file,) = (tmp_path / "hub").glob("*.arrow")
    table = pa.ipc.open_stream(pa.BufferReader(file.read_bytes())).read_all()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with file.open("wb") as out, pa.ipc.new_stream(out, table.schema, options=options) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=r"\.arrow is compressed"):
        open_data(str(tmp_path / "hub"), seed=0)
