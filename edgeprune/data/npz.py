# SPDX-License-Identifier: Apache-2.0
"""``.npz`` files: headers first, then only the arrays that are used; pickles are never read."""

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune.data.arrays import found_arrays
from edgeprune.data.pool import Found
from edgeprune.data.spec import DataSpec
from edgeprune.errors import DataError
from edgeprune.model import Wanted

__all__ = ["is_npz", "open_npz"]

_LIMIT = 8 * 2**30
"""Bytes of one array; more isn't read into memory."""
_HEADER_LIMIT = 10_000


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
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if not names or not all(name.endswith(".npy") for name in archive.namelist()):
                raise DataError(f"{where}: no .npz file; it holds something else than .npy arrays")
            return found_arrays(
                lambda name: _read(archive, name, where), names, spec, where, wanted
            )
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{where}: can't be read as .npz: {error}") from None


def _read(archive: zipfile.ZipFile, name: str, where: str) -> NDArray[Any]:
    what = f"{where}: array '{name}'"
    member = archive.getinfo(f"{name}.npy")
    try:
        with archive.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file, max_header_size=_HEADER_LIMIT)
            if dtype.hasobject:
                raise DataError(f"{what} holds Python objects, which would run code; not read")
            # The header's word is checked before memory is taken for it.
            needed = math.prod(shape) * dtype.itemsize
            if needed > member.file_size - file.tell():
                raise DataError(
                    f"{what} is truncated: {needed} bytes in its header, fewer in the file"
                )
            if needed > _LIMIT:
                raise DataError(
                    f"{what} has {needed >> 30} GiB; at most {_LIMIT >> 30} GiB are read into "
                    "memory: use a datasets folder, an image folder or package.module:factory"
                )
        with archive.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False, max_header_size=_HEADER_LIMIT)
    except DataError:
        raise
    except Exception as error:  # hostile bytes raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{what} can't be read: {reason}") from None
