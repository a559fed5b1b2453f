# SPDX-License-Identifier: Apache-2.0
"""``.npz`` files as data."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from edgeprune.data.arrays import found_arrays
from edgeprune.data.pool import Found
from edgeprune.data.spec import DataSpec
from edgeprune.errors import DataError, InputError
from edgeprune.model import Wanted
from edgeprune.profiler.npz import opened

__all__ = ["is_npz", "open_npz"]


def is_npz(path: Path) -> bool:
    """Whether a file is a zip of arrays only."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def open_npz(path: Path, spec: DataSpec, where: str, wanted: Sequence[Wanted] = ()) -> Found:
    """The arrays of an ``.npz``.

    Raises:
        DataError: It can't be read, holds pickled objects, or has no usable arrays.
    """
    try:
        with opened(path) as file:
            return found_arrays(file.read, file.names, spec, where, wanted)
    except DataError:
        raise
    except InputError as error:
        raise DataError(str(error)) from None
