# SPDX-License-Identifier: Apache-2.0
"""TFLite files: github.com/google-ai-edge/LiteRT, tflite/schema/schema.fbs, table by table.

Read is what it takes to count: no weights, and of the operators' options only those that name
sub-graphs or that shapes depend on.

For editing and writing there is ``edgeprune.export.flatbuffer``, on the schema's own bindings.
They trust what they read, so they are for files that edgeprune has made itself.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from edgeprune.artifact import limits
from edgeprune.artifact.flat import Flat, Table
from edgeprune.artifact.graph import Artifact, Attribute, Dims, Graph, Operator, Tensor, elements
from edgeprune.artifact.graph import stored_bytes as bytes_of
from edgeprune.artifact.source import Content, shown
from edgeprune.artifact.tflite_names import OPERATORS, OPTIONS, TYPES
from edgeprune.errors import InputError

__all__ = ["MAGIC", "read_tflite"]

MAGIC = b"TFL3"
_CUSTOM = OPERATORS.index("CUSTOM")
_CALLS: Mapping[str, tuple[int, Mapping[str, tuple[int, str]]]] = {
    "IF": (4, {"then_branch": (0, "i"), "else_branch": (1, "i")}),
    "WHILE": (4, {"cond": (0, "i"), "body": (1, "i")}),
    "CALL": (4, {"body": (0, "I")}),
    "CALL_ONCE": (4, {"init": (0, "i")}),
    "STABLEHLO_COMPOSITE": (12, {"body": (1, "i")}),
}
"""Operators that run sub-graphs: the field with the options, and where in it they are named."""


class _Code(NamedTuple):
    kind: str
    version: int


class _Buffer(NamedTuple):
    start: int
    size: int


def read_tflite(content: Content, path: Path) -> Artifact:
    """Read the content of a TFLite file at ``path``.

    Raises:
        InputError: It is damaged, contradicts itself, or keeps its weights elsewhere.
    """
    reader = _Reader(Flat(content, shown(str(path))))
    graph = reader.graph(0, ())
    signatures, others = reader.signatures()
    files, aliases = {path: len(content)}, reader.aliases(graph)
    return Artifact(path, "tflite", graph, {}, {}, files, signatures, others, aliases)


class _Reader:
    def __init__(self, flat: Flat) -> None:
        self.flat = flat
        model = flat.root()
        self._model = model
        self._codes = [_code(table) for table in model.tables(1)]
        self._graphs = model.tables(2, limits.OPERATORS)
        self._buffers = [self._buffer(table) for table in model.tables(4)]
        self._done: dict[int, Graph] = {}
        self._operators = 0
        if not self._graphs:
            raise InputError(f"{flat.name}: no graph in this TFLite file")

    def signatures(self) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
        """The names of the inputs of each signature, and those that run another graph."""
        tables = self._model.tables(7)
        inputs = {t.text(2): tuple(entry.text(0) for entry in t.tables(0)) for t in tables}
        return inputs, tuple(t.text(2) for t in tables if t.number(4, "I") not in self._done)

    def aliases(self, graph: Graph) -> dict[str, str]:
        """What the signature calls each input of the main graph, where there is one signature."""
        tables = self._model.tables(7)
        if len(tables) != 1 or tables[0].number(4, "I"):
            return {}
        names = list(graph.tensors)
        found = ((entry.number(1, "I"), entry.text(0)) for entry in tables[0].tables(0))
        return {names[index]: name for index, name in found if index < len(names) and name}

    def graph(self, index: int, callers: tuple[int, ...]) -> Graph:
        """A sub-graph, with those that its operators run; ``callers`` are those around it."""
        if index in callers:
            raise InputError(f"{self.flat.name}: sub-graph {index} has a cycle: it runs itself")
        if len(callers) > limits.NESTING:
            raise InputError(
                f"{self.flat.name}: sub-graphs {len(callers)} deep; "
                f"at most {limits.NESTING} are read"
            )
        if not 0 <= index < len(self._graphs):
            raise InputError(f"{self.flat.name}: sub-graph {index} of {len(self._graphs)}")
        if index not in self._done:
            self._done[index] = self._graph(index, (*callers, index))
        return self._done[index]

    def _graph(self, index: int, callers: tuple[int, ...]) -> Graph:
        table = self._graphs[index]
        tensors = self._tensors(table)
        names = list(tensors)
        operators = []
        entries = table.tables(3, limits.OPERATORS)
        self._operators += len(entries)
        if self._operators > limits.OPERATORS:
            raise InputError(
                f"{self.flat.name}: more than {limits.OPERATORS} operators; no model has as many"
            )
        for number, entry in enumerate(entries):
            operator = self._operator(entry, names, callers)
            name = next(filter(None, operator.outputs), f"{operator.type}_{number}")
            prefix = f"{table.text(4) or index}/" if index else ""
            operators.append(operator._replace(name=prefix + name))
        inputs = self._pick(table.integers(1), names)
        self._order(operators, tensors, inputs)
        return Graph(
            table.text(4),
            tuple(i for i in inputs if i and not tensors[i].constant),
            tuple(filter(None, self._pick(table.integers(2), names))),
            tuple(operators),
            tensors,
        )

    def _tensors(self, table: Table) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for index, entry in enumerate(table.tables(0)):
            tensor = self._tensor(entry, index)
            if tensor.name in tensors:  # nothing forbids it, and runtimes go by the number
                tensor = tensor._replace(name=f"{tensor.name}#{index}")
            tensors[tensor.name] = tensor
        return tensors

    def _tensor(self, table: Table, index: int) -> Tensor:
        name = table.text(3) or f"tensor_{index}"
        shape: Dims = self._shape(table.integers(0), name)
        signature = table.integers(7)
        if len(signature) == len(shape):  # else there is none, as of a tensor without open sizes
            pairs = zip(shape, signature, strict=True)
            shape = tuple(None if there < 0 else size for size, there in pairs)
        if table.number(10, "I"):
            raise InputError(
                f"{self.flat.name}: tensor '{shown(name)}' lies in another file; "
                "TFLite files with external weights can't be read"
            )
        kind = table.number(1, "b")
        quantization = table.table(4)
        tensor = Tensor(
            name,
            shape,
            TYPES[kind] if 0 <= kind < len(TYPES) else "",
            quantized=quantization is not None and quantization.span(2, 4)[1] > 0,
            variable=bool(table.number(5, "B")),
        )
        number = table.number(2, "I")
        if number >= max(len(self._buffers), 1):
            raise InputError(
                f"{self.flat.name}: tensor '{shown(name)}' has buffer {number} "
                f"of {len(self._buffers)}"
            )
        buffer = self._buffers[number] if self._buffers else _Buffer(0, 0)
        if not buffer.size:
            return tensor
        shape = tuple(table.integers(0))  # all sizes of a constant are known
        tensor = tensor._replace(shape=shape)
        self._fits(tensor, buffer.size, sparse=table.table(6) is not None)
        tensor = tensor._replace(constant=True, fixed=True, bytes=buffer.size, at=buffer.start)
        return tensor._replace(values=self._values(tensor))

    def _values(self, tensor: Tensor) -> tuple[int, ...] | None:
        """The elements of a small constant of integers, which sizes may be worked out from."""
        form = {"int32": "i", "int64": "q"}.get(tensor.dtype)
        count = elements(tensor.shape)
        if form is None or count is None or count > limits.VALUES:
            return None
        content = self.flat.content[tensor.at : tensor.at + tensor.bytes]
        width = struct.calcsize(form)
        return struct.unpack(f"<{count}{form}", content) if len(content) == count * width else None

    def _shape(self, shape: tuple[int, ...], name: str) -> tuple[int, ...]:
        count = elements(shape) or 0
        if len(shape) > limits.RANK or any(d < 0 for d in shape) or count > limits.ELEMENTS:
            sizes = list(shape[:8]) if len(shape) <= 8 else f"of {len(shape)} dimensions"
            raise InputError(
                f"{self.flat.name}: tensor '{shown(name)}' has the shape {shown(str(sizes))}"
            )
        return shape

    def _fits(self, tensor: Tensor, held: int, sparse: bool) -> None:
        wanted = bytes_of(tensor)
        if wanted is not None and held != wanted and not sparse:
            raise InputError(
                f"{self.flat.name}: tensor '{shown(tensor.name)}' holds {held} bytes, and its "
                f"shape takes {wanted}"
            )

    def _buffer(self, table: Table) -> _Buffer:
        """Where a constant lies: in the flatbuffer, or behind it."""
        start, size = table.span(0, 1)
        offset = table.number(1, "Q")
        if offset > 1:
            start, size = offset, table.number(2, "Q")
        if start + size > len(self.flat.content):
            raise self.flat.broken(min(start, len(self.flat.content)))
        return _Buffer(start, size)

    def _operator(self, table: Table, names: list[str], callers: tuple[int, ...]) -> Operator:
        number = table.number(0, "I")
        if number >= len(self._codes):
            raise InputError(f"{self.flat.name}: operator code {number} of {len(self._codes)}")
        code = self._codes[number]
        attributes = self._attributes(code.kind, table)
        graphs: dict[str, Graph] = {}
        field, roles = _CALLS.get(code.kind, (0, {}))
        options = table.table(field) if roles else None
        if options is not None:
            for role, (slot, form) in roles.items():
                graphs[role] = self.graph(options.number(slot, form), callers)
        return Operator(
            "",
            code.kind,
            self._pick(table.integers(1), names),
            self._pick(table.integers(2), names),
            attributes,
            graphs,
            code.version,
        )

    def _attributes(self, kind: str, table: Table) -> dict[str, Attribute]:
        """The options that shapes depend on."""
        fields = OPTIONS.get(kind)
        options = table.table(4) if fields else None
        if fields is None:
            return {}
        if options is None:
            return {
                name: default for name, (_, _, default) in fields.items() if default is not None
            }
        return {
            name: options.integers(slot)
            if form == "[]"
            else options.number(slot, form, default or 0)
            for name, (slot, form, default) in fields.items()
        }

    def _pick(self, indices: tuple[int, ...], names: list[str]) -> tuple[str, ...]:
        """Tensors by number; -1 is an optional one that is absent."""
        wrong = next((i for i in indices if not -1 <= i < len(names)), None)
        if wrong is not None:
            raise InputError(f"{self.flat.name}: tensor {wrong} of {len(names)}")
        return tuple("" if index < 0 else names[index] for index in indices)

    def _order(
        self, operators: list[Operator], tensors: Mapping[str, Tensor], inputs: tuple[str, ...]
    ) -> None:
        """Refuse a graph that reads what it makes later, or makes a tensor twice."""
        made = {name: at for at, operator in enumerate(operators) for name in operator.outputs}
        done = set(inputs)
        for at, operator in enumerate(operators):
            for name in operator.inputs:
                if name and name not in done and made.get(name, -1) >= at:
                    if tensors[name].variable:
                        continue
                    raise InputError(
                        f"{self.flat.name}: the graph has a cycle: '{shown(operator.name)}' reads "
                        f"'{shown(name)}' before it is made"
                    )
            for name in operator.outputs:
                if name and (name in done or tensors[name].constant):
                    raise InputError(f"{self.flat.name}: the tensor '{shown(name)}' is made twice")
                done.add(name)


def _code(table: Table) -> _Code:
    # Files from before the field was widened have the old one, which ends at 127.
    builtin = max(table.number(3, "i"), table.number(0, "b"))
    version = table.number(2, "i", 1)
    if builtin == _CUSTOM:
        return _Code(f"CUSTOM:{table.text(1)}", version)
    known = 0 <= builtin < len(OPERATORS)
    return _Code(OPERATORS[builtin] if known else f"BUILTIN_{builtin}", version)
