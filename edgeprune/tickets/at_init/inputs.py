# SPDX-License-Identifier: Apache-2.0
"""Made-up inputs for scores that need no data, of numbers and of token ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.model import Model

__all__ = ["OnesForTokens", "gaussian", "ones", "tables"]


def tables(model: Model) -> dict[str, tuple[str, ...]]:
    """By integer input: the nodes that look its values, or what is computed of them alone, up in a
    table of embeddings."""
    graph = model.program.graph
    found: dict[str, tuple[str, ...]] = {}
    for given in model.inputs:
        if given.dtype.is_floating_point:
            continue
        reached = {node for node in graph.nodes if node.name == given.name}
        lookups: list[str] = []
        for node in graph.nodes:
            if node.target is torch.ops.aten.embedding.default and node.args[1] in reached:
                lookups.append(node.name)
            elif not reached.isdisjoint(node.all_input_nodes) and _is_integer(node):
                reached.add(node)
        found[given.name] = tuple(lookups)
    return found


def ones(model: Model) -> tuple[Tensor, ...]:
    """One sample of ones (as many as a fixed batch takes); token ids are 0, whatever they mean."""
    return tuple(
        torch.ones(i.sized(1), dtype=i.dtype)
        if i.dtype.is_floating_point or i.dtype is torch.bool
        else torch.zeros(i.sized(1), dtype=i.dtype)
        for i in model.inputs
    )


def gaussian(model: Model, count: int, random: torch.Generator) -> tuple[Tensor, ...]:
    """``count`` samples of independent normal numbers. Token ids are uniform over the rows of the
    smallest table that they are looked up in; other integers and booleans are 1."""
    rows = _rows(model)
    found = []
    for given in model.inputs:
        shape = given.sized(count)
        if given.dtype.is_floating_point:
            found.append(torch.randn(shape, generator=random).to(given.dtype))
        elif given.name in rows:
            found.append(
                torch.randint(0, rows[given.name], shape, generator=random, dtype=given.dtype)
            )
        else:
            found.append(torch.ones(shape, dtype=given.dtype))
    return tuple(found)


class OnesForTokens(Interpreter):
    """Runs a graph, but looking token ids up gives ones: the embedded input of ones."""

    def __init__(self, module: GraphModule, lookups: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__(module)
        self._lookups = {name for names in lookups.values() for name in names}

    def run_node(self, n: Node) -> Any:
        """One node's value."""
        value = super().run_node(n)
        return torch.ones_like(value) if n.name in self._lookups else value


def _rows(model: Model) -> dict[str, int]:
    nodes = {node.name: node for node in model.program.graph.nodes}
    sizes: dict[str, int] = {}
    for name, lookups in tables(model).items():
        for lookup in lookups:
            table = nodes[lookup].args[0]
            assert isinstance(table, Node)
            size = int(table.meta["val"].shape[0])
            sizes[name] = min(size, sizes.get(name, size))
    return sizes


def _is_integer(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and not value.is_floating_point()
