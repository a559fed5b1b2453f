# SPDX-License-Identifier: Apache-2.0
"""Data specs: where samples come from and how they are prepared. Data in ``calibration/*.toml``."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from edgeprune.errors import DataError, nearest
from edgeprune.shipped import by_name
from edgeprune.toml import Config, load

__all__ = [
    "Augment",
    "BatchAxis",
    "Counts",
    "DataSpec",
    "Kind",
    "Layout",
    "Preprocessing",
    "Source",
    "Split",
    "find_spec",
    "list_specs",
]

Kind = Literal["images", "npz", "datasets", "factory", "digits"]
Layout = Literal["NCHW", "NHWC", "NHW"]
BatchAxis = Annotated[int, Field(ge=0)] | Literal["none"]
Augment = Literal["none", "flip-shift"]

Positive = Annotated[int, Field(ge=1)]
Size = Positive | tuple[Positive, Positive]
Share = Annotated[float, Field(ge=0, lt=1)]


def _factor(value: Any) -> Any:
    """Read ``"1/255"`` as a number; anything else is left to the validator."""
    if not isinstance(value, str):
        return value
    try:
        factor = float(Fraction(value.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"'{value}' is no number or fraction such as 1/255") from None
    return factor


Factor = Annotated[float, BeforeValidator(_factor), Field(gt=0)]


class Source(Config):
    """Where the samples come from."""

    kind: Kind
    path: Path | None = None
    """Folder, ``.zip`` or ``.npz``, relative to the spec's own file. Absent: the user names it
    (``--data cifar10=/path``)."""
    factory: str | None = None
    """``package.module:function`` of kind ``factory``; the current folder is importable."""
    train: str | None = None
    evaluation: str | None = None
    """Names of the splits (folders, array suffixes, ``datasets`` splits). Absent: looked for."""
    inputs: tuple[str, ...] = ()
    """Names of the arrays or columns that the model takes, in its order. Absent: looked for."""
    labels: str | None = None
    """Name of the array or column of labels. Absent: looked for."""
    classes: Positive | tuple[str, ...] | None = None
    """How many classes there must be, or their names in label order."""
    layout: Layout | None = None
    """Order of the axes of the first input of arrays, where that input is images."""
    batch_axis: tuple[BatchAxis, ...] = ()
    """The axis of the samples of each input array, ``"none"`` for one that serves all samples.
    Absent: the axis that the model has its batch on, else the first."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Of a file's bytes, or of a folder's listing (see ``edgeprune.data.checksum``)."""

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if (self.kind == "factory") != (self.factory is not None):
            raise ValueError("'factory' and kind = \"factory\" go together")
        if self.kind in ("factory", "digits") and (self.path or self.sha256):
            raise ValueError(f'kind = "{self.kind}" takes no path and no sha256')
        if self.kind in ("images", "digits") and (self.inputs or self.labels):
            raise ValueError(f'kind = "{self.kind}" has no named inputs or labels')
        if self.kind == "images" and self.batch_axis:
            raise ValueError('kind = "images" takes no batch_axis')
        return self


class Split(Config):
    """How the samples are divided."""

    evaluation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of all samples kept for evaluation, where the source has no split for it."""
    holdout: Share = 0.1
    """Share of the training split on which early stopping looks; never trained on."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Fixes the division whatever the run's seed is; absent: the run's seed."""


class Counts(Config):
    """At most so many samples of each part, spread evenly over the classes."""

    train: Positive | None = None
    """Training and held-out samples together."""
    evaluation: Positive | None = None
    calibration: Positive | None = None


class Preprocessing(Config):
    """From stored values to what the model takes: ``(value * scale - mean) / std``.

    ``resize``, ``crop``, ``interpolation`` and ``grayscale`` are for image files; the rest is for
    the first input of any source.
    """

    resize: Size | None = None
    """One number: the shorter side, aspect kept. ``[height, width]``: exactly that."""
    crop: Size | None = None
    """The centre, square or ``[height, width]``, after ``resize``."""
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    grayscale: bool = False
    scale: Factor | None = None
    """A number or a fraction in quotes. Absent: 1/255 for 8-bit images, 1 otherwise."""
    mean: tuple[float, ...] = ()
    std: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """One value, or one per channel; in units of the scaled values."""
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    """Of the images that the model takes."""

    @model_validator(mode="after")
    def _mean_with_std(self) -> Self:
        if len(self.mean) != len(self.std):
            raise ValueError("'mean' and 'std' need the same number of values")
        return self


class DataSpec(Config):
    """One data set, as ``calibration/*.toml`` describes it."""

    schema_version: Literal[1]
    name: str
    source: Source
    split: Split = Split()
    counts: Counts = Counts()
    preprocessing: Preprocessing | None = None
    """Absent: found by looking at the first sample, and said in the notes."""
    augment: Augment = "none"
    """Of training batches. ``flip-shift``: a random horizontal flip and a random shift."""
    on_error: Literal["fail", "skip"] = "fail"
    """A sample that can't be used stops the run, or is left out and counted in the notes."""

    @property
    def skips(self) -> bool:
        """Whether unusable samples are left out instead of being an error."""
        return self.on_error == "skip"


def list_specs() -> dict[str, Path]:
    """Every known spec's name and file; a user's own file hides a shipped one."""
    return by_name("calibration")


def find_spec(name: str) -> DataSpec:
    """Load a spec by name or by the path of its file; its own relative path becomes usable.

    Raises:
        DataError: There is none of that name.
        ConfigError: Its file has a wrong key or value.
    """
    path = Path(name)
    if path.suffix != ".toml":
        known = list_specs()
        if name not in known:
            raise DataError(
                f"no data spec '{name}'{nearest(name, known)}; known: {', '.join(known)}; "
                "a file of your own works by its path"
            )
        path = known[name]
    spec = load(path, DataSpec)
    if spec.source.path is None:
        return spec
    source = spec.source.model_copy(update={"path": path.parent / spec.source.path})
    return spec.model_copy(update={"source": source})


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """``(height, width)`` of a size given as one number or two."""
    return (size, size) if isinstance(size, int) else size


def largest_shift(side: int) -> int:
    """Pixels that ``flip-shift`` moves an image side by at most.

    4 for sides of 32 to 64 pixels, as is usual for CIFAR (He et al. 2015); in proportion outside:
    an eighth of smaller sides, a sixteenth of larger ones.
    """
    return min(4, side // 8) if side <= 64 else math.ceil(side / 16)
