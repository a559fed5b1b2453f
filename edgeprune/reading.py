# SPDX-License-Identifier: Apache-2.0
"""Paths that nobody vouches for: what may be read as a file, and how a path is shown."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edgeprune.errors import InputError, printable

__all__ = ["exists", "reason", "regular", "shown"]

_SHOWN = 120


def shown(text: str) -> str:
    """A name out of a file, or a path, as one short line that any terminal can print.

    A long one loses its middle: its end is the file's name.
    """
    if len(text) > _SHOWN:
        text = f"{text[: _SHOWN // 3]}...{text[3 - _SHOWN + _SHOWN // 3 :]}"
    return printable(text)


def regular(path: Path, what: str = "") -> os.stat_result:
    """The status of ``path``, which must be a file: not a folder, a pipe or a device.

    Raises:
        InputError: It isn't there, can't be reached, or is something else.
    """
    name = what or shown(str(path))
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise InputError(f"{name}: can't be read: {reason(error)}") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{name}: {_kind(status.st_mode)}, where a file is needed")
    return status


def exists(path: Path) -> bool:
    """Whether something is at ``path``; at a name that no file can have, nothing is."""
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, a loop of links, a zero byte
        return False


def reason(error: Exception) -> str:
    """What the system says of a file, without its number and the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((kind for test, kind in kinds if test(mode)), "a device")
