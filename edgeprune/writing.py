# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or as they were, and the look at their place before any work."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from edgeprune.errors import OutputError

__all__ = ["check_place", "save", "save_all", "write"]

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
        OutputError: Another suffix, a folder, there already, or in a folder that isn't there or
            can't be written.
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
    with _told(path):
        _try(path)


def save(path: Path, content: Content, *, parents: bool = False) -> None:
    """``write``, whose failure is one line that names ``path``.

    Args:
        path: The file.
        content: A text, or the pieces of its bytes.
        parents: Whether to make its folder.

    Raises:
        OutputError: It can't be written.
    """
    with _told(path):
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        write(path, content)


def save_all(files: Mapping[Path, Content]) -> None:
    """``save`` for files that belong together, wherever each of them goes.

    All are written, each beside its place, before the first one is put there by a rename. The
    renames follow the order of ``files``, so that the last one says that all are there.

    Raises:
        OutputError: One can't be written; where that shows before the renames, as with a disk that
            is full, no place is touched.
    """
    parts = {path: _part(path) for path in files}
    try:
        for path, content in files.items():
            with _told(path):
                _fill(parts[path], content)
        for path, part in parts.items():
            with _told(path):
                part.replace(path)
    finally:
        for part in parts.values():
            with suppress(OSError):  # most often it isn't there any more
                part.unlink()


def write(path: Path, content: Content) -> None:
    """Write a file that is there whole or as it was, and still there after a power cut.

    Raises:
        OSError: It can't be written.
    """
    part = _part(path)
    try:
        _fill(part, content)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _fill(part: Path, content: Content) -> None:
    with part.open("wb") as file:
        file.writelines([content.encode()] if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: can't be written: {error.strerror or error}") from error


def _try(path: Path) -> None:
    """Make a file without a name where ``path`` shall be, or where its folder shall be made.

    Permissions alone don't tell: root has all of them, and yet can't write in ``/proc``.
    """
    folder = next(place for place in path.absolute().parents if place.exists())
    with suppress(FileNotFoundError):
        # The longest name that is made beside a file (workspace.py)
        (folder / f".{path.name}.work").lstat()
    with TemporaryFile(dir=folder):
        pass
