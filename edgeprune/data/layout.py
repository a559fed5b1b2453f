# SPDX-License-Identifier: Apache-2.0
"""From the names of image files to splits, classes and labels. Pure: looks at no content."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NoReturn

from edgeprune.data.spec import Source
from edgeprune.errors import DataError, nearest

__all__ = [
    "EVALUATION_NAMES",
    "TRAIN_NAMES",
    "ImageLayout",
    "ImageSplit",
    "choose_splits",
    "read_layout",
]

TRAIN_NAMES = ("train", "training")
EVALUATION_NAMES = ("test", "testing", "val", "valid", "validation", "eval", "evaluation")
"""Looked for in this order where a spec names no splits."""
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class ImageSplit:
    """Image files of a split, and their labels where the folders are classes."""

    names: tuple[str, ...]
    labels: tuple[int, ...] | None


@dataclass(frozen=True)
class ImageLayout:
    """What a tree of image files means."""

    train: ImageSplit
    evaluation: ImageSplit | None
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _View:
    """Files and folders below a prefix; names are whole, looked at from the prefix on."""

    prefix: str
    files: tuple[str, ...]
    folders: frozenset[str]

    def tops(self) -> tuple[str, ...]:
        """Folders right below the prefix, with or without files in them."""
        inner = {name[len(self.prefix) :].split("/")[0] for name in self.folders}
        return tuple(sorted(inner))

    def loose(self) -> tuple[str, ...]:
        """Files right below the prefix."""
        return tuple(name for name in self.files if "/" not in name[len(self.prefix) :])

    def enter(self, top: str) -> "_View":
        prefix = f"{self.prefix}{top}/"
        return _View(
            prefix,
            tuple(name for name in self.files if name.startswith(prefix)),
            frozenset(name for name in self.folders if name.startswith(prefix)),
        )


def read_layout(
    files: Collection[str], folders: Collection[str], source: Source, *, skip: bool, where: str
) -> ImageLayout:
    """Find splits and classes in a tree of image files.

    Known are: images in one folder (no labels); one folder per class (labels in alphabetical
    order of their names, or in the order of ``source.classes``); either of these below one folder
    per split; and all of that inside one more folder, as zips often have it. Below a class
    folder images may lie in deeper folders.

    Args:
        files: Names of all files, relative, with ``/``.
        folders: Names of all folders; one without files is a class without samples.
        source: Names of splits and classes, where the spec gives them.
        skip: A class without samples is said in the notes instead of being an error.
        where: The path, for messages.

    Raises:
        DataError: No image, a split or class that is missing, or images beside class folders.
    """
    images = tuple(sorted(name for name in files if name.lower().endswith(_SUFFIXES)))
    if not images:
        raise DataError(f"{where}: no images; known are {', '.join(_SUFFIXES)}")
    notes = []
    if len(images) < len(files):
        notes.append(f"{len(files) - len(images)} files that are no images were left out")
    wanted = {name for name in (source.train, source.evaluation) if name}
    view = _unwrap(_View("", images, frozenset(folders)), wanted)
    train, evaluation, said = choose_splits(_split_folders(view, wanted), source, where, "folder")
    notes += said
    if train is None:
        views = {"": view}
    else:
        views = {name: view.enter(name) for name in (train, evaluation) if name is not None}
    for name, part in views.items():
        if not part.files:
            raise DataError(f"{where}: split '{name}' has no images")
    classes = _classes(views, source, where)
    splits = [_split(part, classes, where) for part in views.values()]
    if classes is not None:
        notes += _absent_classes(dict(zip(views, splits, strict=True)), classes, where, skip)
    return ImageLayout(splits[0], splits[1] if len(splits) > 1 else None, classes, tuple(notes))


def _unwrap(view: _View, wanted: set[str]) -> _View:
    """Go below a single folder that is no split: a zip's outer folder. One class alone is none."""
    known = {*TRAIN_NAMES, *EVALUATION_NAMES, *wanted}
    while True:
        tops = view.tops()
        if len(tops) != 1 or view.loose() or tops[0].lower() in known or tops[0] in known:
            return view
        view = view.enter(tops[0])


