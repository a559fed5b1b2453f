# SPDX-License-Identifier: Apache-2.0
"""Files as a commit has them, written to a folder by the ``git`` program.

What a repository holds may come from anybody: only regular files are written, none outside the
folder, and not more than the limits allow. No hook, filter or pager of the repository runs.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

from edgeprune.errors import InputError, OutputError
from edgeprune.git import commit_of, git
from edgeprune.report.text import plain

__all__ = ["SKIPPED", "at_revision"]

_MOST_FILES = 10_000
_LARGEST, _MOST_IN_ALL = 2**28, 2**30
"""Bytes of one file, and of all: what models for small devices don't come near."""
_REGULAR = ("100644", "100755")
SKIPPED = (".pt", ".pt2", ".pth", ".safetensors")
"""What isn't an artifact and may be large."""


class _Blob(NamedTuple):
    path: PurePosixPath
    """From the repository's top."""
    name: str
    size: int


@contextmanager
def at_revision(revision: str, path: Path, here: Path) -> Iterator[Path]:
    """``path`` as the commit ``revision`` has it, in a folder that goes away afterwards.

    Args:
        revision: Whatever names a commit: ``main``, ``HEAD~3``, ``v1.0``.
        path: A file or a folder, relative to ``here``.
        here: A folder in the repository.

    Raises:
        InputError: There is no git, no repository, no such commit, nothing at the path, or too
            much.
        OutputError: The copy can't be written.
    """
    top = Path(os.fsdecode(git(here, "rev-parse", "--show-toplevel").removesuffix(b"\n")))
    commit = commit_of(here, revision)
    if commit is None:
        raise InputError(f"{plain(revision)}: is neither a path nor a commit of this repository")
    inside = _inside(top, here / path)
    blobs = _blobs(top, commit, inside)
    if not blobs:
        raise InputError(
            f"{plain(revision)}: has nothing at {plain(str(path))}: a commit has only what was "
            "committed; commit it first, or name two paths"
        )
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="edgeprune-")))
            _write(blobs, top, folder)
        except OSError as error:
            told = f"{plain(revision)}: can't be copied to a temporary folder (TMPDIR)"
            raise OutputError(f"{told}: {error.strerror or error}") from None
        yield folder / inside


def _write(blobs: list[_Blob], top: Path, folder: Path) -> None:
    for blob in blobs:
        target = folder.joinpath(*blob.path.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(git(top, "cat-file", "blob", blob.name))


def _inside(top: Path, path: Path) -> str:
    """The path from the repository's top."""
    top, whole = top.resolve(), path.parent.resolve() / path.name
    if not whole.is_relative_to(top):
        raise InputError(f"{plain(str(path))}: is outside the repository {plain(str(top))}")
    return whole.relative_to(top).as_posix()


def _blobs(top: Path, commit: str, inside: str) -> list[_Blob]:
    below = () if inside == "." else ("--", inside)
    listing = git(top, "ls-tree", "-r", "-l", "-z", "--full-tree", commit, *below)
    blobs = []
    for record in listing.split(b"\0")[:-1]:
        facts, _, name = record.partition(b"\t")
        mode, _, blob, size = facts.decode("ascii").split()
        path = PurePosixPath(name.decode("utf-8", "surrogateescape"))
        odd = path.is_absolute() or {"..", ".git"} & set(path.parts)
        if mode in _REGULAR and not odd and path.suffix not in SKIPPED:
            blobs.append(_Blob(path, blob, int(size)))
    total = sum(blob.size for blob in blobs)
    if len(blobs) > _MOST_FILES or total > _MOST_IN_ALL or any(b.size > _LARGEST for b in blobs):
        raise InputError(
            f"{plain(inside)}: {len(blobs)} files of {total:,} bytes at {commit[:10]} are too much "
            "to compare; name a folder of results or a file"
        )
    return blobs
