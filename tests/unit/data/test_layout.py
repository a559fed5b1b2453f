# SPDX-License-Identifier: Apache-2.0
import pytest

from edgeprune.data.layout import ImageLayout, read_layout
from edgeprune.data.spec import Source
from edgeprune.errors import DataError


def layout(
    *files: str, empty: tuple[str, ...] = (), skip: bool = False, **source: object
) -> ImageLayout:
    parents = {"/".join(name.split("/")[: i + 1]) for name in files for i in range(name.count("/"))}
    kind = Source.model_validate({"kind": "images", **source})
    return read_layout(files, parents | set(empty), kind, skip=skip, where="photos")


def test_a_flat_folder_has_no_labels() -> None:
    found = layout("b.jpg", "a.PNG", "notes.txt")
    assert found.train.names == ("a.PNG", "b.jpg")
    assert found.train.labels is None
    assert found.classes is None
    assert found.notes == ("1 files that are no images were left out",)


def test_class_folders_are_labels_in_alphabetical_order() -> None:
    found = layout("dog/1.jpg", "cat/2.jpg", "cat/deep/3.jpg")
    assert found.classes == ("cat", "dog")
    assert dict(zip(found.train.names, found.train.labels or (), strict=True)) == {
        "cat/2.jpg": 0,
        "cat/deep/3.jpg": 0,
        "dog/1.jpg": 1,
    }
    assert found.evaluation is None


@pytest.mark.parametrize("outer", ["", "data/", "a/b/"])
@pytest.mark.parametrize("evaluation", ["test", "val", "validation", "Test"])
def test_splits_are_found_inside_an_outer_folder(outer: str, evaluation: str) -> None:
    found = layout(
        *(f"{outer}{split}/{c}/1.jpg" for split in ("train", evaluation) for c in ("a", "b"))
    )
    assert found.train.names == (f"{outer}train/a/1.jpg", f"{outer}train/b/1.jpg")
    assert found.evaluation is not None
    assert found.evaluation.names == (
        f"{outer}{evaluation}/a/1.jpg",
        f"{outer}{evaluation}/b/1.jpg",
    )
    assert found.evaluation.labels == (0, 1)


def test_test_is_preferred_to_val_and_the_rest_is_said() -> None:
    found = layout(*(f"{split}/{i}.jpg" for split in ("train", "val", "test") for i in range(2)))
    assert found.evaluation is not None
    assert found.evaluation.names == ("test/0.jpg", "test/1.jpg")
    assert found.notes == ("left out: val (no split that is used)",)


def test_a_lone_split_is_divided() -> None:
    found = layout("val/a/1.jpg", "val/b/1.jpg")
    assert found.train.labels == (0, 1)
    assert found.evaluation is None
    assert "evaluation is a share of it" in found.notes[0]


def test_a_class_named_train_is_no_split() -> None:
    assert layout("car/1.jpg", "plane/1.jpg", "train/1.jpg").classes == ("car", "plane", "train")


def test_a_single_folder_is_no_class() -> None:
    assert layout("photos/1.jpg", "photos/2.jpg").classes is None
    assert layout("train/all/1.jpg", "test/all/1.jpg").classes is None


def test_the_specs_classes_fix_the_order() -> None:
    found = layout("a/1.jpg", "b/1.jpg", classes=("b", "a"))
    assert found.train.labels == (1, 0)


def test_the_specs_splits_are_used() -> None:
    found = layout("fit/1.jpg", "check/1.jpg", "x/1.jpg", train="fit", evaluation="check")
    assert found.train.names == ("fit/1.jpg",)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (("a.txt",), {}, "no images"),
        ((), {}, "no images"),
        (("cat/1.jpg", "dog/1.jpg", "2.jpg"), {}, "2.jpg lies beside class folders"),
        (
            ("train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg"),
            {},
            "class 'b' has no images in split",
        ),
        (("train/a/1.jpg", "test/a/1.jpg", "test/b/1.jpg"), {}, "in split 'train'"),
        (("a/1.jpg", "b/1.jpg"), {"empty": ("c",)}, "class 'c' has no images"),
        (("train/a/1.jpg", "train/b/1.jpg", "test/1.jpg"), {}, "split 'test' has no class folders"),
        (("train/a/1.jpg", "test/a/1.txt"), {}, "split 'test' has no images"),
        (("train/1.jpg", "test/1.jpg"), {"evaluation": "tset"}, "did you mean 'test'?"),
        (("a/1.jpg", "b/1.jpg"), {"classes": 3}, "2 class folders (a, b ...); the spec says 3"),
        (("a/1.jpg", "b/1.jpg"), {"classes": ("a", "c")}, "'b' isn't among"),
        (("1.jpg",), {"classes": 2}, "no class folders"),
    ],
)
def test_an_unusable_tree_is_named(
    files: tuple[str, ...], options: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError) as error:
        layout(*files, **options)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert str(error.value).startswith("photos: ")


def test_an_absent_class_can_be_skipped_without_shifting_labels() -> None:
    found = layout(
        "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "test/a/1.jpg", "test/c/1.jpg", skip=True
    )
    assert found.evaluation is not None
    assert found.evaluation.labels == (0, 2)
    assert found.notes == ("class 'b' has no images in split 'test'",)
