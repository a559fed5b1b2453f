# SPDX-License-Identifier: Apache-2.0
"""ONNX files: github.com/onnx/onnx, onnx/onnx.proto, read field by field.

Read is what it takes to count: no weights, no documentation, no metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from edgeprune.artifact import limits
from edgeprune.artifact.graph import Artifact, Attribute, Function, Graph, Operator, Ref, Tensor
from edgeprune.artifact.onnx_order import Scope, in_order
from edgeprune.artifact.onnx_tensors import Tensors
from edgeprune.artifact.source import Content, shown
from edgeprune.artifact.wire import Field, Wire
from edgeprune.errors import InputError

__all__ = ["read_onnx"]

_STANDARD = ("", "ai.onnx")
_LAST_FIELD = 26
_GRAPH = 7


def read_onnx(content: Content, path: Path) -> Artifact:
    """Read the content of an ONNX file at ``path``.

    Raises:
        InputError: It is none, is damaged, contradicts itself, or wants data from elsewhere.
    """
    wire = Wire(content, shown(str(path)))
    parts = _top(wire)
    opsets = dict(_opset(wire, field) for field in parts.get(8, ()))
    reader = _Reader(wire, Tensors(wire, path.parent), opsets)
    functions = dict(reader.function(field) for field in parts.get(25, ()))
    graph = reader.graph(parts[_GRAPH][0], 0, Scope())
    files = {path: len(content)} | reader.tensors.files
    return Artifact(path, "onnx", graph, functions, opsets, files, {})


def _top(wire: Wire) -> dict[int, list[Field]]:
    """The model's own fields; whether it is an ONNX file shows here."""
    parts: dict[int, list[Field]] = {}
    alien = InputError(
        f"{wire.name}: neither an ONNX nor a TFLite file, or one that is cut off or damaged"
    )
    try:
        for field in wire.fields(0, len(wire.content)):
            if field.number > _LAST_FIELD or field.wire not in (0, 2):
                raise alien
            parts.setdefault(field.number, []).append(field)
    except InputError:
        # What breaks after the graph has begun is a damaged ONNX file, before it is anything.
        raise alien from None
    if _GRAPH not in parts or parts[_GRAPH][0].wire != 2:
        raise alien
    if len(parts[_GRAPH]) > 1:  # a runtime would join them, and run what wasn't counted
        raise InputError(f"{wire.name}: {len(parts[_GRAPH])} graphs in one ONNX file")
    return parts


def _opset(wire: Wire, field: Field) -> tuple[str, int]:
    domain, version = "", 1
    for part in wire.message(field):
        if part.number == 1:
            domain = wire.text(part)
        elif part.number == 2:
            version = wire.integer(part)
    return "" if domain in _STANDARD else domain, version


class _Node(dict[int, list[str]]):
    """Texts of a node by field number; absent ones are empty."""

    def __missing__(self, number: int) -> list[str]:
        return []

    def one(self, number: int) -> str:
        return self[number][-1] if self[number] else ""


