# SPDX-License-Identifier: Apache-2.0
"""The files beside an ONNX model that hold its weights, which it is nothing without."""

from __future__ import annotations

from pathlib import Path

from edgeprune.artifact import read
from edgeprune.errors import InputError
from edgeprune.profiler.formats import detect_format

__all__ = ["weight_files"]

_CHUNK = 1 << 20
_SIGN = b"location"
"""The key under which an ONNX file names such a file."""


def weight_files(path: Path) -> tuple[Path, ...]:
    """The files with weights of the model at ``path``; most models have none.

    All of them are in the model's folder, or below it.

    Raises:
        InputError: One of them isn't there, or is too short, or outside of that folder.
    """
    try:
        if detect_format(path) != "onnx" or not _has(path, _SIGN):
            return ()
    except (InputError, OSError):  # what is wrong with the model itself, its runtime says
        return ()
    return tuple(sorted(read(path).files.keys() - {path}))


def _has(path: Path, sign: bytes) -> bool:
    """Whether the file holds ``sign``: reading the whole graph takes far longer."""
    kept = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if sign in kept + chunk:
                return True
            kept = chunk[-len(sign) :]
    return False
