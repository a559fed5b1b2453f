# SPDX-License-Identifier: Apache-2.0
"""``.npz`` files that nobody vouches for: headers first, then only the arrays that are asked for.

No pickle is ever read, and nothing is inflated that the file's own directory doesn't declare. Runs
on the device: standard library and numpy, Python 3.8 or newer.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import stat
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import InputError

__all__ = ["Npz", "open_member", "opened"]

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

_ALWAYS = 2**30
"""Bytes that any file may inflate to."""
_RATIO = 100
"""How many times its own size a file may inflate to beyond that."""
_LARGEST = 8 * 2**30
"""Bytes of one array in memory."""
_VALUE = 8
"""Bytes that a value may take once it is read: small integers become 64-bit ones."""
_HEADER = 10_000
"""Bytes of an array's header, as numpy itself limits it."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Npz:
    """An open ``.npz`` file."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, size: int) -> None:
        self._archive = archive
        self._path = path
        self._most = max(_ALWAYS, _RATIO * size)
        members = archive.namelist()
        if not members or not all(name.endswith(".npy") for name in members):
            raise InputError(f"{path}: no .npz file; it holds something else than .npy arrays")
        self.names = tuple(name[: -len(".npy")] for name in members)
        total = sum(member.file_size for member in archive.infolist())
        if total > self._most:
            raise self._bomb("it", total)

    def read(self, name: str) -> Array:
        """One array.

        Raises:
            InputError: It isn't there, is damaged, too large, or holds Python objects.
        """
        what = f"{self._path}: array '{name}'"
        try:
            member = self._archive.getinfo(f"{name}.npy")
        except KeyError:
            names = ", ".join(self.names)
            raise InputError(f"{self._path}: has no array '{name}'; there: {names}") from None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's own about odd text in a header
                with open_member(self._archive, member) as file:
                    self._check(file, member, what)
                with open_member(self._archive, member) as file:
                    return np.lib.format.read_array(file, allow_pickle=False)
        except InputError:
            raise
        except Exception as error:  # hostile bytes raise anything
            raise InputError(f"{what} can't be read: {_reason(error)}") from None

    def _check(self, file: Any, member: zipfile.ZipInfo, what: str) -> None:
        """Hold what the header says against the file before memory is taken for it."""
        shape, dtype = _header(file)
        if dtype.hasobject:
            raise InputError(f"{what} holds Python objects, which would run code; not read")
        count = math.prod(shape)
        needed = count * dtype.itemsize
        if needed > member.file_size - file.tell():
            raise InputError(
                f"{what} is truncated: {needed} bytes in its header, fewer in the file"
            )
        held = count * max(dtype.itemsize, _VALUE)
        if held > self._most:
            raise self._bomb(f"array '{member.filename[: -len('.npy')]}'", held)
        if needed > _LARGEST:
            raise InputError(
                f"{what} has {needed >> 30} GiB; at most {_LARGEST >> 30} GiB are read into "
                "memory: use a datasets folder, an image folder or package.module:factory"
            )

    def _bomb(self, what: str, size: int) -> InputError:
        return InputError(
            f"{self._path}: {what} would take {size / 2**30:.3g} GiB, more than {_ALWAYS >> 30} "
            f"GiB and {_RATIO} times the size of the file; not read (if it is meant so, save it "
            "with numpy.savez, which doesn't compress)"
        )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Npz]:
    """Open an ``.npz``; nothing but its directory is read.

    Raises:
        InputError: It is none, can't be read, or would inflate to too much.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - a zero byte raises alike in every Python
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: can't be read as .npz: it is no file")
        archive = zipfile.ZipFile(path)
    except InputError:
        raise
    except Exception as error:  # hostile bytes raise anything
        raise InputError(f"{path}: can't be read as .npz: {_reason(error)}") from None
    with archive:
        yield Npz(archive, path, status.st_size)


def open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    """Open a member of an archive that nobody vouches for.

    Only what inflates step by step is allowed. Read it in parts or ``read(member.file_size)``:
    ``read()`` inflates up to 2 GiB whatever size the member declares.

    Raises:
        ValueError: It is compressed in another way.
    """
    if member.compress_type not in _METHODS:
        raise ValueError("it is neither stored nor deflated")
    return archive.open(member)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    length = file.read(2 if version == (1, 0) else 4)
    size = int.from_bytes(length, "little")
    if size > _HEADER:
        raise ValueError(f"its header has {size} bytes; at most {_HEADER} are read")
    whole = io.BytesIO(length + file.read(size))
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(whole)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(whole)
    return shape, dtype


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    return " ".join((text or str(error) or type(error).__name__).split())[:200]
