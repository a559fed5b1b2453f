# SPDX-License-Identifier: Apache-2.0
"""The shape and type of every tensor of a graph, as far as the file tells.

ONNX files often say the shapes of their inputs only, so the others are worked out, operator by
operator; a rule comes before what the file declares, which tools leave behind when they edit. A
batch whose size is open is 1. What stays unknown is unknown, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgeprune.artifact import limits
from edgeprune.artifact.call import FAILURES, Call, Gap, Shape, Unknown, possible
from edgeprune.artifact.graph import (
    Artifact,
    Attribute,
    Dims,
    Function,
    Graph,
    Operator,
    Ref,
    Tensor,
    elements,
)
from edgeprune.artifact.lite_shapes import worked_out
from edgeprune.artifact.open_sizes import Bound, bind
from edgeprune.artifact.shape_rules import RULES
from edgeprune.artifact.shape_types import dtypes
from edgeprune.artifact.shape_values import VALUES
from edgeprune.artifact.source import shown
from edgeprune.errors import InputError

__all__ = ["Resolved", "resolve"]

_RANDOM = ("Bernoulli", "Multinomial", "Random")


class Resolved(NamedTuple):
    """A graph in which every tensor is as known as it can be."""

    graph: Graph
    gaps: tuple[Gap, ...]
    bound: Bound


def resolve(artifact: Artifact, sizes: Mapping[str, int] | None = None) -> Resolved:
    """Work out the tensors of ``artifact``.

    Args:
        artifact: As read.
        sizes: Of dimensions of the inputs that are left open: ``{"sequence": 128, "x.2": 320}``.

    Raises:
        InputError: ``sizes`` names no dimension of the inputs, or the file's functions call each
            other without end.
    """
    bound = bind(artifact, sizes or {})
    if artifact.format == "tflite":
        if _is_open(artifact.graph):
            graph, gaps = worked_out(artifact.graph, bound.inputs)
            return Resolved(_settled(graph), gaps, bound)
        return Resolved(_settled(artifact.graph), (), bound)
    engine = _Engine(artifact, bound)
    graph = engine.graph(artifact.graph, _Scope({}, None), {}, None, 0)
    return Resolved(graph, tuple(engine.gaps), bound)


def _is_open(graph: Graph) -> bool:
    return any(None in (tensor.shape or ()) for tensor in graph.tensors.values())


def _settled(graph: Graph) -> Graph:
    """A TFLite graph, which says all shapes itself; marked is what the inputs don't change."""
    tensors = dict(graph.tensors)
    operators = []
    for operator in graph.operators:
        inner = {role: _settled(inside) for role, inside in operator.graphs.items()}
        operators.append(operator._replace(graphs=inner))
        inputs = [tensors[name] for name in operator.inputs if name]
        if inputs and not inner and all(tensor.fixed for tensor in inputs):
            for name in filter(None, operator.outputs):
                tensors[name] = tensors[name]._replace(fixed=True)
    return graph._replace(operators=tuple(operators), tensors=tensors)


class _Scope(NamedTuple):
    """Tensors by name; what isn't here may be in the graph around."""

    own: dict[str, Tensor]
    outer: _Scope | None

    def find(self, name: str) -> Tensor | None:
        scope: _Scope | None = self
        while scope is not None:
            tensor = scope.own.get(name)
            if tensor is not None:
                self.own[name] = tensor  # a sub-graph shows all that it reads
                return tensor
            scope = scope.outer
        return None


