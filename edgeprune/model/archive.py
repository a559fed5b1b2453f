# SPDX-License-Identifier: Apache-2.0
"""Reading a ``torch.export`` archive (``.pt2``) without running anything that it carries.

``torch.export.load`` unpickles parts of an archive, imports compiled libraries from it and
evaluates its symbolic sizes as Python (``sympy.sympify``). So each part is looked at first.
"""

import ast
import importlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import load_pt2

from edgeprune.errors import ModelError
from edgeprune.model.program import quietly, reason

__all__ = ["MARK", "is_archive", "open_archive"]

MARK = "edgeprune.json"
"""The member of an archive that says what torch doesn't: inputs, history, numerics."""

_FUNCTIONS = frozenset(
    {
        *("Symbol", "Integer", "Float", "Rational", "Identity", "Piecewise", "Where"),
        *("Add", "Mul", "Pow", "Max", "Min", "Mod", "Abs", "floor", "ceiling"),
        *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not"),
        *("FloorDiv", "CleanDiv", "CeilDiv", "FloatTrueDiv", "IntTrueDiv", "PythonMod"),
        *("ModularIndexing", "LShift", "RShift", "PowByNatural", "FloatPow"),
        *("CeilToInt", "FloorToInt", "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal"),
        *("ToFloat", "IsNonOverlappingAndDenseIndicator"),
    }
)
"""What torch itself writes into a symbolic size."""
_SYNTAX = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.keyword,
    ast.Name, ast.Constant, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context,
)  # fmt: skip
_QUANTIZED = "torch.ao.quantization.fx._decomposed"
"""Importing it registers the operators of quantized graphs."""
_NATIVE = re.compile(r"\.(so|dll|dylib|pyd|cpp|cubin)$")
_OLD = "serialized_exported_program.json"
"""What torch up to 2.7 called the graph, at the top of the archive."""


def is_archive(names: list[str]) -> bool:
    """Whether a zip file with these members is a ``torch.export`` archive."""
    return _OLD in names or any(name.endswith("/archive_format") for name in names)


def open_archive(path: Path, *, trusted: bool = False) -> tuple[ExportedProgram, str]:
    """Read a program, and what ``save`` stored beside it (nothing in a file of another origin).

    Args:
        path: The file, under any name.
        trusted: Take what only unpickling or compiled code could give.

    Raises:
        ModelError: It is damaged, of another version, uses operators that aren't installed, or
            holds something that would run code.
    """
    if not trusted:
        _screen(path)
    try:
        with quietly(), path.open("rb") as file:
            importlib.import_module(_QUANTIZED)
            if _is_old(path):
                return torch.export.load(file), ""
            # Not torch.export.load: it drops the reason why an archive can't be read.
            contents = load_pt2(file)
            (program,) = contents.exported_programs.values()
            return program, contents.extra_files.get(MARK, "")
    except Exception as error:  # a damaged archive raises anything
        text = reason(error)
        raise ModelError(f"{path}: not a program that this torch can load: {text}") from error


def _is_old(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return _OLD in archive.namelist()


def _screen(path: Path) -> None:
    """Refuse an archive that would run code.

    Raises:
        ModelError: It would, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.lower() for name in archive.namelist()]
            if len(names) != len(set(names)):  # we might look at one and torch at the other
                raise ModelError(f"{path}: damaged: it has two members of one name")
            for name in archive.namelist():
                danger = _danger(name, archive)
                if danger:
                    raise ModelError(
                        f"{path}: {name} holds {danger}, which would run code from the file; "
                        "--trust-pickle loads it if you trust where it comes from"
                    )
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise ModelError(f"{path}: damaged: {reason(error)}") from None


def _danger(member: str, archive: zipfile.ZipFile) -> str | None:
    """What in a member of an archive would run code, in words."""
    name = member.lower()  # torch finds members in any case
    if _NATIVE.search(name) or "/data/aotinductor/" in name:
        return "compiled code"
    if name.split("/")[1:2] == ["extra"] or name.startswith("extra_files/"):
        return None
    if name.endswith(".json") or "/models/" in name:
        return next(_json_dangers(json.loads(archive.read(member))), None)
    if name.endswith(".pt"):
        data = archive.read(member)
        try:
            if data:
                with quietly():
                    torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        except Exception:  # whatever is no plain tensor
            return "a pickle of more than tensors"
    return None


def _json_dangers(value: Any) -> Iterator[str]:
    """What torch would unpickle or evaluate, of all that a JSON document says."""
    if isinstance(value, list):
        for part in value:
            yield from _json_dangers(part)
    elif isinstance(value, dict):
        if value.get("use_pickle") is True:
            yield "a pickled tensor"
        if str(value.get("path_name", "")).startswith(("custom_obj", "opaque_obj")):
            yield "a pickled object"
        expression = value.get("expr_str")
        if expression is not None and not _is_arithmetic(str(expression)):
            yield "a size that is no arithmetic"
        for part in value.values():
            yield from _json_dangers(part)


def _is_arithmetic(text: str) -> bool:
    """Whether an expression is made of numbers, symbols and known functions alone."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _SYNTAX):
            return False
        if isinstance(node, ast.Call) and not (
            isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
        ):
            return False
        if isinstance(node, ast.Constant) and not _is_plain(node.value):
            return False
    return True


def _is_plain(value: object) -> bool:
    """A number or, for ``Symbol('s0')``, a name."""
    return value.isidentifier() if isinstance(value, str) else isinstance(value, int | float)
