# SPDX-License-Identifier: Apache-2.0
"""What a model file is, by its content: nothing is unpickled and nothing runs."""

import io
import json
import struct
from enum import Enum
from pathlib import Path

from edgeprune.errors import ModelError
from edgeprune.model.archive import is_archive
from edgeprune.model.container import open_container
from edgeprune.reading import reason, regular, shown

__all__ = ["Kind", "recognise"]

_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How ``torch.save`` began a file before it wrote zip archives: a pickled magic number."""
_TABLE = 32 * 2**20
"""Bytes of the JSON table of a safetensors file; a hundred thousand tensors need about half."""
_KNOWN = (
    "a torch.export program (.pt2), a state dict (torch.save or safetensors), or with "
    "--trust-pickle TorchScript or a pickled module"
)


class Kind(Enum):
    """The kinds of file that hold a model."""

    PROGRAM = "torch.export program"
    TORCHSCRIPT = "TorchScript"
    SAFETENSORS = "safetensors"
    PICKLED = "torch.save"
    """A state dict or a whole module."""


def recognise(path: Path) -> Kind:
    """Tell what ``path`` is by its first bytes or, of a zip archive, by its members.

    Raises:
        ModelError: It isn't there, can't be read, is empty, damaged, or no model.
    """
    try:
        if path.is_dir():
            raise ModelError(f"{path}: a folder, not a model file; give one of: {_KNOWN}")
        if path.exists():
            regular(path)  # a pipe would wait, and a device may have no end
        with path.open("rb") as file:
            head = file.read(4096)
            size = file.seek(0, io.SEEK_END)
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ModelError(f"{shown(str(path))}: can't be read: {reason(error)}") from None
    if not head:
        raise ModelError(f"{path}: the file is empty")
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if head.startswith(_LEGACY):
        return Kind.PICKLED
    if _is_safetensors(path, head, size):
        return Kind.SAFETENSORS
    if head[:1] == b"\x80" and len(head) > 1 and head[1] in range(2, 6):
        raise ModelError(f"{path}: a plain pickle; write it with torch.save instead")
    raise ModelError(f"{path}: not a model file that edgeprune knows; it takes {_KNOWN}")


def _zip_kind(path: Path) -> Kind:
    with open_container(path) as archive:
        if is_archive(archive):
            return Kind.PROGRAM
        if "constants.pkl" in archive:
            return Kind.TORCHSCRIPT
        if "data.pkl" in archive:
            return Kind.PICKLED
    raise ModelError(f"{path}: a zip archive without a model in it; edgeprune takes {_KNOWN}")


def _is_safetensors(path: Path, head: bytes, size: int) -> bool:
    """Whether the file begins with the length of a JSON table, and that table.

    Raises:
        ModelError: It does, but is cut short.
    """
    if len(head) < 10 or head[8:9] != b"{":
        return False
    (length,) = struct.unpack("<Q", head[:8])
    if length > _TABLE:
        return False
    with path.open("rb") as file:
        text = file.read(8 + length)[8:]
    try:
        table = json.loads(text)
        end = max(
            (e["data_offsets"][1] for n, e in table.items() if n != "__metadata__"), default=0
        )
    except RecursionError:
        raise ModelError(f"{path}: its table of tensors is nested too deeply") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        if len(text) < length:
            raise ModelError(
                f"{path}: damaged or cut short: its table of tensors ends early"
            ) from None
        return False
    if size < 8 + length + end:
        raise ModelError(
            f"{path}: damaged or cut short: {size} bytes instead of {8 + length + end}"
        )
    return True
