# SPDX-License-Identifier: Apache-2.0
"""Hugging Face ``datasets`` folders (``save_to_disk``): Arrow tables, no code, no network."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.artifact.flat import Flat
from edgeprune.data.arrays import LABEL_NAMES, checked, found_arrays, name_columns
from edgeprune.data.images import ImagePool, first_size, image_preprocessing
from edgeprune.data.layout import choose_splits
from edgeprune.data.pool import Found, Rows, SampleError
from edgeprune.data.spec import DataSpec
from edgeprune.data.tree import FolderTree, listing
from edgeprune.errors import DataError, MissingExtra
from edgeprune.model import Wanted

__all__ = ["is_hub_folder", "open_hub"]


def is_hub_folder(path: Path) -> bool:
    """Whether a folder was written by ``datasets``' ``save_to_disk``."""
    single = (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    return single or (path / "dataset_dict.json").is_file()


def open_hub(path: Path, spec: DataSpec, wanted: Sequence[Wanted], where: str) -> Found:
    """Tables or images of a ``datasets`` folder.

    A column of images is read as image files are; other inputs must be columns of numbers, each
    row of the same length.

    Raises:
        MissingExtra: The ``datasets`` package isn't installed.
        DataError: The folder can't be read, or has no usable columns.
    """
    tables = _load(path, where)
    train, evaluation, said = choose_splits(list(tables), spec.source, where, "split")
    if train is None:
        if len(tables) > 1:
            raise DataError(
                f"{where}: no split named train among {', '.join(tables)}; "
                "say source.train and source.evaluation in a spec"
            )
        train = next(iter(tables))
    used = {name: tables[name] for name in (train, evaluation) if name is not None}
    spec = _with_classes(used[train], spec, where)
    columns = [name for name, kind in used[train].features.items() if _is_image(kind)]
    if not spec.source.inputs and columns:
        spec = _with_source(spec, inputs=(columns[0],))
    if spec.source.inputs and spec.source.inputs[0] in columns:
        found = _images(used, spec, wanted, path, where)
    else:
        found = _tables(used, spec, where, wanted)
    return replace(found, notes=(*said, *found.notes))


def _load(path: Path, where: str) -> dict[str, Any]:
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "datasets") from None
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        _check_packed(path, where)
        loaded = datasets.load_from_disk(str(path))
    except DataError:
        raise
    except Exception as error:  # pyarrow, JSON and file errors of many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{where}: can't be read as a datasets folder: {reason}") from None
    finally:
        if shown:
            datasets.enable_progress_bars()
    tables = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"all": loaded}
    if not tables:
        raise DataError(f"{where}: a datasets folder without splits")
    return tables


def _check_packed(path: Path, where: str) -> None:
    """Refuse record batches that are compressed: they may unpack to any size, and are, at once.

    Raises:
        DataError: There are some; ``datasets`` itself writes none.
    """
    import pyarrow as pa

    for file in sorted(path.rglob("*.arrow")):
        with pa.memory_map(str(file)) as source:
            for message in pa.ipc.MessageReader.open_stream(source):
                # Arrow's Message.fbs: field 2 is the header, 3 of a record batch its compression.
                batch = Flat(message.metadata.to_pybytes(), file.name).root().table(2)
                if batch is not None and message.type == "dictionary":
                    batch = batch.table(1)
                elif message.type != "record batch":
                    continue
                if batch is not None and batch.table(3) is not None:
                    raise DataError(
                        f"{where}: {file.relative_to(path)} is compressed, so it may unpack to any "
                        "size; save it with save_to_disk of datasets, which doesn't compress"
                    )


def _with_source(spec: DataSpec, **changes: Any) -> DataSpec:
    return spec.model_copy(update={"source": spec.source.model_copy(update=changes)})


def _with_classes(table: Any, spec: DataSpec, where: str) -> DataSpec:
    """The spec with the class names that the label column brings along."""
    _, labels = _columns(table, spec, where)
    names = getattr(table.features[labels], "names", None) if labels else None
    if not names or isinstance(spec.source.classes, tuple):
        return spec
    if spec.source.classes is not None and spec.source.classes != len(names):
        raise DataError(
            f"{where}: column '{labels}' has {len(names)} classes; "
            f"the spec says {spec.source.classes}"
        )
    return _with_source(spec, classes=tuple(str(name) for name in names))


