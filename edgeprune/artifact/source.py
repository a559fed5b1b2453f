# SPDX-License-Identifier: Apache-2.0
"""The bytes of a file nobody vouches for: small ones whole, large ones in blocks.

No memory map: a file that is cut while it is mapped ends the process.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Protocol, overload

from edgeprune.artifact import limits
from edgeprune.errors import InputError
from edgeprune.reading import reason, regular, shown

__all__ = ["Content", "digest", "opened", "regular", "shown"]

_BLOCK = 2**18
_BLOCKS = 16
_CHUNK = 2**20


class Content(Protocol):
    """What ``bytes`` can do that the readers need."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, key: int) -> int: ...

    @overload
    def __getitem__(self, key: slice) -> bytes: ...


@contextmanager
def opened(path: Path, whole: int = limits.WHOLE) -> Iterator[Content]:
    """The content of ``path``; files above ``whole`` bytes are read where they are looked at.

    Raises:
        InputError: It can't be read, is no regular file, or is larger than any model.
    """
    size = regular(path).st_size
    if size > limits.FILE:
        raise InputError(
            f"{shown(str(path))}: {size} bytes; a model file has at most {limits.FILE}, "
            "with larger weights in files of their own"
        )
    try:
        # A pipe put in the file's place meanwhile must not make this wait.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with FileIO(os.open(path, flags), "rb") as file:
            blocks = _Blocks(file, size, shown(str(path)))
            yield blocks[0:size] if size <= whole else blocks
    except OSError as error:
        raise InputError(f"{shown(str(path))}: can't be read: {reason(error)}") from None


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        InputError: It can't be read or is no regular file.
    """
    regular(path)
    summary = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                summary.update(chunk)
    except OSError as error:
        raise InputError(f"{shown(str(path))}: can't be read: {reason(error)}") from None
    return summary.hexdigest()


class _Blocks:
    """A file that reads like ``bytes``; at most ``_BLOCKS`` blocks of it are in memory."""

    def __init__(self, file: FileIO, size: int, name: str) -> None:
        self._file = file
        self._size = size
        self._name = name
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, key: int) -> int: ...

    @overload
    def __getitem__(self, key: slice) -> bytes: ...

    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, int):
            if not 0 <= key < self._size:
                raise IndexError(key)
            return self._block(key // _BLOCK)[key % _BLOCK]
        start, stop, _ = key.indices(self._size)
        number, offset = divmod(start, _BLOCK)
        if stop <= start:
            return b""
        if offset + stop - start <= _BLOCK:
            return self._block(number)[offset : offset + stop - start]
        return self._read(start, stop - start)

    def _block(self, number: int) -> bytes:
        block = self._kept.get(number)
        if block is None:
            start = number * _BLOCK
            block = self._kept[number] = self._read(start, min(_BLOCK, self._size - start))
            if len(self._kept) > _BLOCKS:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(number)
        return block

    def _read(self, start: int, count: int) -> bytes:
        self._file.seek(start)
        parts = []
        while count:
            part = self._file.read(count)
            if not part:
                raise InputError(f"{self._name}: became shorter while it was read")
            parts.append(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
