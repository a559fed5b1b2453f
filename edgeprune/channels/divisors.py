# SPDX-License-Identifier: Apache-2.0
"""State that a network divides by, so that a zero of it would give no number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor
from torch.fx import Node

__all__ = ["divisors"]

_DIVIDE = {
    "div": 1, "div_": 1, "true_divide": 1, "divide": 1, "rsqrt": 0, "reciprocal": 0, "log": 0,
    "_weight_norm": 0,
}  # fmt: skip
"""Operators that a zero breaks, and the argument that must be none."""
_LIFT = {"add", "add_", "clamp", "clamp_min", "maximum", "exp", "softplus"}
"""Operators behind which a zero is none any more, as behind an epsilon."""


def divisors(nodes: Iterable[Node], states: Mapping[Node, str]) -> frozenset[str]:
    """State by whose size its channel is divided: variances, and the directions of weight norm.
    Where a channel goes, what they are multiplied with is zero.

    Args:
        nodes: Of a graph, in its order.
        states: The parameter or buffer that an input of the graph is.
    """
    found = {name for name in states.values() if name.endswith("running_var")}
    behind: dict[Node, set[str]] = {}
    for node in nodes:
        inputs = node.all_input_nodes
        name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
        if node in states:
            behind[node] = {states[node]}
        elif name not in _LIFT and inputs and all(n in behind for n in inputs) and _long(node):
            behind[node] = set().union(*(behind[n] for n in inputs))
        place = _DIVIDE.get(name, len(node.args))
        divisor = node.args[place] if place < len(node.args) else None
        if isinstance(divisor, Node):
            found |= behind.get(divisor, set())
    return frozenset(found)


def _long(node: Node) -> bool:
    """Whether a node has an entry for each channel, and isn't one number of all."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.numel() > 1