def _columns(table: Any, spec: DataSpec, where: str) -> tuple[tuple[str, ...], str | None]:
    images = [name for name, kind in table.features.items() if _is_image(kind)]
    numbers = [name for name, kind in table.features.items() if _is_number(kind)]
    if spec.source.labels is None and not set(LABEL_NAMES) & set(table.features):
        spec = _with_source(spec, labels=_class_column(table, where))
    named = [*spec.source.inputs, *([spec.source.labels] if spec.source.labels else [])]
    if images and not spec.source.inputs:
        numbers = [images[0], *(name for name in numbers if name in (*LABEL_NAMES, *named))]
    elif not numbers:
        raise DataError(
            f"{where}: no column of numbers or images among {', '.join(table.features)}; "
            "tokenize text first and save that"
        )
    known = [*numbers, *(name for name in table.features if name in named and name not in numbers)]
    return name_columns(known, spec.source, where)


def _class_column(table: Any, where: str) -> str | None:
    """The column of classes, where it has none of the usual names."""
    found = [name for name, kind in table.features.items() if hasattr(kind, "names")]
    if len(found) > 1:
        raise DataError(
            f"{where}: can't tell the labels among {', '.join(found)}; give source.labels in a spec"
        )
    return found[0] if found else None


def _is_image(kind: Any) -> bool:
    return type(kind).__name__ == "Image"


def _is_number(kind: Any) -> bool:
    """Whether a column holds numbers, alone or in lists."""
    while isinstance(kind, (list, tuple)) or hasattr(kind, "feature"):
        kind = kind[0] if isinstance(kind, (list, tuple)) else kind.feature
    dtype = str(getattr(kind, "dtype", ""))
    return dtype.startswith(("int", "uint", "float", "bool"))


def _tables(tables: dict[str, Any], spec: DataSpec, where: str, wanted: Sequence[Wanted]) -> Found:
    names = list(tables)
    if len(names) == 1:
        table, spec = tables[names[0]], _with_source(spec, train=None, evaluation=None)
        inputs, labels = _columns(table, spec, where)
        spec = _with_source(spec, inputs=inputs, labels=labels)
        return found_arrays(
            lambda name: _column(table, name), table.column_names, spec, where, wanted
        )
    inputs, labels = _columns(tables[names[0]], spec, where)
    spec = _with_source(spec, inputs=inputs, labels=labels, train=names[0], evaluation=names[1])
    place = {f"{column}_{name}": (name, column) for name in names for column in inputs}
    if labels:
        place |= {f"{labels}_{name}": (name, labels) for name in names}
    for split, column in place.values():
        if column not in tables[split].column_names:
            raise DataError(f"{where}: split '{split}' has no column '{column}'")

    def read(name: str) -> NDArray[Any]:
        split, column = place[name]
        return _column(tables[split], column)

    return found_arrays(read, list(place), spec, where, wanted)


def _column(table: Any, name: str) -> NDArray[Any]:
    return np.asarray(table.with_format("numpy", columns=[name])[:][name])


def _images(
    tables: dict[str, Any],
    spec: DataSpec,
    wanted: Sequence[Wanted],
    path: Path,
    where: str,
) -> Found:
    preprocessing, notes = image_preprocessing(spec, wanted)
    pools: list[ImagePool] = []
    size: tuple[int, int] | None = None
    for split, table in tables.items():
        (column, *_), labels = _columns(table, spec, where)
        known = (labels, _column(table, labels)) if labels else None
        rows = checked({column: np.arange(len(table))}, known, spec, where)
        notes = (*notes, *rows.left_out)
        read = _reader(table, column, rows.inputs[0], f"{where}/{split}")
        names = [f"{split}/{row}" for row in rows.inputs[0].tolist()]
        size = size or first_size(
            read, (f"{where}/{name}" for name in names), preprocessing, spec.skips
        )
        pools.append(ImagePool(read, names, where, rows.labels, preprocessing, size, spec.skips))
    classes = spec.source.classes
    return Found(
        train=pools[0],
        evaluation=pools[1] if len(pools) > 1 else None,
        classes=classes if isinstance(classes, tuple) else None,
        shape=pools[0].shape,
        eight_bit=True,
        layout="NHWC",
        preprocessing=preprocessing,
        facts=(listing(FolderTree(path).files.items()),),
        notes=notes,
    )


def _reader(table: Any, column: str, rows: Rows, where: str) -> Callable[[int], bytes]:
    import datasets

    encoded = table.cast_column(column, datasets.Image(decode=False))

    def read(i: int) -> bytes:
        cell = encoded[int(rows[i])][column]
        if not cell or cell.get("bytes") is None:
            # A path would point out of the folder, to wherever the data once was.
            raise SampleError(f"{where}/{rows[i]}: the image isn't inside the table")
        return bytes(cell["bytes"])

    return read
