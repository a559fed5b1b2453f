# SPDX-License-Identifier: Apache-2.0
"""Opening data: from a name, a path or a spec to the three parts of ``Data``."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeprune.data.batches import Data
from edgeprune.data.factory import open_digits, open_factory
from edgeprune.data.fitting import takes_integers
from edgeprune.data.hub import is_hub_folder, open_hub
from edgeprune.data.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImagePool,
    first_size,
    image_preprocessing,
)
from edgeprune.data.layout import ImageSplit, read_layout
from edgeprune.data.npz import is_npz, open_npz
from edgeprune.data.pool import Found, Pool, Rows, Samples
from edgeprune.data.spec import DataSpec, Preprocessing, Source, find_spec, list_specs
from edgeprune.data.split import divide, generator
from edgeprune.data.transform import Transform
from edgeprune.data.tree import checksum, listing, open_tree
from edgeprune.errors import DataError, InputError, nearest
from edgeprune.model import Wanted
from edgeprune.progress import Progress, Silent
from edgeprune.reading import exists, regular, shown

__all__ = ["open_data", "resolve"]

_MEMORY = 2**30
"""Bytes of decoded images that are kept in memory; more are decoded when they are taken."""
_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_EVALUATION, _HOLDOUT, _LIMIT = 11, 12, 13
_FILE_OPTIONS = {"resize", "crop", "interpolation", "grayscale"}
_LEAST = 2
"""Training samples: batch norm can't train on one."""


def open_data(
    name: str,
    *,
    seed: int,
    path: Path | None = None,
    limit: int | None = None,
    wanted: Sequence[Wanted] = (),
    progress: Progress = Silent(),  # noqa: B008  (it has no state)
    memory: int = _MEMORY,
) -> Data:
    """Open a data set and divide it into training, held-out and evaluation samples.

    Args:
        name: A spec's name (``digits``) or file; ``spec=path`` for a spec whose path the user
            gives; an image folder, ``.zip``, ``.npz`` or ``datasets`` folder; or
            ``package.module:factory``.
        seed: Of the division, where the spec fixes none.
        path: The same as ``spec=path``.
        limit: At most so many samples each for training with holdout, and for evaluation.
        wanted: What the model takes, where that is known: arrays are brought to its types and
            batch axes, image files to its first input's size where no spec says how.
        progress: Shows a bar where reading takes longer than two seconds.
        memory: Bytes of decoded images that may be kept.

    Raises:
        DataError: Whatever can't be used; the message names the file or key.
        ConfigError: The spec has a wrong key or value.
        MissingExtra: The source needs a package that isn't installed.
    """
    spec = resolve(name, path)
    where = str(spec.source.path or spec.source.factory or spec.name)
    _check_sum(spec, where)
    found = _open(spec, where, wanted, (memory, seed), progress)
    chosen = seed if spec.split.seed is None else spec.split.seed
    parts = _parts(found, spec, chosen, limit)
    samples, notes = _loaded(parts, memory, where, progress)
    transform, preprocessing, said = _transform(found, spec, wanted[0] if wanted else None)
    return Data(
        name=spec.name,
        classes=found.classes,
        preprocessing=preprocessing,
        fingerprint=_fingerprint(spec, (chosen, limit), found, preprocessing),
        training=samples[0],
        holding=samples[1],
        evaluating=samples[2],
        transform=transform,
        augment=spec.augment,
        seed=chosen,
        axes=found.axes,
        calibration_limit=spec.counts.calibration,
        remarks=(*found.notes, *said, *notes),
    )


def _loaded(
    parts: Sequence[tuple[Pool, Rows]], memory: int, where: str, progress: Progress
) -> tuple[list[Samples], tuple[str, ...]]:
    """The samples of each part, in memory where all fit; and what to say of it."""
    needed = sum(len(rows) * pool.sample_bytes for pool, rows in parts)
    keep = needed <= memory
    loaded = [pool.load(rows, keep=keep, progress=progress) for pool, rows in parts]
    if len(loaded[0]) < _LEAST or len(loaded[2]) == 0:
        raise DataError(
            f"{where}: {len(loaded[0])} training and {len(loaded[2])} evaluation samples; "
            f"needed are at least {_LEAST} and 1"
        )
    if keep:
        return loaded, ()
    return loaded, (f"images are decoded when used: {needed >> 20} MiB would be needed",)


def resolve(name: str, path: Path | None = None) -> DataSpec:
    """The spec that a name stands for; for a path or factory, one made by looking at it.

    Raises:
        DataError: There is no such spec, path or factory, or a spec's path is missing.
        ConfigError: The spec has a wrong key or value.
    """
    head, equals, tail = name.partition("=")
    known = list_specs()
    if equals and (head in known or head.endswith(".toml")) and not exists(Path(name)):
        if path is not None and path != Path(tail):
            raise DataError(f"data '{name}': gives a path, and {path} is given too")
        name, path = head, Path(tail)
    if name in known or name.endswith(".toml"):
        return _with_path(find_spec(name), path)
    if path is not None:
        raise DataError(
            f"no data spec '{name}'{nearest(name, known)}; known: {', '.join(known)}; "
            "only a spec takes a path"
        )
    if exists(Path(name)):
        return _look(Path(name))
    if _FACTORY.fullmatch(name):
        return DataSpec(schema_version=1, name=name, source=Source(kind="factory", factory=name))
    raise DataError(
        f"no data '{shown(name)}'{nearest(name, known)}; give a spec ({', '.join(known)}), an "
        "existing image folder, .zip, .npz or datasets folder, or package.module:factory"
    )


