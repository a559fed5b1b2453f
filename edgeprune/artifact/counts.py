# SPDX-License-Identifier: Apache-2.0
"""What can be counted in a file without running it: operators, parameters, multiply-accumulates.

All figures are of one run with a batch of one (where the batch is open). What can't be counted is
listed with the reason, and its sum is then absent: a sum without it would pass a budget that the
model breaks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from edgeprune.artifact.call import Call, Unknown
from edgeprune.artifact.graph import Artifact, Graph, Operator
from edgeprune.artifact.kinds import Kind, Links, kinds, links
from edgeprune.artifact.macs import macs
from edgeprune.artifact.shapes import Resolved
from edgeprune.artifact.weights import Weights

__all__ = ["Counts", "Layer", "Uncounted", "count"]

_ONCE = frozenset({"CALL_ONCE"})
"""Runs when the model is loaded."""


class Layer(NamedTuple):
    """An operator that holds weights or multiplies."""

    name: str
    type: str
    kind: Kind
    parameters: int
    """Of the weights that no earlier operator reads."""
    macs: int | None
    """In one run of the model; ``None`` where they can't be told."""
    bytes: int
    """In the file: its weights, scales and other constants."""


class Uncounted(NamedTuple):
    """An operator whose multiply-accumulates can't be told."""

    operator: str
    type: str
    reason: str


@dataclass(frozen=True)
class Counts:
    """What a file has."""

    kinds: Mapping[str, int]
    """All operators by type, those of sub-graphs and functions too."""
    int8: int
    """Operators that calculate with 8-bit integers only; those that move values are no part."""
    dynamic: int
    """... that make float activations integer at run time."""
    floating: int
    parameters: int
    macs: int | None
    """``None`` where ``uncounted`` isn't empty. Of an ``If``, the costlier branch."""
    layers: tuple[Layer, ...]
    uncounted: tuple[Uncounted, ...]

    @property
    def float_products(self) -> tuple[str, ...]:
        """Names of the layers that multiply in float."""
        return tuple(layer.name for layer in self.layers if layer.macs and layer.kind == "float")


def count(artifact: Artifact, resolved: Resolved) -> Counts:
    """Count what ``artifact`` has, its tensors being ``resolved``."""
    walk = _Walk(artifact.format == "tflite")
    total = walk.graph(resolved.graph, 1)
    reason = "a graph of its own, which the main one doesn't run"
    walk.uncounted.extend(Uncounted(name, "signature", reason) for name in artifact.others)
    by_kind = Counter(walk.computes)
    return Counts(
        kinds=dict(sorted(walk.kinds.items())),
        int8=by_kind["int8"],
        dynamic=by_kind["dynamic"],
        floating=by_kind["float"],
        parameters=sum(layer.parameters for layer in walk.layers),
        macs=None if walk.uncounted else total,
        layers=tuple(walk.layers),
        uncounted=tuple(walk.uncounted),
    )


class _Walk:
    def __init__(self, lite: bool) -> None:
        self.kinds: Counter[str] = Counter()
        self.computes: list[Kind] = []
        self.layers: list[Layer] = []
        self.uncounted: list[Uncounted] = []
        self._lite = lite
        self._weights = Weights()

    def graph(self, graph: Graph, times: int) -> int:
        """Count a graph that runs ``times`` in one run of the model; gives its products."""
        found = links(graph)
        total = 0
        for operator, kind in zip(graph.operators, kinds(graph, found, self._lite), strict=True):
            self.kinds[operator.type] += 1
            self.computes.append(kind)
            total += self._operator(operator, kind, graph, found, times)
        return total

    def _operator(
        self, operator: Operator, kind: Kind, graph: Graph, found: Links, times: int
    ) -> int:
        made = [graph.tensors.get(name) for name in operator.outputs if name]
        if made and all(tensor is not None and tensor.fixed for tensor in made):
            return 0  # a runtime works it out once
        held = self._weights.held(operator, graph, found)
        call = Call(operator, tuple(graph.tensors.get(n) if n else None for n in operator.inputs))
        if operator.graphs:
            products: int | None = None
            inner = self._inside(call, times)
        else:
            inner = 0
            products = self._products(call, graph, times)
        if held.parameters or products or (products is None and not operator.graphs):
            self.layers.append(
                Layer(operator.name, operator.type, kind, held.parameters, products, held.bytes)
            )
        return inner + (products or 0)

    def _products(self, call: Call, graph: Graph, times: int) -> int | None:
        operator = call.operator
        output = graph.tensors.get(operator.output(0))
        try:
            return times * macs(call, output, self._lite)
        except Unknown as error:
            self.uncounted.append(Uncounted(operator.name, operator.type, str(error)))
            return None

    def _inside(self, call: Call, times: int) -> int:
        """What the sub-graphs of an operator multiply."""
        operator = call.operator
        if operator.type in _ONCE:
            return 0
        runs = _runs(call)
        totals = [
            self.graph(graph, times * (1 if runs is None else runs))
            for graph in operator.graphs.values()
        ]
        if runs is None and any(totals):
            reason = "how often its sub-graph runs isn't known"
            self.uncounted.append(Uncounted(operator.name, operator.type, reason))
        branches = operator.type in ("If", "IF")
        return max(totals, default=0) if branches else sum(totals)


def _runs(call: Call) -> int | None:
    """How often an operator runs its sub-graphs, where that can be told."""
    kind = call.operator.type
    try:
        if kind == "Loop":
            return max(call.numbers(0)[0], 0)
        if kind == "Scan":
            rows = call.integer("num_scan_inputs")
            return call.sizes(len(call.inputs) - rows)[0]
    except (Unknown, LookupError):
        return None
    return None if kind in ("SequenceMap", "WHILE") else 1
