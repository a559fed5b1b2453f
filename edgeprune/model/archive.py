# SPDX-License-Identifier: Apache-2.0
"""Reading a ``torch.export`` archive (``.pt2``) without running anything that it carries.

``torch.export.load`` unpickles parts of an archive, imports compiled libraries from it and
evaluates its symbolic sizes as Python (``sympy.sympify``). So each part is looked at first, and
torch is given a new archive of what was looked at.
"""

import importlib
import io
import re
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch._export.serde import serialize
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import load_pt2

from edgeprune.errors import ModelError
from edgeprune.model.container import Container, open_container
from edgeprune.model.pickles import is_zip, read_tensors, rewritten
from edgeprune.model.program import quietly, reason, tensors
from edgeprune.model.screen import NeedsTrust, check_program, parse, payload

__all__ = ["MARK", "Opened", "is_archive", "open_archive"]

Opened = tuple[ExportedProgram, str]
"""A program, and what ``save`` stored beside it (nothing in a file of another origin)."""

MARK = "edgeprune.json"
"""The member of an archive that says what torch doesn't: inputs, history, numerics."""

_SMALL = 4_096
_GRAPH = 256 * 2**20
"""Bytes of a member that is read whole: a graph, a table of weights, example inputs."""
_QUANTIZED = "torch.ao.quantization.fx._decomposed"
"""Importing it registers the operators of quantized graphs."""
_NATIVE = re.compile(r"\.(so|dll|dylib|pyd|cpp|cubin)$")
_OLD = "serialized_exported_program.json"
"""What torch up to 2.7 called the graph, at the top of the archive."""
_PLAIN = frozenset(
    {
        *("archive_format", "archive_version", "byteorder", "version"),
        *(".data/version", ".data/serialization_id", ".format_version", ".storage_alignment"),
    }
)
_MODEL = re.compile(r"models/[^/]+\.json")
_TABLE = re.compile(r"(data/(?:weights|constants)/)[^/]+_config\.json")
_PICKLED = re.compile(
    r"data/(weights|constants|sample_inputs)/[^/]+\.pt"
    r"|serialized_(state_dict|constants|example_inputs)\.pt"
)
_LEFT = re.compile(r"extra/|extra_files/|data/(weights|constants)/(weight|tensor)_\w+$")
"""What is left out unless something refers to it."""


def is_archive(names: Container) -> bool:
    """Whether a zip file with these members is a ``torch.export`` archive."""
    return _OLD in names or "archive_format" in names


def open_archive(path: Path, *, trusted: bool = False) -> Opened:
    """Read a program, and what ``save`` stored beside it.

    Args:
        path: The file, under any name.
        trusted: Take what only unpickling or compiled code could give, and any operator.

    Raises:
        ModelError: It is damaged, of another version, uses operators that aren't installed or
            allowed, or holds something that would run code.
    """
    with open_container(path) as archive, path.open("rb") as file:
        source: Any = file if trusted else _screened(archive, path)
        try:
            with quietly():
                importlib.import_module(_QUANTIZED)
                program, about = _load(source, old=_OLD in archive)
                program.graph.lint()
                tensors(program)  # or it has no inputs that could be told
        except Exception as error:  # a damaged archive raises anything
            text = reason(error)
            raise ModelError(f"{path}: not a program that this torch can load: {text}") from error
    program._guards_code = []  # Python text that torch would run
    return program, about


def _load(source: Any, *, old: bool) -> tuple[ExportedProgram, str]:
    if old:
        return torch.export.load(source), ""
    # Not torch.export.load: it drops the reason why an archive can't be read.
    with _known_types():
        contents = load_pt2(source)
    (program,) = contents.exported_programs.values()
    return program, contents.extra_files.get(MARK, "")


@contextmanager
def _known_types() -> Iterator[None]:
    """Let torch resolve the types of each of its classes once, not once for each object of a
    graph: that takes as long as all the rest of the reading."""
    known: dict[type, dict[str, Any]] = {}

    def hints(cls: type, **names: Any) -> dict[str, Any]:
        if cls not in known:
            known[cls] = typing.get_type_hints(cls, **names)
        return known[cls]

    module: Any = serialize
    plain = module.typing
    module.typing = SimpleNamespace(**{**vars(typing), "get_type_hints": hints})
    try:
        yield
    finally:
        module.typing = plain


def _screened(archive: Container, path: Path) -> io.RawIOBase:
    """The archive once more, without anything that would run code.

    Raises:
        ModelError: It holds such a thing, is damaged, or beyond the limits.
    """
    kept: dict[str, bytes] = {}
    weights: set[str] = set()
    for name in archive:
        with _named(path, name):
            if name in _PLAIN:
                kept[name] = archive.read(name, _SMALL)
            elif name == _OLD or _MODEL.fullmatch(name):
                kept[name] = archive.read(name, _GRAPH)
                check_program(parse(kept[name], name), name)
            elif match := _TABLE.fullmatch(name):
                kept[name] = archive.read(name, _GRAPH)
                weights |= payload(parse(kept[name], name), name, match[1], archive)
            elif _PICKLED.fullmatch(name):
                kept[name] = _repickled(archive.read(name, _GRAPH))
            elif name == f"extra/{MARK}":
                kept[name] = archive.read(name, _GRAPH)
            elif _NATIVE.search(name):
                raise NeedsTrust("holds compiled code, which would run code from the file")
            elif not _LEFT.match(name):
                raise ModelError(f"{name}: torch.export.save writes no such member")
    return archive.rewritten(kept, weights)


@contextmanager
def _named(path: Path, member: str) -> Iterator[None]:
    """Name file and member in errors, and the way out.

    Raises:
        ModelError: One was raised inside.
    """
    try:
        yield
    except NeedsTrust as error:
        raise ModelError(
            f"{path}: {member} {error}; --trust-pickle loads it if you trust where it comes from"
        ) from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def _repickled(data: bytes) -> bytes:
    """A small file of ``torch.save`` inside the archive, written anew.

    Raises:
        NeedsTrust: It holds more than tensors.
    """
    if not data:
        return data
    file = io.BytesIO(data)
    try:
        if not is_zip(file):
            raise ModelError("no zip archive")
        read_tensors(file)
        return rewritten(Container(file)).read()
    except Exception:  # whatever is no plain tensor
        raise NeedsTrust(
            "holds a pickle of more than tensors, which would run code from the file"
        ) from None