class _Reader:
    def __init__(self, wire: Wire, tensors: Tensors, opsets: Mapping[str, int]) -> None:
        self.wire = wire
        self.tensors = tensors
        self._opsets = opsets
        self._names: dict[str, int] = {}
        self._operators = 0
        self._tensors = 0

    def graph(self, field: Field, depth: int, outer: Scope) -> Graph:
        """A graph whose operators may read the tensors ``outer`` too."""
        if depth > limits.NESTING:
            raise InputError(
                f"{self.wire.name}: sub-graphs {depth} deep; at most {limits.NESTING} are read"
            )
        name, nodes = "", []
        constants, known = dict[str, Tensor](), dict[str, Tensor]()
        inputs: list[str] = []
        outputs: list[str] = []
        for part in self.wire.message(field):
            if part.number == 1:
                nodes.append(part)
            elif part.number == 2:
                name = self.wire.text(part)
            elif part.number == 5:
                self._once(constants, self.tensors.tensor(part))
            elif part.number == 15:
                self._once(constants, self.tensors.sparse(part))
            elif part.number in (11, 12, 13):
                tensor = self.tensors.value_info(part)
                self._count(tensor)
                known[tensor.name] = tensor
                {11: inputs, 12: outputs, 13: []}[part.number].append(tensor.name)
        inputs = [i for i in inputs if i not in constants]
        if len(set(inputs)) < len(inputs):
            raise self._twice(next(i for i in inputs if inputs.count(i) > 1))
        given = frozenset(inputs) | constants.keys()
        operators, made = self._nodes(nodes, depth, Scope(given, outer), self._opsets)
        scope = Scope(given | made.keys(), outer)
        ordered = in_order(operators, scope, self.wire.name)
        self._outputs_exist(outputs, scope, operators)
        return Graph(name, tuple(inputs), tuple(outputs), ordered, known | constants | made)

    def function(self, field: Field) -> tuple[str, Function]:
        """A function of the file, by the type of its calls."""
        texts, lists = _Node(), dict[int, list[Field]]()
        for part in self.wire.message(field):
            if part.number in (1, 4, 5, 6, 10):
                texts[part.number] = [*texts[part.number], self.wire.text(part)]
            else:
                lists.setdefault(part.number, []).append(part)
        opsets = dict(self._opsets)
        opsets.update(_opset(self.wire, part) for part in lists.get(9, ()))
        inputs, outputs = frozenset(texts[4]), texts[5]
        operators, made = self._nodes(lists.get(7, []), 1, Scope(inputs), opsets)
        known = {t.name: t for t in map(self.tensors.value_info, lists.get(12, ()))}
        scope = Scope(inputs | made.keys())
        ordered = in_order(operators, scope, self.wire.name)
        self._outputs_exist(outputs, scope, operators)
        name = _typed(texts.one(10), texts.one(1))
        graph = Graph(name, tuple(texts[4]), tuple(outputs), ordered, known | made)
        return name, Function(graph, dict(map(self._attribute_alone, lists.get(11, ()))))

    def _attribute_alone(self, field: Field) -> tuple[str, Attribute]:
        name, value = self._attribute(field, 1, Scope())
        return name, None if isinstance(value, Graph) else value

    def _nodes(
        self, fields: list[Field], depth: int, given: Scope, opsets: Mapping[str, int]
    ) -> tuple[list[Operator], dict[str, Tensor]]:
        """The operators, and the constants among them as tensors."""
        self._operators += len(fields)
        if self._operators > limits.OPERATORS:
            raise InputError(
                f"{self.wire.name}: more than {limits.OPERATORS} operators; no model has as many"
            )
        read = [self._texts(field) for field in fields]
        outputs = frozenset(name for texts, _ in read for name in texts[2])
        inside, made = Scope(given.own | outputs, given.outer), set(given.own)
        operators, constants = [], dict[str, Tensor]()
        for texts, attributes in read:
            for output in texts[2]:
                if output and output in made:
                    raise self._twice(output)
                made.add(output)
            pairs = dict(self._attribute(field, depth + 1, inside) for field in attributes)
            constant = _constant(texts, pairs)
            if constant is None:
                operators.append(self._operator(texts, pairs, opsets))
            else:
                constants[constant.name] = constant
        return operators, constants

    def _texts(self, field: Field) -> tuple[_Node, list[Field]]:
        texts, attributes = _Node(), []
        for part in self.wire.message(field):
            if part.number in (1, 2, 3, 4, 7):
                texts.setdefault(part.number, []).append(self.wire.text(part))
            elif part.number == 5:
                attributes.append(part)
        return texts, attributes

    def _operator(
        self, texts: _Node, pairs: Mapping[str, Attribute | Graph], opsets: Mapping[str, int]
    ) -> Operator:
        domain = "" if texts.one(7) in _STANDARD else texts.one(7)
        return Operator(
            name=self._name(texts.one(3) or next(filter(None, texts[2]), texts.one(4))),
            type=_typed(domain, texts.one(4)),
            inputs=tuple(texts[1]),
            outputs=tuple(texts[2]),
            attributes={k: v for k, v in pairs.items() if not isinstance(v, Graph)},
            graphs={k: v for k, v in pairs.items() if isinstance(v, Graph)},
            version=opsets.get(domain, 1),
        )

    def _name(self, name: str) -> str:
        """The name, numbered where another operator has it already: ONNX doesn't forbid it."""
        while (seen := self._names.get(name, 0)) > 0:
            self._names[name] = seen + 1
            name = f"{name}#{seen + 1}"
        self._names[name] = 1
        return name

    def _attribute(self, field: Field, depth: int, visible: Scope) -> tuple[str, Attribute | Graph]:
        name = ""
        value: Attribute | Graph = None
        rows: dict[int, list[int | float | str]] = {}
        for part in self.wire.message(field):
            if part.number == 1:
                name = self.wire.text(part)
            elif part.number == 6:
                value = self.graph(part, depth, visible)
            elif part.number in _SINGLE:
                value = _SINGLE[part.number](self, part)
            elif part.number in _ROWS:
                row = rows.setdefault(part.number, [])
                if len(row) <= limits.LISTED:
                    row.extend(_ROWS[part.number](self, part))
        for row in rows.values():
            value = tuple(row) if len(row) <= limits.LISTED else None  # type: ignore[assignment]
        return name, value

    def _text_value(self, field: Field) -> str | None:
        """A string attribute; it may be any bytes, and long ones are no names."""
        if field.wire != 2 or field.end - field.start > limits.LISTED:
            return None
        try:
            return self.wire.content[field.start : field.end].decode()
        except UnicodeDecodeError:
            return None

    def _once(self, constants: dict[str, Tensor], tensor: Tensor) -> None:
        self._count(tensor)
        if tensor.name in constants:
            raise self._twice(tensor.name)
        constants[tensor.name] = tensor

    def _count(self, tensor: Tensor) -> None:
        self._tensors += 1
        if self._tensors > limits.TENSORS:
            raise InputError(f"{self.wire.name}: more than {limits.TENSORS} tensors")

    def _twice(self, name: str) -> InputError:
        return InputError(
            f"{self.wire.name}: two tensors of one graph have the name '{shown(name)}'"
        )

    def _outputs_exist(self, outputs: list[str], given: Scope, operators: list[Operator]) -> None:
        made = {name for operator in operators for name in operator.outputs}
        missing = next((o for o in outputs if o and o not in made and o not in given), None)
        if missing is not None:
            raise InputError(f"{self.wire.name}: nothing makes the output '{shown(missing)}'")