def _with_path(spec: DataSpec, path: Path | None) -> DataSpec:
    source = spec.source
    if source.kind in ("digits", "factory"):
        if path is not None:
            raise DataError(f"data {spec.name}: takes no path, but {path} is given")
        return spec
    path = path or source.path
    if path is None:
        raise DataError(f"data {spec.name}: where is it? --data {spec.name}=PATH")
    if not exists(path):
        raise DataError(f"data {spec.name}: {shown(str(path))} isn't there")
    _no_device(path)
    return spec.model_copy(update={"source": source.model_copy(update={"path": path})})


def _look(path: Path) -> DataSpec:
    """The spec of a path without one."""
    name = path.resolve().name
    _no_device(path)
    if path.is_dir():
        kind: Any = "datasets" if is_hub_folder(path) else "images"
    elif is_npz(path):
        kind = "npz"
    elif path.suffix.lower() == ".zip":
        kind = "images"
    elif path.suffix.lower() == ".npz":
        kind = "npz"  # broken: opening says what is wrong
    else:
        raise DataError(
            f"{path}: no data set; allowed: an image folder, .zip, .npz, a datasets folder, "
            "a spec's .toml, package.module:factory"
        )
    return DataSpec(schema_version=1, name=name, source=Source(kind=kind, path=path))


def _no_device(path: Path) -> None:
    """Refuse what is neither a folder nor a file: a pipe waits, and a device may have no end."""
    if not path.is_dir():
        try:
            regular(path)
        except InputError as error:
            raise DataError(str(error)) from None


def _check_sum(spec: DataSpec, where: str) -> None:
    wanted, path = spec.source.sha256, spec.source.path
    if wanted is None or path is None:
        return
    found = checksum(path)
    if found != wanted:
        raise DataError(
            f"{where}: not the data that spec {spec.name} means: its sha256 is {found}, "
            f"source.sha256 says {wanted}"
        )


def _open(
    spec: DataSpec,
    where: str,
    wanted: Sequence[Wanted],
    limits: tuple[int, int],
    progress: Progress,
) -> Found:
    kind, path = spec.source.kind, spec.source.path
    if kind == "digits":
        return open_digits(spec, wanted)
    if kind == "factory":
        memory, seed = limits
        return open_factory(spec, memory, seed, progress, wanted)
    assert path is not None  # _with_path and _look see to it
    if kind == "npz":
        return open_npz(path, spec, where, wanted)
    if kind == "datasets":
        if not is_hub_folder(path):
            raise DataError(f"{where}: no datasets folder; make one with save_to_disk")
        return open_hub(path, spec, wanted, where)
    return _open_images(path, spec, wanted, where)


def _open_images(path: Path, spec: DataSpec, wanted: Sequence[Wanted], where: str) -> Found:
    tree = open_tree(path)
    layout = read_layout(tree.files, tree.folders, spec.source, skip=spec.skips, where=where)
    preprocessing, notes = image_preprocessing(spec, wanted)
    names = layout.train.names
    size = first_size(
        lambda i: tree.read(names[i]),
        (f"{where}/{name}" for name in names),
        preprocessing,
        spec.skips,
    )

    def pool(split: ImageSplit) -> ImagePool:
        labels = None if split.labels is None else np.array(split.labels, np.int64)
        return ImagePool(
            lambda i: tree.read(split.names[i]),
            split.names,
            where,
            labels,
            preprocessing,
            size,
            spec.skips,
        )

    splits = [part for part in (layout.train, layout.evaluation) if part is not None]
    train = pool(layout.train)
    return Found(
        train=train,
        evaluation=None if layout.evaluation is None else pool(layout.evaluation),
        classes=layout.classes,
        shape=train.shape,
        eight_bit=True,
        layout="NHWC",
        preprocessing=preprocessing,
        facts=tuple(listing((n, tree.files[n]) for n in part.names) for part in splits),
        notes=(*layout.notes, *notes),
    )


