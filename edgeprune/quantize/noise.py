# SPDX-License-Identifier: Apache-2.0
"""How much each layer loses to quantization, measured on a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, log10
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

__all__ = ["LayerNoise", "layer_noise", "sqnr"]


_SMALLEST, _FLOOR_DB = 1e-30, -300.0


@dataclass(frozen=True)
class LayerNoise:
    """One layer's output in reduced numerics against its float output."""

    layer: str
    op: str
    own_db: float | None
    """Signal to noise with float inputs: what this layer itself loses. ``None``: nothing."""
    total_db: float | None
    """The same with all layers before it reduced too."""

    def row(self) -> dict[str, Any]:
        """As it stands in a report."""
        figures = {"own_db": self.own_db, "total_db": self.total_db}
        rounded = {k: None if v is None else round(v, 2) for k, v in figures.items()}
        return {"layer": self.layer, "op": self.op, **rounded}


def sqnr(reference: Tensor, other: Tensor) -> float | None:
    """Signal to quantization noise ratio in dB, from -300 up; ``None`` where both are equal."""
    noise = float((reference.double() - other.double()).square().sum())
    signal = float(reference.double().square().sum())
    if noise == 0:
        return None
    ratio = signal / noise
    return 10 * log10(ratio) if _SMALLEST < ratio < inf else _FLOOR_DB


def layer_noise(
    reference: GraphModule,
    reduced: GraphModule,
    layers: Mapping[str, str],
    inputs: tuple[Tensor, ...],
) -> tuple[tuple[LayerNoise, ...], float | None]:
    """Compare two graphs whose layers bear the same node names.

    Args:
        reference: The float graph.
        reduced: The same with reduced weights, or with quantize/dequantize nodes between.
        layers: What to compare: node names in both graphs, with the names to report.
        inputs: One batch.

    Returns:
        A row a layer, the one that itself loses most first, and the SQNR of the worst output.
    """
    with torch.no_grad():
        tape = _Tape(reference, layers)
        expected = tape.run(*inputs)
        anchored = _Against(reduced, tape.values, anchor=True)
        anchored.run(*inputs)
        free = _Against(reduced, tape.values, anchor=False)
        result = free.run(*inputs)
    ops = {n.name: _op(n) for n in reference.graph.nodes if n.name in layers}
    rows = [
        LayerNoise(title, ops[name], anchored.noise[name], free.noise[name])
        for name, title in layers.items()
        if name in ops and name in free.noise
    ]
    rows.sort(key=lambda row: (inf if row.own_db is None else row.own_db, row.layer))
    before, after = ([t for t in pytree.tree_leaves(r) if _is_float(t)] for r in (expected, result))
    ratios = [sqnr(a, b) for a, b in zip(before, after, strict=True)]
    return tuple(rows), min((db for db in ratios if db is not None), default=None)


class _Tape(Interpreter):
    """Runs a graph and keeps the named values."""

    def __init__(self, module: GraphModule, names: Mapping[str, str]) -> None:
        super().__init__(module)
        self.names = names
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        if n.name in self.names:
            self.values[n.name] = value
        return value


class _Against(Interpreter):
    """Runs a graph beside a tape; with ``anchor`` each layer hands on the tape's value."""

    def __init__(self, module: GraphModule, tape: dict[str, Tensor], *, anchor: bool) -> None:
        super().__init__(module)
        self.tape = tape
        self.anchor = anchor
        self.noise: dict[str, float | None] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node and compare it."""
        value = super().run_node(n)
        if n.name not in self.tape:
            return value
        self.noise[n.name] = sqnr(self.tape[n.name], value)
        return self.tape[n.name] if self.anchor else value


def _op(node: Node) -> str:
    target = node.target
    name = target._schema.name if isinstance(target, torch._ops.OpOverload) else str(target)
    return name.removeprefix("aten::")


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