def _float(reader: _Reader, field: Field) -> float:
    return reader.wire.floats(field)[0]


_SINGLE: Mapping[int, Callable[[_Reader, Field], Attribute]] = {
    2: _float,
    3: lambda reader, field: reader.wire.integer(field),
    4: lambda reader, field: reader._text_value(field),
    5: lambda reader, field: reader.tensors.tensor(field),
    21: lambda reader, field: Ref(reader.wire.text(field)),
    22: lambda reader, field: reader.tensors.sparse(field),
}
_ROWS: Mapping[int, Callable[[_Reader, Field], tuple[int | float | str, ...]]] = {
    7: lambda reader, field: reader.wire.floats(field),
    8: lambda reader, field: reader.wire.integers(field),
    9: lambda reader, field: (reader._text_value(field) or "",),
}


def _typed(domain: str, op: str) -> str:
    return op if domain in _STANDARD else f"{domain}.{op}"


def _constant(texts: _Node, pairs: Mapping[str, Attribute | Graph]) -> Tensor | None:
    """The tensor of a ``Constant`` node, unless its value is a function's argument."""
    if texts.one(4) != "Constant" or texts.one(7) not in _STANDARD or len(texts[2]) != 1:
        return None
    name = texts.one(2)
    for key, value in pairs.items():
        if isinstance(value, Tensor):
            return value._replace(name=name)
        dtype = _CONSTANTS.get(key)
        if dtype is None or value is None or isinstance(value, Ref | Graph):
            continue
        many = isinstance(value, tuple)
        row: tuple[object, ...] = value if isinstance(value, tuple) else (value,)
        numbers = tuple(v for v in row if isinstance(v, int | float))
        return Tensor(
            name,
            (len(row),) if many else (),
            dtype,
            True,
            bytes=sum(len(v) if isinstance(v, str) else 8 if dtype == "int64" else 4 for v in row),
            values=numbers if len(numbers) == len(row) <= limits.VALUES else None,
            fixed=True,
        )
    return None


_CONSTANTS = {
    "value_float": "float32", "value_floats": "float32", "value_int": "int64",
    "value_ints": "int64", "value_string": "string", "value_strings": "string",
}  # fmt: skip
