# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or as they were, and the look at their place before any work."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from edgeprune.errors import OutputError

__all__ = ["check_place", "save", "write"]

Content = str | Iterable[bytes | memoryview]
"""A text, or the pieces of its bytes."""


def check_place(
    path: Path,
    suffixes: Sequence[str] = (),
    *,
    overwrite: bool,
    parents: bool = False,
    rule: str | None = None,
) -> None:
    """See that a file can go to ``path``, before any work is done for it.

    Args:
        path: The file; an existing one is no obstacle only with ``overwrite``.
        suffixes: Those it may have (``.svg``); none: any.
        overwrite: Whether the user said so.
        parents: Whether its folder will be made.
        rule: What is said of another suffix; ``None``: which it should have.

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
        told = rule or f"should end in {' or '.join(suffixes)}"
        raise OutputError(f"{path}: {told}; name it {path.name}{suffixes[0]}")
    if there and not overwrite:
        raise OutputError(f"{path}: is there already; --overwrite replaces it")
    if not parents and not path.parent.is_dir():
        raise OutputError(f"{path}: can't be written: there is no folder {path.parent}")


def save(path: Path, content: Content, *, parents: bool = False) -> None:
    """``write``, whose failure is one line that names ``path``.

    Args:
        path: The file.
        content: A text, or the pieces of its bytes.
        parents: Whether to make its folder.

    Raises:
        OutputError: It can't be written.
    """
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        write(path, content)
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from None


def write(path: Path, content: Content) -> None:
    """Write a file that is there whole or as it was, and still there after a power cut.

    Raises:
        OSError: It can't be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.writelines([content.encode()] if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
