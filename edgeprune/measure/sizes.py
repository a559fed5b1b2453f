# SPDX-License-Identifier: Apache-2.0
"""The bytes of artifacts, those of weights in files of their own too."""

from collections.abc import Mapping
from pathlib import Path

from edgeprune.device.weights import weight_files
from edgeprune.errors import InputError
from edgeprune.figure import Figure, counted

__all__ = ["size", "sizes"]


def sizes(files: Mapping[str, Path]) -> dict[str, Figure]:
    """The size of each file, in B.

    Raises:
        InputError: One can't be read, or is no file, or its weights aren't there.
    """
    return {name: size(path) for name, path in files.items()}


def size(path: Path) -> Figure:
    """The size of a file and of those with its weights, in B.

    Raises:
        InputError: One can't be read, or is no file.
    """
    try:
        own = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the .onnx or .tflite files in it")
    beside = weight_files(path)
    try:
        more = sum(file.stat().st_size for file in beside)
    except OSError as error:
        raise InputError(f"{error.filename}: can't be read: {error.strerror}") from None
    how = "size of the file and of those with its weights" if beside else "size of the file"
    return counted(own + more, "B", how)
