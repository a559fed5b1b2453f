# SPDX-License-Identifier: Apache-2.0
"""What the JSON in a ``.pt2`` file may say: torch would evaluate, import or unpickle parts of it.

torch reads the same text with the same parser, so nothing is lost in between. Fields are told by
their names at any depth, and so in subgraphs too.
"""

import ast
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE
from torch.utils import _pytree as pytree

from edgeprune.errors import ModelError
from edgeprune.model.container import Container, check_claim
from edgeprune.model.operators import is_allowed

__all__ = ["NeedsTrust", "check_program", "parse", "payload"]

_DEEPEST = 200
"""Levels of tables and lists in a JSON document."""
_LONGEST = 10_000
"""Characters of a symbolic size."""
_NODES, _COMPARED = 1_000, 16
"""Parts of a symbolic size, and arguments of ``Max`` and ``Min`` in it: sympy compares each with
all others."""
_ALL = 200_000
"""Characters of all symbolic sizes together, each counted once."""
_BITS = 1_024
"""Of the largest number that a symbolic size may come to, with symbols of 64 bits."""
_COUNTER = 10_000
"""Largest number in the name of a symbol: torch counts up to it."""
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
_POWERS = frozenset({"Pow", "PowByNatural", "FloatPow"})
_LARGEST = frozenset({"Add", "Sub", "FloorDiv", "Mod", "PythonMod", "Max", "Min"})
"""What gives about as large a number as the largest that it takes."""
_SYNTAX = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.keyword,
    ast.Name, ast.Constant, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.BitAnd, ast.BitOr,
)  # fmt: skip
"""Without ``^``, which sympy takes for a power."""
_NAMES = frozenset({"name", "as_name"})
_PATHS = frozenset(
    {
        *("fqn", "parameter_name", "buffer_name", "tensor_constant_name", "user_input_name"),
        *("custom_obj_name", "class_fqn"),
    }
)
_OBJECTS = frozenset({"as_custom_obj", "custom_obj"})
_TREE = "a tree of inputs or outputs"


class NeedsTrust(ModelError):
    """The file asks for what only a trusted one gets; says so as what a member "holds"."""


def _runs(what: str) -> NeedsTrust:
    return NeedsTrust(f"holds {what}, which would run code from the file")


def parse(text: bytes, name: str) -> Any:
    """A JSON document, read as torch reads it.

    Raises:
        ModelError: It is damaged, nested too deeply, or holds a number of more than 64 bits.
    """
    try:
        value = json.loads(text.decode())
    except RecursionError:
        raise ModelError(f"{name} is nested too deeply") from None
    except ValueError as error:
        raise ModelError(f"damaged: {name}: {error}") from None
    for _, part in _fields(value, name):
        if isinstance(part, int) and abs(part) > 2**64:
            raise ModelError(f"{name} holds a number of more than 64 bits")
    return value