def _split_folders(view: _View, wanted: set[str]) -> tuple[str, ...]:
    """The folders that may be splits; none where a lone ``train`` is a class beside others."""
    tops = view.tops()
    known = [top for top in tops if top.lower() in (*TRAIN_NAMES, *EVALUATION_NAMES)]
    return () if not wanted and len(known) == 1 and len(tops) > 1 else tops


def choose_splits(
    names: Collection[str], source: Source, where: str, what: str
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Which of ``names`` are the training and the evaluation split, and what to say of it.

    Both are ``None`` where there are no splits. Only the first is given where everything is to
    come from one split.

    Raises:
        DataError: A split that the spec names isn't there.
    """
    for wanted in (source.train, source.evaluation):
        if wanted is not None and wanted not in names:
            there = ", ".join(sorted(names)[:8]) or "none"
            hint = nearest(wanted, names)
            raise DataError(f"{where}: no {what} for split '{wanted}'{hint}; there: {there}")
    train = source.train or _first(TRAIN_NAMES, names)
    evaluation = source.evaluation or _first(EVALUATION_NAMES, names)
    if train is None and evaluation is None:
        return None, None, ()
    others = sorted(set(names) - {train, evaluation})
    notes = [f"left out: {', '.join(others[:8])} (no split that is used)"] if others else []
    if train is None or evaluation is None:
        only = train or evaluation
        notes.append(f"there is only split '{only}': evaluation is a share of it")
        return only, None, tuple(notes)
    return train, evaluation, tuple(notes)


def _first(wanted: tuple[str, ...], names: Collection[str]) -> str | None:
    lower = {name.lower(): name for name in sorted(names, reverse=True)}
    return next((lower[name] for name in wanted if name in lower), None)


def _classes(views: dict[str, _View], source: Source, where: str) -> tuple[str, ...] | None:
    """Class names in label order, or ``None`` where the images lie in no folders of classes."""
    tops = {name: _class_folders(view, where) for name, view in views.items()}
    bare = [name for name, found in tops.items() if not found]
    if bare and len(bare) < len(tops):
        raise DataError(f"{where}: split '{bare[0]}' has no class folders, but another split has")
    found = {top for split in tops.values() for top in split}
    if source.classes is None and len(found) == 1:
        return None  # a single folder tells nothing apart
    if not found:
        if source.classes is not None:
            raise DataError(f"{where}: no class folders, but the spec gives classes")
        return None
    if isinstance(source.classes, tuple):
        if unknown := sorted(found - set(source.classes)):
            raise DataError(
                f"{where}: class folder '{unknown[0]}' isn't among the spec's classes"
                f"{nearest(unknown[0], source.classes)}"
            )
        return source.classes
    if source.classes is not None and len(found) != source.classes:
        _wrong_count(where, found, source.classes)
    return tuple(sorted(found))


def _class_folders(view: _View, where: str) -> tuple[str, ...]:
    tops, loose = view.tops(), view.loose()
    if not loose:
        return tops
    if len(loose) < len(view.files):
        raise DataError(
            f"{where}: {loose[0]} lies beside class folders ({', '.join(tops[:3])}); "
            "put each image into the folder of its class, or all images into one folder"
        )
    return ()  # a flat folder; folders without images in it are no classes


def _wrong_count(where: str, found: set[str], wanted: int) -> NoReturn:
    some = ", ".join(sorted(found)[:5])
    raise DataError(f"{where}: {len(found)} class folders ({some} ...); the spec says {wanted}")


def _split(view: _View, classes: tuple[str, ...] | None, where: str) -> ImageSplit:
    if classes is None:
        return ImageSplit(view.files, None)
    index = {name: i for i, name in enumerate(classes)}
    labels = (index[name[len(view.prefix) :].split("/")[0]] for name in view.files)
    return ImageSplit(view.files, tuple(labels))


def _absent_classes(
    splits: dict[str, ImageSplit], classes: tuple[str, ...], where: str, skip: bool
) -> list[str]:
    notes = []
    for split, part in splits.items():
        for i in sorted(set(range(len(classes))) - set(part.labels or ())):
            place = f"split '{split}'" if split else "the folder"
            text = f"class '{classes[i]}' has no images in {place}"
            if not skip:
                raise DataError(f'{where}: {text} (a spec\'s on_error = "skip" goes on without it)')
            notes.append(text)
    return notes
