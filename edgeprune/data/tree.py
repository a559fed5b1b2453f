# SPDX-License-Identifier: Apache-2.0
"""Files of a folder or of a ``.zip``, seen the same way; a zip is never unpacked to disk."""

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from edgeprune.data.pool import SampleError
from edgeprune.errors import DataError
from edgeprune.profiler.npz import open_member

__all__ = ["FolderTree", "Tree", "ZipTree", "checksum", "open_tree"]

_FILE_LIMIT = 64 * 2**20
"""Bytes of one image file, uncompressed. The largest camera photos stay below."""
_ZIP_TOTAL = 2**30
_ZIP_RATIO = 100
"""A zip that unpacks to more than ``_ZIP_TOTAL`` and this many times its size is refused."""
_DEPTH = 12
"""Folders below the root that are looked into."""


class Tree(Protocol):
    """Files below a root, named by relative POSIX paths."""

    files: dict[str, int]
    """Size in bytes of each file, in order of names."""
    folders: frozenset[str]

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            SampleError: It can't be read, or is larger than 64 MiB.
        """


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


class FolderTree:
    """A folder on disk. Links are followed; hidden names are left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        files: dict[str, int] = {}
        folders: set[str] = set()
        try:
            _walk(root, "", files, folders, set())
        except OSError as error:
            raise DataError(f"{error.filename}: can't be read: {error.strerror}") from None
        self.files = dict(sorted(files.items()))
        self.folders = frozenset(folders)

    def read(self, name: str) -> bytes:
        """Content of a file."""
        if self.files[name] > _FILE_LIMIT:
            raise SampleError(f"{self.root / name}: larger than {_FILE_LIMIT >> 20} MiB")
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise SampleError(f"{self.root / name}: can't be read: {error.strerror}") from None


def _walk(
    root: Path, prefix: str, files: dict[str, int], folders: set[str], seen: set[tuple[int, int]]
) -> None:
    # A link to a folder above would go round for ever, so each folder is entered once.
    place = (root / prefix).stat()
    if (place.st_dev, place.st_ino) in seen or prefix.count("/") > _DEPTH:
        return
    seen.add((place.st_dev, place.st_ino))
    for path in (root / prefix).iterdir():
        name = f"{prefix}{path.name}"
        if _hidden(path.name):
            continue
        if path.is_dir():
            folders.add(name)
            _walk(root, f"{name}/", files, folders, seen)
        elif path.is_file():
            files[name] = path.stat().st_size


class ZipTree:
    """The members of a ``.zip``, each read into memory when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DataError(f"{path}: can't be read as a zip file: {error}") from None
        members = [i for i in self._zip.infolist() if not _hidden(i.filename.strip("/"))]
        self._members = {i.filename: i for i in members if not i.is_dir()}
        self.files = {name: self._members[name].file_size for name in sorted(self._members)}
        self.folders = frozenset(
            {i.filename.strip("/") for i in members if i.is_dir()}
            | {parent for name in self.files for parent in _parents(name)}
        )
        total = sum(self.files.values())
        if total > max(_ZIP_TOTAL, _ZIP_RATIO * path.stat().st_size):
            raise DataError(
                f"{path}: unpacks to {total} bytes, more than {_ZIP_RATIO} times its size; "
                "refused as a zip bomb (unpack it and give the folder if it is none)"
            )

    def read(self, name: str) -> bytes:
        """Content of a member; never more bytes than its entry declares."""
        member = self._members[name]
        if member.file_size > _FILE_LIMIT:
            raise SampleError(f"{self.path}/{name}: larger than {_FILE_LIMIT >> 20} MiB")
        try:
            with open_member(self._zip, member) as file:
                content: bytes = file.read(member.file_size)
            return content
        except Exception as error:  # hostile bytes raise anything: zlib, struct, zipfile errors
            raise SampleError(f"{self.path}/{name}: can't be read: {error}") from None


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def open_tree(path: Path) -> Tree:
    """The files of a folder or zip.

    Raises:
        DataError: It is neither, can't be read, or is a zip bomb.
    """
    return FolderTree(path) if path.is_dir() else ZipTree(path)


def listing(files: Iterable[tuple[str, int]]) -> str:
    """One line for each file, its name and size in bytes, in order of names."""
    return "".join(f"{name}\t{size}\n" for name, size in sorted(files))


def checksum(path: Path) -> str:
    """sha256 in hex: of a file's bytes; of a folder, of its listing.

    The listing has a line ``name<tab>bytes`` for each file below the folder, in order of names
    (relative, ``/`` between folders, UTF-8), without hidden ones. It tells another data set or a
    missing file at the cost of no reading; it doesn't tell a changed byte.

    Raises:
        DataError: The path can't be read.
    """
    if path.is_dir():
        text = listing(FolderTree(path).files.items())
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None
