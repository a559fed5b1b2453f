# SPDX-License-Identifier: Apache-2.0
"""Which format a file has, by its content.

Runs on the device: standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from edgeprune.errors import InputError

__all__ = ["detect_format"]

_ONNX_GRAPH_FIELD = 7
_ONNX_LAST_FIELD = 26


def detect_format(path: Path) -> str:
    """Say ``onnx`` or ``tflite`` by the content of ``path``.

    Raises:
        InputError: The file can't be read, or is neither (a truncated ONNX file is neither).
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait
            raise InputError(f"{path}: can't be read: it is no file")
        with path.open("rb") as file:
            head = file.read(8)
            if head[4:8] == b"TFL3":
                return "tflite"
            if _is_onnx(file, path.stat().st_size):
                return "onnx"
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: can't be read: {why}") from None
    raise InputError(f"{path}: neither an ONNX nor a TFLite file, or a truncated one")


def _is_onnx(file: BinaryIO, size: int) -> bool:
    """Whether the whole file is a protobuf message with ONNX's field numbers and a graph."""
    file.seek(0)
    graph = False
    while file.tell() < size:
        tag = _varint(file)
        if tag is None or not 0 < tag >> 3 <= _ONNX_LAST_FIELD:
            return False
        length = _varint(file)
        if length is None or tag & 7 not in (0, 2) or (tag & 7 and length > size):
            return False
        if tag & 7 == 2:
            graph = graph or tag >> 3 == _ONNX_GRAPH_FIELD
            file.seek(length, os.SEEK_CUR)
    return graph and file.tell() == size


def _varint(file: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 64, 7):
        byte: bytes = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None
