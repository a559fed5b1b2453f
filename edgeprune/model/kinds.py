# SPDX-License-Identifier: Apache-2.0
"""What a model file is, by its content: nothing is unpickled and nothing runs."""

import io
import json
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from edgeprune.errors import ModelError
from edgeprune.model.archive import is_archive

__all__ = ["Kind", "Pickle", "inspect_pickle", "recognise"]

_LEGACY = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""How ``torch.save`` began a file before it wrote zip archives: a pickled magic number."""
_KNOWN = (
    "a torch.export program (.pt2), a state dict (torch.save or safetensors), TorchScript, "
    "or a pickled module with --trust-pickle"
)


class Kind(Enum):
    """The kinds of file that hold a model."""

    PROGRAM = "torch.export program"
    TORCHSCRIPT = "TorchScript"
    SAFETENSORS = "safetensors"
    PICKLED = "torch.save"
    """A state dict or a whole module: ``inspect_pickle`` tells."""


@dataclass(frozen=True)
class Pickle:
    """What unpickling a file would need, read off its opcodes."""

    outer: str | None
    """The class of the outermost object; ``None`` for a plain dictionary, list or tuple."""
    classes: tuple[str, ...]
    """Every class or function named, in order, each once."""
    module: bool
    """Whether it holds an ``nn.Module``: their inner dictionaries are in it."""


def recognise(path: Path) -> Kind:
    """Tell what ``path`` is by its first bytes or, of a zip archive, by its members.

    Raises:
        ModelError: It isn't there, can't be read, is empty, damaged, or no model.
    """
    if path.is_dir():
        raise ModelError(f"{path}: a folder, not a model file; give one of: {_KNOWN}")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            size = file.seek(0, io.SEEK_END)
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror or error}") from None
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
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise ModelError(f"{path}: damaged or cut short: {error}") from None
    if is_archive(names):
        return Kind.PROGRAM
    leaves = {name.partition("/")[2] for name in names}
    if "constants.pkl" in leaves and any(leaf.startswith("code/") for leaf in leaves):
        return Kind.TORCHSCRIPT
    if "data.pkl" in leaves:
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
    if length > 100_000_000:
        return False
    with path.open("rb") as file:
        text = file.read(8 + length)[8:]
    try:
        table = json.loads(text)
        end = max(
            (e["data_offsets"][1] for n, e in table.items() if n != "__metadata__"), default=0
        )
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


def inspect_pickle(path: Path) -> Pickle:
    """Read the opcodes of a file that ``torch.save`` wrote, without running them.

    Raises:
        ModelError: It is damaged.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                (name,) = (n for n in archive.namelist() if n.partition("/")[2] == "data.pkl")
                return _inspect(archive.read(name), skip=0)
        # Magic number, protocol and machine come before it, each a pickle of its own.
        return _inspect(path.read_bytes(), skip=3)
    except (OSError, ValueError, zipfile.BadZipFile, zipfile.error, EOFError, NotImplementedError):
        raise ModelError(f"{path}: damaged or cut short") from None


def _inspect(data: bytes, skip: int) -> Pickle:
    stream = io.BytesIO(data)
    for _ in range(skip):
        for _ in pickletools.genops(stream):
            pass
    strings: set[str] = set()
    classes: list[str] = []
    first = None
    for name, argument in _calls(stream):
        if name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "MARK", "class"):
            first = first or name
        if name == "class":
            classes.append(argument)
        elif argument:
            strings.add(argument)
    module = {"_parameters", "_buffers", "_modules"} <= strings
    outer = classes[0] if first == "class" else None
    return Pickle(outer, tuple(dict.fromkeys(classes)), module)


def _calls(stream: io.BytesIO) -> Iterator[tuple[str, str]]:
    """Opcodes with their texts; each class or function as ``("class", "module.name")``.

    Since protocol 4 a class is named by the two texts on top of the stack, either of which may
    come from the memo.
    """
    memo: list[str] = []
    recent: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        name = opcode.name
        text = argument if isinstance(argument, str) else ""
        if name in ("GLOBAL", "INST"):
            yield "class", text.replace(" ", ".", 1)
        elif name == "STACK_GLOBAL":
            yield "class", ".".join(recent[-2:])
        elif "UNICODE" in name:
            recent.append(text)
            yield name, text
        elif name == "MEMOIZE":
            memo.append(recent[-1] if recent else "")
        elif name in ("BINGET", "LONG_BINGET") and isinstance(argument, int):
            recent.append(memo[argument] if argument < len(memo) else "")
        else:
            yield name, ""