class _Engine:
    def __init__(self, artifact: Artifact, bound: Bound) -> None:
        self.gaps: list[Gap] = []
        self._name = shown(str(artifact.path))
        self._functions: Mapping[str, Function] = artifact.functions
        self._sizes = bound.names
        self._inputs = bound.inputs
        self._calls = limits.CALLS

    def graph(
        self,
        graph: Graph,
        outer: _Scope,
        arguments: Mapping[str, Attribute],
        bound: Sequence[Tensor | None] | None,
        depth: int,
    ) -> Graph:
        """One graph; ``bound`` are its inputs as the operator that runs it gives them."""
        if depth > 2 * limits.NESTING:
            raise InputError(f"{self._name}: sub-graphs or functions inside each other without end")
        own = {name: t for name, t in graph.tensors.items() if t.constant}
        scope = _Scope(own, outer)
        for at, name in enumerate(graph.inputs):
            declared = self._declared(graph.tensors.get(name, Tensor(name)))
            if depth == 0 and name in self._inputs:
                declared = declared._replace(shape=self._inputs[name])
            given = bound[at] if bound is not None and at < len(bound) else None
            own[name] = declared if given is None else _joined(given, declared, name)
        operators = []
        for operator in graph.operators:
            self._calls -= 1 + len(operator.inputs) // 8
            if self._calls < 0:
                raise InputError(
                    f"{self._name}: more than {limits.CALLS} operators once functions are written "
                    "out; no model has as many"
                )
            operators.append(self._operator(operator, scope, graph, arguments, depth))
        for name in graph.outputs:
            scope.find(name)
        return graph._replace(operators=tuple(operators), tensors=own)

    def _operator(
        self,
        operator: Operator,
        scope: _Scope,
        graph: Graph,
        arguments: Mapping[str, Attribute],
        depth: int,
    ) -> Operator:
        operator = operator._replace(attributes=_given(operator.attributes, arguments))
        call = Call(operator, tuple(scope.find(n) if n else None for n in operator.inputs))
        inner, told = self._inside(call, scope, arguments, depth)
        if inner is not None:
            operator = operator._replace(graphs=inner)
        outputs = told if told is not None else self._outputs(call)
        fixed = inner is None and _is_fixed(call)
        for at, name in enumerate(operator.outputs):
            if name:
                made = outputs[at] if at < len(outputs) else None
                declared = self._declared(graph.tensors.get(name, Tensor(name)))
                tensor = declared if made is None else _joined(made, declared, name)
                scope.own[name] = tensor._replace(fixed=fixed)
        return operator

    def _inside(
        self, call: Call, scope: _Scope, arguments: Mapping[str, Attribute], depth: int
    ) -> tuple[dict[str, Graph] | None, list[Tensor | None] | None]:
        """The sub-graphs that an operator runs, worked out, and the outputs that they give."""
        operator = call.operator
        function = self._functions.get(operator.type)
        if function is not None:
            told = {**function.defaults, **operator.attributes}
            alone = _Scope({}, None)
            body = self.graph(function.graph, alone, told, call.inputs, depth + 1)
            return {"call": body}, [body.tensors.get(name) for name in body.outputs]
        if not operator.graphs:
            return None, None
        bound = _bound(call)
        inner = {
            role: self.graph(inside, scope, arguments, bound, depth + 1)
            for role, inside in _live(call).items()
        }
        if operator.type == "Loop" and "body" in inner:
            changed = _unsteady(inner["body"], bound)
            if changed:  # the next run has other shapes than the first
                again = [
                    t and t._replace(shape=None) if at in changed else t
                    for at, t in enumerate(bound)
                ]
                body = operator.graphs["body"]
                inner["body"] = self.graph(body, scope, arguments, again, depth + 1)
        return inner, _given_back(operator, inner)

    def _outputs(self, call: Call) -> list[Tensor | None]:
        operator = call.operator
        rule = RULES.get(operator.type)
        shapes: Sequence[Shape | None] = ()
        types = dtypes(call)
        try:
            if rule is None:
                raise Unknown("there is no rule for its shape")
            shapes = [possible(shape) for shape in rule(call)]
        except FAILURES as error:
            self._gap(operator, error)
        values = _values(call, shapes)
        count = max(len(shapes), len(operator.outputs))
        made: list[Tensor | None] = []
        for at in range(count):
            shape = shapes[at] if at < len(shapes) else None
            dtype = types[at] if at < len(types) else ""
            made.append(Tensor("", shape, dtype, values=None if at else values))
        return made

    def _gap(self, operator: Operator, error: Exception) -> None:
        self.gaps.append(Gap.of(operator, error))

    def _declared(self, tensor: Tensor) -> Tensor:
        """A tensor as the file declares it, sizes that are bound by name filled in."""
        if tensor.shape is None:
            return tensor
        shape: list[int | str | None] = [
            self._sizes.get(size, size) if isinstance(size, str) else size for size in tensor.shape
        ]
        return tensor._replace(shape=tuple(shape))


