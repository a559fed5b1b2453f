# SPDX-License-Identifier: Apache-2.0
"""What ``torch.save`` wrote: told by its opcodes, and read without running anything of it."""

import io
import pickle
import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from edgeprune.errors import ModelError
from edgeprune.model.container import Container, check_claim
from edgeprune.model.program import identity, quietly

__all__ = ["Pickle", "Untrusted", "is_zip", "read_tensors", "rewritten"]

_LONGEST = 64 * 2**20
"""Bytes of a pickle itself; its tensors are beside it."""
_OBJECTS = 20_000_000
_PLAIN = re.compile(
    r"collections\.(OrderedDict|Counter)|(builtins|__builtin__)\.(set|complex)|_codecs\.encode"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\.nn\.parameter\.Parameter|torch\.(Size|device)|torch\.serialization\._get_layout"
    r"|torch(\.storage)?\.\w+Storage"
    r"|torch\.(bool|b?float\w+|u?int\d+|complex\d+|double|half|long|short|uint8)"
)
"""What plain tensors and the counters beside them need. torch itself takes more: a ``bytearray`` or
a bare ``torch.Tensor`` of any size, sparse and quantized tensors."""
_MEMBERS = re.compile(
    r"data\.pkl|data/\w+|version|byteorder|\.format_version|\.storage_alignment"
    r"|\.data/(version|serialization_id)"
)


class Untrusted(ModelError):
    """Only unpickling could read the file."""

    def __init__(self, found: "Pickle") -> None:
        super().__init__("a pickle of more than tensors")
        self.found = found


@dataclass(frozen=True)
class Pickle:
    """What unpickling a file would need, read off its opcodes."""

    outer: str | None
    """The class of the outermost object; ``None`` for a plain dictionary, list or tuple."""
    classes: tuple[str, ...]
    """Every class or function named, in order, each once."""
    module: bool
    """Whether it holds an ``nn.Module``: their inner dictionaries are in it."""

    @property
    def foreign(self) -> tuple[str, ...]:
        """The classes and functions that plain tensors don't need."""
        return tuple(name for name in self.classes if not _PLAIN.fullmatch(name))


def is_zip(file: BinaryIO) -> bool:
    """Whether ``file`` begins as a zip archive; it is at its start afterwards."""
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    return head == b"PK\x03\x04"


def read_tensors(file: BinaryIO) -> Any:
    """What ``torch.save`` wrote, if it is tensors in plain containers.

    Raises:
        Untrusted: It holds something else.
        ModelError: It is damaged, or claims more than it holds.
    """
    source: Any = file
    if is_zip(file):
        source, size = rewritten(Container(file)), file.seek(0, io.SEEK_END)
    else:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        # Magic number, protocol and machine come first, then the value, then its tensors' names.
        found = _inspect(file, pickles=5, main=3)
        if found.foreign:
            raise Untrusted(found)
        file.seek(0)
    try:
        with quietly():
            value = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"damaged: {str(error).splitlines()[0][:200]}") from None
    _check(value, size)
    return value


def rewritten(archive: Container) -> io.RawIOBase:
    """A new archive of the tensors in one that ``torch.save`` wrote.

    Raises:
        Untrusted: It holds something else.
        ModelError: It is damaged.
    """
    foreign = next((name for name in archive if not _MEMBERS.fullmatch(name)), None)
    if foreign is not None:
        raise ModelError(f"it holds {foreign!r}, which torch.save doesn't write")
    if "data.pkl" not in archive:
        raise ModelError("damaged: data.pkl is missing")
    tensors = {name for name in archive if name.startswith("data/")}
    rest = {n: archive.read(n, _LONGEST) for n in archive if n not in tensors}
    found = _inspect(io.BytesIO(rest["data.pkl"]))
    if found.foreign:
        raise Untrusted(found)
    return archive.rewritten({"data.pkl": rest.pop("data.pkl"), **rest}, tensors)


def _check(value: Any, size: int) -> None:
    """Refuse tensors that aren't plain ones, or are much larger than the file.

    Raises:
        ModelError: There is one.
    """
    claims: dict[object, int] = {}
    seen: set[int] = set()
    left = [("", value)]
    while left:
        name, part = left.pop()
        if id(part) in seen:  # few opcodes make a tree of any size from shared parts
            continue
        seen.add(id(part))
        if isinstance(part, Tensor):
            if part.layout is not torch.strided or part.device.type != "cpu" or part.is_quantized:
                raise ModelError(f"the tensor '{name}' isn't a plain one on the CPU")
            claims[identity(part)] = part.numel() * part.itemsize
        elif isinstance(part, dict):
            left += [(str(key)[:80], one) for key, one in part.items()]
        elif isinstance(part, list | tuple | set):
            left += [(name, one) for one in part]
    check_claim(sum(claims.values()), size)


def _inspect(stream: BinaryIO, pickles: int = 1, main: int = 0) -> Pickle:
    """Read the opcodes of some pickles, one after the other, without running them.

    Raises:
        ModelError: They are damaged, or make more than any file of weights holds.
    """
    strings: set[str] = set()
    classes: list[str] = []
    first = None
    try:
        for index in range(pickles):
            for name, argument in _calls(stream):
                if name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "MARK", "class"):
                    first = first or (name if index == main else None)
                if name == "class":
                    classes.append(argument[:100])
                elif argument:
                    strings.add(argument)
    except (ValueError, EOFError, IndexError):
        raise ModelError("damaged or cut short") from None
    module = {"_parameters", "_buffers", "_modules"} <= strings
    outer = classes[0] if first == "class" else None
    return Pickle(outer, tuple(dict.fromkeys(classes)), module)


class _Stack:
    """How many objects each entry of the unpickler's stack would be, written out.

    Tuples of shared tuples double with each opcode, and Python hashes them as if they didn't share.
    """

    def __init__(self) -> None:
        self.sizes: list[int | None] = []
        self.memo: dict[int, int] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """What an opcode does to the stack.

        Raises:
            ModelError: An entry became larger than ``_OBJECTS``.
            IndexError: The stack is empty, or there is nothing at that place of the memo.
        """
        name = opcode.name
        if "GET" in name:
            if int(argument) not in self.memo:
                raise IndexError(argument)
            self.sizes.append(self.memo[int(argument)])
        elif "PUT" in name or name == "MEMOIZE":
            self.memo[len(self.memo) if argument is None else int(argument)] = self.sizes[-1] or 1
        elif name == "MARK":
            self.sizes.append(None)
        else:
            size = 1
            for taken in reversed(opcode.stack_before):
                if taken is pickletools.stackslice:
                    while (entry := self.sizes.pop()) is not None:
                        size += entry
                elif taken is not pickletools.markobject:
                    size += self.sizes.pop() or 1
            if size > _OBJECTS:
                raise ModelError("its pickle makes more objects than any file of weights has")
            self.sizes += [size] * len(opcode.stack_after)


def _calls(stream: BinaryIO) -> Iterator[tuple[str, str]]:
    """Opcodes with their texts; each class or function as ``("class", "module.name")``.

    Since protocol 4 a class is named by the two texts on top of the stack, either of which may
    come from the memo.
    """
    memo: list[str] = []
    recent: list[str] = []
    stack = _Stack()
    for opcode, argument, _ in pickletools.genops(stream):
        stack.follow(opcode, argument)
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