def _parts(
    found: Found, spec: DataSpec, seed: int, limit: int | None
) -> tuple[tuple[Pool, Rows], tuple[Pool, Rows], tuple[Pool, Rows]]:
    """Training, held-out and evaluation samples: a pool and the rows of it, sharing none."""
    pool = found.train
    rows = np.arange(len(pool))
    if found.evaluation is None:
        count = _share(spec.split.evaluation, len(rows))
        tests, rows = divide(rows, pool.labels, count, generator(_EVALUATION, seed))
        test_pool = pool
    else:
        test_pool = found.evaluation
        tests = np.arange(len(test_pool))
    counts = spec.counts
    rows = _limited(rows, pool.labels, (counts.train, limit), seed)
    tests = _limited(tests, test_pool.labels, (counts.evaluation, limit), seed)
    held = _share(spec.split.holdout, len(rows))
    holdout, rows = divide(rows, pool.labels, held, generator(_HOLDOUT, seed))
    return (pool, rows), (pool, holdout), (test_pool, tests)


def _share(share: float, count: int) -> int:
    """Samples of a share: at least one of any share, while two are left for training."""
    wanted = max(1, round(share * count)) if share > 0 else 0
    return max(0, min(wanted, count - _LEAST))


def _limited(rows: Rows, labels: Rows | None, limits: tuple[int | None, ...], seed: int) -> Rows:
    count = min(len(rows), *(n for n in limits if n is not None), len(rows))
    return divide(rows, labels, count, generator(_LIMIT, seed))[0]


def _transform(
    found: Found, spec: DataSpec, need: Wanted | None
) -> tuple[Transform, dict[str, Any] | None, tuple[str, ...]]:
    """How batches are prepared, the same as JSON, and what was chosen here in words."""
    layout, given, shape = found.layout, found.preprocessing, found.shape
    _check_options(found, spec)
    axes = layout[1:] if layout else ""
    channels = shape[axes.index("C")] if "C" in axes else 1 if axes or not shape else shape[-1]
    notes: tuple[str, ...] = ()
    raw = need if takes_integers(need) else None
    if raw is not None:
        _check_raw(found, spec, raw)
    if given is None:
        if not found.eight_bit:
            return Transform(layout, identity=True), None, ()
        constants = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((), ())
        given = Preprocessing(mean=constants[0], std=constants[1])
        values = "8-bit values scaled to 0..1" + (", ImageNet mean and std" if given.mean else "")
        notes = (f"preprocessing was chosen, no spec gave it: {values}",)
    if len(given.mean) not in (0, 1, channels):
        raise DataError(
            f"data {spec.name}: preprocessing.mean has {len(given.mean)} values "
            f"for {channels} channels"
        )
    scale = given.scale or (1 / 255 if found.eight_bit and not raw else 1.0)
    last = given.layout == "NHWC"
    dtype = None if need is None else need.dtype
    if raw is not None:
        transform = Transform(layout, channels_last=last, identity=True, dtype=dtype)
    else:
        transform = Transform(layout, scale, given.mean, given.std, last, dtype=dtype)
    files = isinstance(found.train, ImagePool)
    told = given.model_dump(mode="json", exclude=None if files else _FILE_OPTIONS)
    told["scale"] = scale
    if layout is not None:
        sides = [shape[axes.index(axis)] for axis in "HW"]
        told |= {"input_size": sides, "channels": channels}
    return transform, told | {"formula": "(value * scale - mean) / std"}, notes


def _check_raw(found: Found, spec: DataSpec, need: Wanted) -> None:
    """Values that a model takes as integers can't be scaled, and bytes have to fit its type."""
    kind = str(need.dtype).removeprefix("torch.")
    given = found.preprocessing
    if given is not None and (given.mean or given.scale not in (None, 1)):
        raise DataError(
            f"data {spec.name}: the model takes {kind}, so it is given the stored values: leave "
            "preprocessing.scale, mean and std out"
        )
    if isinstance(found.train, ImagePool) and need.dtype in (torch.int8, torch.bool):
        raise DataError(
            f"data {spec.name}: bytes of images (0 to 255) don't fit the model's {kind}"
        )


def _check_options(found: Found, spec: DataSpec) -> None:
    """An option that would do nothing is an error."""
    given, where = spec.preprocessing, f"data {spec.name}"
    if isinstance(found.train, ImagePool):
        if spec.source.layout is not None:
            raise DataError(f"{where}: source.layout is for arrays; these are image files")
    elif given is not None and (given.resize or given.crop or given.grayscale):
        raise DataError(
            f"{where}: preprocessing.resize, crop and grayscale are for image files; "
            "these are arrays"
        )
    if found.layout is None and given is not None and given.layout == "NHWC":
        raise DataError(f"{where}: preprocessing.layout is for images; the first input is none")
    if found.layout is None and spec.augment != "none":
        raise DataError(
            f"{where}: augment = '{spec.augment}' needs images; the first input is none"
        )


def _fingerprint(
    spec: DataSpec,
    numbers: tuple[int, int | None],
    found: Found,
    preprocessing: dict[str, Any] | None,
) -> str:
    plain = spec.model_copy(update={"source": spec.source.model_copy(update={"path": None})})
    digest = hashlib.sha256()
    told = (plain.model_dump_json(), f"{numbers}", json.dumps(preprocessing, sort_keys=True))
    for part in (*told, *found.facts):
        digest.update(f"{len(part)}\n{part}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
