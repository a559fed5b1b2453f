# SPDX-License-Identifier: Apache-2.0
"""A network run piece by piece: many batches, each up to a node, and on from there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

__all__ = ["Side"]


class Side:
    """One of two networks that are walked side by side.

    Between calls only those values of a batch are held that later nodes use.
    """

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.nodes = list(module.graph.nodes)
        self.place = {node: i for i, node in enumerate(self.nodes)}
        self._runs = Interpreter(module, garbage_collect_values=False)
        self._runs.extra_traceback = False
        last: dict[Node, int] = {}
        for i, node in enumerate(self.nodes):
            for used in node.all_input_nodes:
                last[used] = i
        self._free: dict[int, list[Node]] = {}
        for node, i in last.items():
            self._free.setdefault(i, []).append(node)
        self._held: dict[int, dict[Node, Any]] = {}
        self._at: dict[int, int] = {}

    def start(self, batch: int, inputs: Sequence[Tensor]) -> None:
        """Put a batch at the beginning: a new one, or one that has passed weights which changed."""
        given = iter(inputs)  # cloned, as a graph may write to its inputs
        found = {n: next(given).clone() for n in self.nodes if n.op == "placeholder"}
        self._held[batch], self._at[batch] = found, 0

    @torch.no_grad()
    def advance(self, batch: int, node: Node, *, past: bool = False) -> None:
        """Run a batch up to ``node``, or ``past`` it."""
        held, end = self._held[batch], self.place[node] + past
        self._runs.env = held
        for place in range(self._at[batch], end):
            current = self.nodes[place]
            if current.op not in ("placeholder", "output"):
                held[current] = self._runs.run_node(current)
            for used in self._free.get(place, ()):
                held.pop(used, None)
        self._at[batch] = max(self._at[batch], end)

    def drop(self, batch: int) -> None:
        """Forget a batch."""
        del self._held[batch], self._at[batch]

    def held(self, batch: int) -> int:
        """Bytes of the values that are kept for a batch."""
        leaves = pytree.tree_leaves(list(self._held[batch].values()))
        stores = {t.data_ptr(): t.nbytes for t in leaves if isinstance(t, Tensor)}
        return sum(stores.values())

    def has(self, batch: int, node: Node) -> bool:
        """Whether what ``node`` gave for a batch is known now."""
        return node in self._held[batch]

    def value(self, batch: int, node: Node) -> Tensor:
        """What ``node`` gave for a batch."""
        found = self._held[batch][node]
        assert isinstance(found, Tensor)
        return found
