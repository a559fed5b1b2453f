# SPDX-License-Identifier: Apache-2.0
"""What is brought to a board: the artifacts of one result, each with its hash, as one version."""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeprune.deploy.health import Health
from edgeprune.errors import InputError

__all__ = [
    "MANIFEST",
    "SUMS",
    "Piece",
    "Release",
    "foreign_release",
    "is_version",
    "make_release",
    "plain_name",
]

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
"""Stands in each version's folder, so that the board itself can tell whether all is whole."""

_RUN = re.compile(r"[0-9a-f]{12,}")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,99}")
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Piece:
    """A file of a version."""

    name: str
    path: Path
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Release:
    """One version of a model, as it will lie on a board."""

    version: str
    """The name of its folder."""
    spare: str
    """The name where a folder of the first name holds something else."""
    pieces: tuple[Piece, ...]
    """The artifacts and the manifest."""
    health: Health | None
    """What the artifacts answer; ``None``: nobody recorded it."""
    batch: Path
    """Where the arrays of ``health`` are."""

    @property
    def artifacts(self) -> tuple[Piece, ...]:
        """The files that are models."""
        return tuple(piece for piece in self.pieces if piece.name != MANIFEST)

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(piece.bytes for piece in self.pieces)

    def sums(self) -> str:
        """The text of ``SHA256SUMS``."""
        return "".join(f"{piece.sha256}  {piece.name}\n" for piece in self.pieces)


def make_release(
    run: str,
    folder: Path,
    hashes: Mapping[str, str],
    chosen: Sequence[str],
    health: Health | None,
    *,
    manifest: Path | None = None,
) -> Release:
    """The version of ``run`` with the artifacts ``chosen`` of ``hashes``.

    Args:
        run: Names the run, in hex; its first 12 digits name the version.
        folder: Where the files and ``manifest.json`` are.
        hashes: sha256 of each artifact, by file name.
        chosen: Which of them to bring.
        health: Of the manifest.
        manifest: The folder that ``manifest.json`` is in, where that is another one.

    Raises:
        InputError: A name could lead out of its folder, or a file isn't what its hash says.
    """
    if not _RUN.fullmatch(run):
        raise InputError(f"{folder / MANIFEST}: run '{run}' isn't a name in hexadecimal digits")
    if not chosen:
        raise InputError(f"{folder}: has no artifact of these formats to deploy")
    pieces = [_piece(folder, name, hashes[name]) for name in chosen]
    digest = hashlib.sha256("".join(f"{p.sha256} {p.name}\n" for p in pieces).encode()).hexdigest()
    part = "" if set(chosen) == set(hashes) else "-" + "-".join(sorted(_kinds(chosen)))
    version = run[:12] + part
    if health is not None:
        plain_name(health.file, folder / MANIFEST)
    return Release(
        version=version,
        spare=f"{version}-{digest[:6]}",
        pieces=(*pieces, _piece(folder if manifest is None else manifest, MANIFEST, None)),
        health=health,
        batch=folder / (health.file if health is not None else MANIFEST),
    )


@contextmanager
def foreign_release(folder: Path, formats: Sequence[str]) -> Iterator[Release]:
    """The version of a folder without a manifest: its ``.onnx`` and ``.tflite`` files.

    It is named by their hashes, and gets a manifest that tells just these.

    Raises:
        InputError: There is none, or a name could lead out of its folder.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: can't be read: {error.strerror}") from None
    wanted = [path for path in paths if path.suffix in (".onnx", ".tflite") and path.is_file()]
    hashes = {path.name: _piece(folder, path.name, None).sha256 for path in wanted}
    chosen = [path.name for path in wanted if not formats or path.suffix[1:] in formats]
    run = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    with tempfile.TemporaryDirectory(prefix="edgeprune-") as place:
        told = {"schema_version": 1, "run": run, "files": hashes}
        (Path(place) / MANIFEST).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
        yield make_release(run, folder, hashes, chosen, None, manifest=Path(place))


def is_version(name: str) -> bool:
    """Whether a folder's name can be one that ``make_release`` gave."""
    return _VERSION.fullmatch(name) is not None


def plain_name(name: str, where: Path) -> str:
    """``name``, which is data of ``where``, if it names a file in a folder and nothing else.

    Raises:
        InputError: It doesn't, or a list of hashes couldn't hold it.
    """
    odd = not name.isprintable() or set(name) & set("/\\") or name[:1] in (".", "-", "")
    if odd or len(name.encode()) > _LONGEST_NAME or name == SUMS:
        raise InputError(
            f"{where}: {name!r} is no plain file name: letters, digits, spaces and the like are "
            "allowed, but no '/' or '\\' and no leading '.' or '-'"
        )
    return name


def _kinds(names: Sequence[str]) -> set[str]:
    return {re.sub(r"[^0-9A-Za-z]", "", Path(name).suffix) or "file" for name in names}


def _piece(folder: Path, name: str, expected: str | None) -> Piece:
    path = folder / plain_name(name, folder / MANIFEST)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.seek(0, 2)
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    if expected is not None and digest != expected:
        raise InputError(
            f"{path}: isn't the file that {MANIFEST} tells of: its sha256 is {digest[:12]}..., "
            f"not {expected[:12]}...; compress again, or bring both from the same place"
        )
    return Piece(name, path, digest, size)
