# SPDX-License-Identifier: Apache-2.0
"""From a name or path to data, with image folders and zips."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.data import Data, checksum, open_data, pool
from edgeprune.errors import ConfigError, DataError
from edgeprune.model import Wanted
from tests.unit.data.pictures import archive, classes, folder, png

SPEC = """
schema_version = 1
name = "mine"
{head}
[source]
kind = "images"
{source}
[preprocessing]
scale = 1
{preprocessing}
"""


def spec(folder: Path, head: str = "", source: str = "", preprocessing: str = "") -> str:
    path = folder / "mine.toml"
    path.write_text(SPEC.format(head=head, source=source, preprocessing=preprocessing))
    return str(path)


def colours(data: Data) -> dict[str, list[tuple[int, int]]]:
    """Colour and label of each sample, by part; needs a spec with scale = 1."""
    parts = {
        "train": data.sample_train(4, 999, 0),
        "holdout": data.holdout(5),
        "evaluation": data.evaluation(5),
    }
    return {
        name: [
            (int(image[0, 0, 0]), int(label))
            for batch in part
            for image, label in zip(
                batch.inputs[0], [] if batch.labels is None else batch.labels, strict=True
            )
        ]
        for name, part in parts.items()
    }


@pytest.fixture(params=["folder", "zip", "wrapped zip"])
def photos(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    files = classes("train", 6) | classes("test", 3)
    if request.param == "folder":
        return folder(tmp_path / "photos", files)
    if request.param == "wrapped zip":
        files = {f"photos/{name}": content for name, content in files.items()}
    return archive(tmp_path / "photos.zip", files)


@pytest.mark.parametrize("memory", [2**20, 0])
def test_images_keep_their_labels(photos: Path, tmp_path: Path, memory: int) -> None:
    data = open_data(spec(tmp_path), seed=1, path=photos, memory=memory)
    assert data.classes == ("cat", "dog", "fox")
    found = colours(data)
    assert {name: len(part) for name, part in found.items()} == {
        "train": 16,
        "holdout": 2,
        "evaluation": 9,
    }
    assert all(colour // 10 == label for part in found.values() for colour, label in part)
    assert sorted(c for c, _ in found["train"] + found["holdout"]) == [
        10 * label + i for label in range(3) for i in range(6)
    ]


def test_without_splits_a_share_is_kept_for_evaluation(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", classes(per_class=10))
    found = colours(open_data(spec(tmp_path), seed=1, path=root))
    every = [colour for part in found.values() for colour, _ in part]
    assert len(set(every)) == len(every) == 30
    assert [sum(label == c for _, label in found["evaluation"]) for c in range(3)] == [2, 2, 2]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", {f"{i}.png": png(i) for i in range(10)})
    data = open_data(str(root), seed=0)
    assert not data.labelled
    assert next(data.evaluation(4)).inputs[0].shape == (2, 3, 8, 8)


def test_a_path_without_a_spec_gets_imagenets_constants_and_says_so(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", {f"{i}.png": png(128) for i in range(10)})
    data = open_data(str(root), seed=0)
    wanted = (128 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(data.example()[0][0, :, 0, 0], wanted)
    assert data.name == "photos"
    assert any("ImageNet mean and std" in note for note in data.notes)


def test_images_take_the_models_size_and_channels(tmp_path: Path) -> None:
    sizes = [(20, 30), (40, 12), (9, 9)] * 3
    root = folder(tmp_path / "p", {f"{i}.png": png(128, size) for i, size in enumerate(sizes)})
    (images,) = open_data(
        str(root), seed=0, wanted=(Wanted(None, (None, 1, 10, 16), torch.float32),)
    ).example()
    assert images.shape == (2, 1, 10, 16)
    assert torch.allclose(images, torch.tensor(128 / 255))
    with pytest.raises(DataError, match=r"set preprocessing\.resize in a spec"):
        open_data(str(root), seed=0)


def test_the_limit_caps_each_part_evenly(photos: Path, tmp_path: Path) -> None:
    found = colours(open_data(spec(tmp_path), seed=1, path=photos, limit=6))
    labels = [label for _, label in found["train"] + found["holdout"]]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]
    assert sorted(label for _, label in found["evaluation"]) == [0, 0, 1, 1, 2, 2]


def test_the_specs_counts_cap_too(photos: Path, tmp_path: Path) -> None:
    name = spec(tmp_path, preprocessing="[counts]\ntrain = 9\nevaluation = 3\ncalibration = 4")
    sizes = open_data(name, seed=1, path=photos).sizes
    assert sizes == {"train": 8, "holdout": 1, "calibration": 4, "evaluation": 3}


def test_the_seed_divides_unless_the_spec_fixes_it(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", classes(per_class=10))

    def parts(name: str) -> set[str]:
        return {str(colours(open_data(name, seed=s, path=root))["evaluation"]) for s in range(4)}

    assert len(parts(spec(tmp_path))) > 1
    assert len(parts(spec(tmp_path, preprocessing="[split]\nseed = 3"))) == 1


@pytest.mark.parametrize("memory", [2**20, 0])
def test_a_corrupt_image_is_named_or_left_out(photos: Path, tmp_path: Path, memory: int) -> None:
    files = classes("train", 6) | classes("test", 3) | {"train/dog/2.png": b"broken"}
    bad = archive(tmp_path / "bad.zip", files)

    def read(name: str) -> dict[str, list[tuple[int, int]]]:
        return colours(open_data(name, seed=1, path=bad, memory=memory))

    with pytest.raises(DataError, match=r"bad\.zip/train/dog/2\.png: can't be decoded"):
        read(spec(tmp_path))
    name = spec(tmp_path, 'on_error = "skip"')
    found = read(name)
    assert len(found["train"]) + len(found["holdout"]) == 17
    assert all(colour // 10 == label for part in found.values() for colour, label in part)
    data = open_data(name, seed=1, path=bad, memory=memory)
    colours(data)
    assert any("1 images that can't be read were left out" in note for note in data.notes)


def test_only_corrupt_images_are_an_error(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", {f"{i}.png": b"x" for i in range(9)})
    with pytest.raises(DataError, match="no image can be read; the first: "):
        open_data(spec(tmp_path, 'on_error = "skip"'), seed=0, path=root)


def test_a_missing_class_folder_is_named_or_said(tmp_path: Path) -> None:
    files = classes("train", 4) | classes("test", 4)
    root = folder(tmp_path / "p", {n: c for n, c in files.items() if "test/dog" not in n})
    with pytest.raises(DataError, match="class 'dog' has no images in split 'test'"):
        open_data(str(root), seed=0)
    data = open_data(spec(tmp_path, 'on_error = "skip"'), seed=0, path=root)
    assert {label for _, label in colours(data)["evaluation"]} == {0, 2}
    assert "class 'dog' has no images in split 'test'" in data.notes


def test_a_checksum_is_held_against_the_data(photos: Path, tmp_path: Path) -> None:
    good = spec(tmp_path, source=f'sha256 = "{checksum(photos)}"')
    assert open_data(good, seed=0, path=photos).labelled
    bad = spec(tmp_path, source=f'sha256 = "{"0" * 64}"')
    with pytest.raises(DataError, match=f"its sha256 is {checksum(photos)}"):
        open_data(bad, seed=0, path=photos)


def test_the_fingerprint_knows_the_content_but_not_the_place(tmp_path: Path) -> None:
    files = classes(per_class=10)
    here, there = folder(tmp_path / "a/p", files), folder(tmp_path / "b/p", files)
    name = spec(tmp_path)
    first = open_data(name, seed=0, path=here).fingerprint
    assert first == open_data(name, seed=0, path=there).fingerprint
    assert first == open_data(name, seed=0, path=there, memory=0).fingerprint
    assert first != open_data(name, seed=1, path=here).fingerprint
    assert first != open_data(name, seed=0, path=here, limit=9).fingerprint
    shifted = spec(tmp_path, preprocessing="mean = [1]\nstd = [1]")
    assert first != open_data(shifted, seed=0, path=here).fingerprint
    (there / "cat/0.png").write_bytes(png(0) + b" ")
    assert first != open_data(name, seed=0, path=there).fingerprint


def test_a_spec_takes_its_path_after_an_equals_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = classes("train") | classes("test")
    root = folder(tmp_path / "photos", files)
    path = spec(tmp_path)
    assert open_data(f"{path}={root}", seed=0).name == "mine"
    assert open_data(f"{path}={root}", seed=0, path=root).name == "mine"
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "cifar10=x", files)
    assert open_data("cifar10=x", seed=0).name == "cifar10=x"
    with pytest.raises(DataError, match=r"3 class folders .* the spec says 10"):
        open_data(f"cifar10={root}", seed=0)


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        ("cifar10", None, "where is it? --data cifar10=PATH"),
        ("cifar10=absent", None, "absent isn't there"),
        ("cifar10=a", "b", "gives a path, and b is given too"),
        ("digits", "x", "takes no path"),
        ("digit", None, "no data 'digit'; did you mean 'digits'?"),
        ("nowhere/photos", None, "give a spec"),
        ("nowhere", "x", "only a spec takes a path"),
        ("file.txt", None, "file.txt: no data set; allowed: an image folder"),
        ("empty", None, "empty: no images"),
        ("broken.zip", None, "broken.zip: can't be read as a zip"),
    ],
)
def test_a_name_that_means_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, path: str | None, message: str
) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "broken.zip").write_text("x")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        open_data(name, seed=0, path=None if path is None else Path(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_spec_that_isnt_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        open_data("absent.toml", seed=0)


def test_an_option_that_does_nothing_is_an_error(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source\.layout is for arrays"):
        open_data(spec(tmp_path, source='layout = "NHWC"'), seed=0, path=photos)


class Shown:
    """Progress that remembers."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, int]] = []
        self.steps = 0

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator["Shown"]:
        self.bars.append((title, total))
        yield self

    def advance(self, steps: int = 1, **figures: float) -> None:
        self.steps += steps

    def say(self, text: str) -> None:
        raise AssertionError(text)


@pytest.mark.parametrize("patience", [60.0, -1.0])
def test_a_bar_is_shown_only_where_reading_takes_long(
    photos: Path, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    monkeypatch.setattr(pool, "_PATIENCE", patience)
    shown = Shown()
    data: Any = open_data(str(photos), seed=0, progress=shown)
    total = sum(data.sizes[part] for part in ("train", "holdout", "evaluation"))
    assert sum(count for _, count in shown.bars) == shown.steps == (total if patience < 0 else 0)


def test_the_same_seed_gives_the_same_bytes(photos: Path) -> None:
    def content() -> bytes:
        batches = open_data(str(photos), seed=0).train(4, seed=0, epoch=0, augment="flip-shift")
        return b"".join(batch.inputs[0].numpy().tobytes() for batch in batches)

    assert content() == content()
    assert np.frombuffer(content(), np.float32).size == 16 * 3 * 64