def _fields(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Everything in a document with the key that it is under, at any depth.

    Raises:
        ModelError: It is nested too deeply.
    """
    rows = [("", value)]
    for _ in range(_DEEPEST):
        if not rows:
            return
        yield from rows
        below: list[tuple[str, Any]] = []
        for key, part in rows:
            if isinstance(part, dict):
                below += part.items()
            elif isinstance(part, list):
                below += [(key, one) for one in part]
        rows = below
    raise ModelError(f"{name} is nested more than {_DEEPEST} levels deep")


def check_program(document: Any, name: str) -> None:
    """Refuse the graph of a program that torch couldn't read, or we couldn't run, safely.

    Raises:
        NeedsTrust: It would evaluate, import or unpickle something.
        ModelError: An operator isn't arithmetic, a tensor isn't on the CPU, or a symbolic size is
            beyond all measure.
    """
    sizes: set[str] = set()
    for key, value in _fields(document, name):
        if key == "expr_str" and isinstance(value, str):
            if value in sizes:
                continue
            sizes.add(value)
        if key in _CHECKS:
            _CHECKS[key](value)
    length = sum(len(size) for size in sizes)
    if length > _ALL:
        raise ModelError(f"its symbolic sizes are {length:,} characters long; {_ALL:,} are read")
    ranges = document.get("range_constraints") if isinstance(document, dict) else None
    for symbol in ranges if isinstance(ranges, dict) else ():
        number = re.search(r"\d*$", symbol)
        if number is None or int(number[0][:9] or 0) > _COUNTER or not symbol.isidentifier():
            raise ModelError(f"a symbol is called {symbol[:40]!r}")


def payload(document: Any, name: str, folder: str, archive: Container) -> set[str]:
    """The members that hold the tensors of a table of weights or constants.

    Raises:
        NeedsTrust: One is pickled.
        ModelError: One isn't there, isn't a plain tensor, or claims far more values than it holds.
    """
    members: dict[str, int] = {}
    claimed = 0
    try:
        for key, entry in document["config"].items():
            _check_path(key)
            path, meta = entry["path_name"], entry["tensor_meta"]
            if entry["use_pickle"] is not False:
                raise _runs("a pickled tensor")
            if not re.fullmatch(r"(weight|tensor)_\w+", path, re.ASCII):
                raise _runs(f"a payload called {path[:40]!r}")
            _check_device(meta["device"])
            member = folder + path
            width = members.setdefault(member, _SERIALIZE_TO_TORCH_DTYPE[meta["dtype"]].itemsize)
            count = math.prod(_size(size) for size in meta["sizes"])
            held = archive.length(member)  # of an empty tensor, too: it must be there
            if count and not held:
                raise ModelError(f"{member} is empty, and has {count:,} values in {name}")
            claimed += count * width
    except (AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"damaged: {name}: {error!r}") from None
    check_claim(claimed, archive.size)
    return set(members)


def _size(value: Any) -> int:
    size = value["as_int"]
    if not isinstance(size, int) or size < 0:
        raise TypeError("a size")
    return size


def _check_operator(value: Any) -> None:
    if isinstance(value, str) and not is_allowed(value):
        raise NeedsTrust(
            f"uses the operator {value[:80]!r}, which isn't known as arithmetic on tensors alone"
        )


def _check_name(value: Any) -> None:
    if isinstance(value, str) and not re.fullmatch(r"[\w.]*", value):
        raise _runs(f"the name {value[:40]!r}")


def _check_path(value: Any) -> None:
    """What names a parameter becomes part of Python code that torch compiles."""
    if isinstance(value, str) and not (value.isprintable() and not set(value) & set("\"'\\`")):
        raise _runs(f"the name {value[:40]!r}")


def _check_argument(value: Any) -> None:
    if isinstance(value, str) and not value.isidentifier():
        raise _runs(f"the argument {value[:40]!r}")


def _check_object(value: Any) -> None:
    if value is not None:
        raise _runs("a pickled object")


def _check_device(value: Any) -> None:
    if isinstance(value, dict) and "type" in value and value["type"] != "cpu":
        raise ModelError(
            f"it was exported on the device {str(value['type'])[:20]!r}; move the module to the "
            "CPU and export it again"
        )


def _check_expression(value: Any) -> None:
    """A symbolic size: torch gives it to ``sympy.sympify``, which evaluates Python."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise ModelError(f"a symbolic size of more than {_LONGEST:,} characters, or no text")
    try:
        tree = ast.parse(value, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _runs("a size that is no arithmetic") from None
    nodes = list(ast.walk(tree))
    compared = sum(
        len(node.args)
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Max", "Min")
    )
    if len(nodes) > _NODES or compared > _COMPARED:
        raise ModelError(f"the symbolic size {value[:40]!r} is too long to be looked through")
    if not all(_is_arithmetic(node) for node in nodes):
        raise _runs("a size that is no arithmetic")
    # sympy reads decimals exactly, with exponents of any length
    large = re.search(r"[\d.][eE][+-]?\d{3}", value)
    try:
        if large or _bits(tree.body) > _BITS:
            raise ModelError(f"the symbolic size {value[:40]!r} is too large a number")
    except RecursionError:
        raise ModelError(f"the symbolic size {value[:40]!r} is nested too deeply") from None


def _is_arithmetic(node: ast.AST) -> bool:
    """Whether a part of an expression is a number, a symbol, an operator or a known function."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if isinstance(node, ast.Constant):
        value = node.value  # text is a name, as in Symbol('s0')
        return value.isidentifier() if isinstance(value, str) else isinstance(value, int | float)
    return isinstance(node, _SYNTAX)


def _bits(node: ast.AST) -> float:
    """How many bits the value of an expression may have, at most."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return math.log2(abs(node.value) + 2) if abs(node.value) < 1e300 else math.inf
    parts = [_bits(part) for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
    if isinstance(node, ast.BinOp):
        kind, parts = type(node.op).__name__, [0.0, *parts]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        kind = node.func.id
    else:
        kind = "Max"
    if kind in _POWERS and len(parts) > 2:
        return parts[1] * 2 ** min(parts[2], 64)
    if kind == "LShift" and len(parts) > 2:
        return parts[1] + 2 ** min(parts[2], 64)
    if kind in _LARGEST:
        return max(parts, default=64.0) + len(parts) - 1 if parts else 64.0
    return sum(parts[1:])


def _check_inputs(value: Any) -> None:
    """As ``_check_containers``; the names of keyword arguments become Python code too."""
    _check_containers(value)
    if isinstance(value, str):
        try:
            _, keywords = parse(value.encode(), _TREE)[1]["children_spec"]
            names = json.loads(keywords["context"])
        except (TypeError, ValueError, LookupError):
            return  # no arguments and keywords: torch names what is wrong
        for name in names or ():
            _check_argument(name)


def _check_containers(value: Any) -> None:
    """How inputs or outputs are put together: torch imports the types that it names."""
    if not isinstance(value, str):
        return
    for _, part in _fields(parse(value.encode(), _TREE), _TREE):
        if isinstance(part, dict):
            _check_container(part)


def _check_container(spec: dict[str, Any]) -> None:
    kind, context = spec.get("type"), spec.get("context")
    if kind is None and context is None:
        return
    known = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE
    if kind == "collections.namedtuple" and context in known:
        return
    # What reads its own context may import what that names, as a defaultdict does.
    if kind not in known or pytree.SUPPORTED_SERIALIZED_TYPES[known[kind]].from_dumpable_context:
        raise NeedsTrust(
            f"puts inputs or outputs into {str(kind)[:80]!r}, which isn't registered here "
            "(tensors, tuples, lists and dictionaries are read)"
        )
    keys = parse(str(context).encode(), _TREE)
    for key in keys if isinstance(keys, list) else [keys]:
        if isinstance(key, dict | list):
            raise _runs("a key that would be imported")
        _check_path(key)


_CHECKS: dict[str, Callable[[Any], None]] = {
    "target": _check_operator,
    "as_operator": _check_operator,
    "expr_str": _check_expression,
    "device": _check_device,
    "as_device": _check_device,
    "in_spec": _check_inputs,
    "out_spec": _check_containers,
    "forward_arg_names": _check_argument,
    **dict.fromkeys(_NAMES, _check_name),
    **dict.fromkeys(_PATHS, _check_path),
    **dict.fromkeys(_OBJECTS, _check_object),
}
"""What is looked at, by the key that it is under."""
