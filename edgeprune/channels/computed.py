# SPDX-License-Identifier: Apache-2.0
"""Weights that the graph computes from parameters: weight norm, standardisation, spectral norm.

What such a layer multiplies with is the result; its parameters alone say little (the direction of a
weight-normed filter may have any length).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from edgeprune.channels.groups import Groups
from edgeprune.channels.memory import operator_name
from edgeprune.channels.walk import owners
from edgeprune.model import Model

__all__ = ["Computed", "evaluate", "find_computed"]

_SAME_ELEMENTS = {
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t",
    "squeeze", "unsqueeze", "contiguous", "clone", "alias", "detach", "to", "_to_copy", "type_as",
    "chunk", "split", "split_with_sizes", "unbind", "getitem", "select", "slice", "narrow",
    "expand", "expand_as", "repeat", "cat", "stack", "lift_fresh_copy", "numpy_T", "mT", "movedim",
}  # fmt: skip
"""Operators whose results are elements of what they take: nothing is computed."""


@dataclass(frozen=True)
class Computed:
    """The weights that a model computes, by the name of the node that gives them."""

    labels: dict[str, tuple[NDArray[np.int64] | None, ...]]
    """The channel at each index of each dimension, -1 for none; ``None``: it has no channels."""
    replaced: frozenset[str]
    """Parameters that are used for these weights alone."""


def find_computed(model: Model, groups: Groups) -> Computed:
    """Every tensor that is computed from state alone, a parameter among it, and used by a layer."""
    names = owners(model)
    parts: dict[Node, bool] = {}  # what is made of state alone; whether anything is computed in it
    for node in model.program.graph.nodes:
        if node.name in names:
            parts[node] = False
        elif (
            node.op == "call_function"
            and node.all_input_nodes
            and parts.keys() >= set(node.all_input_nodes)
        ):
            below = any(parts[other] for other in node.all_input_nodes)
            parts[node] = below or operator_name(node) not in _SAME_ELEMENTS
    dims = groups.walk.computed
    ends = [
        node
        for node, computed in parts.items()
        if computed and node.name in dims and any(user not in parts for user in node.users)
    ]
    made = {end: _behind(end) for end in ends}
    ends = [e for e in ends if any(names.get(n.name) in groups.trainable for n in made[e])]
    inner = {node for end in ends for node in made[end]}
    apart = {names[n.name] for n in parts if n.name in names and not inner.issuperset(n.users)}
    return Computed(
        {
            end.name: tuple(None if a is None else groups.channel_of[a] for a in dims[end.name])
            for end in ends
        },
        frozenset(names[n.name] for n in inner if n.name in names) - apart,
    )


@torch.no_grad()
def evaluate(model: Model, nodes: Collection[str]) -> dict[str, Tensor]:
    """The values of nodes that are computed from state alone."""
    graph, names = model.program.graph, owners(model)
    state = {**model.program.state_dict, **model.program.constants}
    wanted = [node for node in graph.nodes if node.name in nodes]
    needed = {node for end in wanted for node in _behind(end)}
    values: dict[Node, Any] = {}
    for node in (n for n in graph.nodes if n in needed):
        if node.name in names:
            values[node] = state[names[node.name]].detach().clone()  # an operator may write to it
        else:
            args, kwargs = (map_arg(a, values.__getitem__) for a in (node.args, node.kwargs))
            values[node] = node.target(*args, **kwargs)
    return {node.name: values[node] for node in wanted}


def _behind(end: Node) -> set[Node]:
    found, stack = {end}, [end]
    while stack:
        new = set(stack.pop().all_input_nodes) - found
        found |= new
        stack += new
    return found