def _given(
    attributes: Mapping[str, Attribute], arguments: Mapping[str, Attribute]
) -> Mapping[str, Attribute]:
    """Attributes of an operator in a function, those that stand for arguments filled in."""
    if not any(isinstance(value, Ref) for value in attributes.values()):
        return attributes
    return {
        name: arguments.get(value.name) if isinstance(value, Ref) else value
        for name, value in attributes.items()
    }


def _values(call: Call, shapes: Sequence[Shape | None]) -> tuple[int | float | None, ...] | None:
    rule = VALUES.get(call.operator.type)
    if rule is None or not shapes or shapes[0] is None:
        return None
    try:
        values = rule(call, shapes[0])
    except FAILURES:
        return None
    return values if len(values) == elements(shapes[0]) else None


def _joined(made: Tensor, declared: Tensor, name: str) -> Tensor:
    """What a rule and the file say of one tensor; the rule is believed first."""
    shape: Dims | None = made.shape
    if shape is None:
        shape = declared.shape
    elif declared.shape is not None and len(declared.shape) == len(shape):
        pairs = zip(shape, declared.shape, strict=True)
        shape = tuple(b if a is None else a for a, b in pairs)
    return made._replace(name=name, shape=shape, dtype=made.dtype or declared.dtype)


def _is_fixed(call: Call) -> bool:
    if any(call.operator.type.startswith(kind) for kind in _RANDOM):
        return False
    return all(tensor.fixed for tensor in call.inputs if tensor is not None)


def _bound(call: Call) -> list[Tensor | None]:
    """The inputs of a sub-graph, as the operator gives them to it."""
    if call.operator.type == "Loop":
        number = Tensor("", (), "int64")
        return [number, Tensor("", (), "bool"), *(_free(t) for t in call.inputs[2:])]
    if call.operator.type == "Scan":
        rows = call.attribute("num_scan_inputs")
        states = len(call.inputs) - (rows if isinstance(rows, int) else 0)
        return [_free(t) if at < states else _row(t) for at, t in enumerate(call.inputs)]
    return []


def _free(tensor: Tensor | None) -> Tensor | None:
    """The state of a loop: of the first one's shape, but no constant any more."""
    if tensor is None:
        return None
    return tensor._replace(constant=False, fixed=False, values=None, bytes=0, at=-1)


def _row(tensor: Tensor | None) -> Tensor | None:
    free = _free(tensor)
    return free and free._replace(shape=free.shape[1:] if free.shape else None)


def _unsteady(body: Graph, bound: Sequence[Tensor | None]) -> set[int]:
    """Which states of a loop leave it with another shape than they came in."""
    changed = set()
    for at, tensor in enumerate(bound[2:], 2):
        after = body.tensors.get(body.outputs[at - 1]) if at - 1 < len(body.outputs) else None
        if tensor is not None and (after is None or after.shape != tensor.shape):
            changed.add(at)
    return changed


def _rows(shape: Dims | None) -> Dims | None:
    return None if shape is None else (None, *shape)


def _live(call: Call) -> Mapping[str, Graph]:
    """The sub-graphs that can run: of an ``If`` whose condition is known, one branch."""
    graphs = call.operator.graphs
    test = call.inputs[0].values if call.inputs and call.inputs[0] is not None else None
    if call.operator.type != "If" or not test or test[0] is None:
        return graphs
    role = "then_branch" if test[0] else "else_branch"
    return {role: graphs[role]} if role in graphs else graphs


def _given_back(operator: Operator, inner: Mapping[str, Graph]) -> list[Tensor | None]:
    """What the operator's outputs are, by its sub-graphs' outputs."""
    ends = [[g.tensors.get(name) for name in g.outputs] for g in inner.values()]
    if operator.type == "If" and len(ends) == 1:
        return [end and Tensor("", end.shape, end.dtype, values=end.values) for end in ends[0]]
    if operator.type == "If" and len(ends) == 2:
        return [
            a and b and Tensor("", a.shape if a.shape == b.shape else None, a.dtype)
            for a, b in zip(*ends, strict=False)
        ]
    if operator.type == "Loop" and ends:
        states = len(operator.inputs) - 2  # what is behind them is collected, a row for each run
        return [
            end and Tensor("", _rows(end.shape) if at >= states else end.shape, end.dtype)
            for at, end in enumerate(ends[0][1:])
        ]
    return []
