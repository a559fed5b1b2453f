# SPDX-License-Identifier: Apache-2.0
"""Files that a command is asked to write: the place is checked before any work."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from edgeprune.errors import OutputError
from edgeprune.workspace import write

__all__ = ["check_place", "save"]


def check_place(path: Path, suffixes: Sequence[str], *, overwrite: bool) -> None:
    """See that a file can go to ``path``, before any work is done for it.

    Args:
        path: The file; an existing one is no obstacle only with ``overwrite``.
        suffixes: Those it may have (``.svg``); none: any.
        overwrite: Whether the user said so.

    Raises:
        OutputError: Another suffix, a folder, there already, or in a folder that isn't there.
    """
    try:
        there = path.exists() or path.is_symlink()
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero byte
        raise OutputError(f"{path}: can't be written: {error}") from None
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file")
    if suffixes and path.suffix.lower() not in suffixes:
        allowed = " or ".join(suffixes)
        raise OutputError(f"{path}: should end in {allowed}; name it {path.name}{suffixes[0]}")
    if there and not overwrite:
        raise OutputError(f"{path}: is there already; --overwrite replaces it")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no folder {path.parent}")


def save(path: Path, text: str) -> None:
    """Write a text; ``path`` is there whole or as it was.

    Raises:
        OutputError: It can't be written.
    """
    try:
        write(path, text)
    except OSError as error:
        with suppress(OSError):
            path.with_name(path.name + ".part").unlink()
        raise OutputError(f"{path}: can't be written: {error.strerror}") from None
