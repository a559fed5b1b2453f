# SPDX-License-Identifier: Apache-2.0
"""Which values of a graph share memory: captured graphs hold views and in-place operators."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch.fx import Node

__all__ = ["Memory", "operator_name", "roots", "written"]

_MAY_RETURN_INPUT = {
    "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "type_as",
}  # fmt: skip
"""Operators whose schema doesn't say that their result can be their input itself."""


def operator_name(node: Node) -> str:
    """The operator of a call without namespace and overload: ``conv2d``."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).split("::")[-1]
    return str(getattr(target, "__name__", target))


def written(node: Node) -> list[Node]:
    """The arguments whose memory ``node`` writes to."""
    return [value for value, write in _marked(node) if write]


def shared(node: Node) -> list[Node]:
    """The arguments whose memory the result of ``node`` may be."""
    if node.op != "call_function":
        return []
    if operator_name(node) in _MAY_RETURN_INPUT:
        return node.all_input_nodes[:1]
    if isinstance(node.target, torch._ops.OpOverload):
        return [value for value, _ in _marked(node)]
    # An item of a list, or a subgraph that may hand on what it was given
    return node.all_input_nodes


def _marked(node: Node) -> Iterator[tuple[Node, bool]]:
    """The tensor arguments that the schema marks as aliased, and whether it writes to them."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return
    for place, argument in enumerate(node.target._schema.arguments):
        info = argument.alias_info
        if info is None:
            continue
        value = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name)
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(each, Node):
                yield each, info.is_write


def roots(node: Node) -> set[Node]:
    """The nodes that made the memory of ``node``."""
    found, stack, seen = set(), [node], {node}
    while stack:
        here = stack.pop()
        behind = shared(here)
        if not behind:
            found.add(here)
        stack += [n for n in behind if n not in seen]
        seen.update(behind)
    return found


class Memory:
    """Classes of nodes that may share memory, which can be merged."""

    def __init__(self, order: dict[Node, int]) -> None:
        self._order = order
        self._root: dict[Node, Node] = {}
        self._members: dict[Node, list[Node]] = {}
        for node in order:
            self._root[node], self._members[node] = node, [node]
            for other in shared(node):
                self.merge(node, other)

    def same(self, a: Node, b: Node) -> bool:
        """Whether two nodes may share memory."""
        return self._root[a] is self._root[b]

    def merge(self, a: Node, b: Node) -> None:
        """Take the memory of ``a`` and of ``b`` for one from now on."""
        large, small = self._root[a], self._root[b]
        if large is small:
            return
        if len(self._members[large]) < len(self._members[small]):
            large, small = small, large
        for node in self._members[small]:
            self._root[node] = large
        self._members[large] += self._members.pop(small)

    def clash(self, a: Node, b: Node, start: int, gone: Collection[Node]) -> bool:
        """Whether the memory of ``b`` can't stand in for that of ``a``, of equal values: after
        position ``start`` ``a`` is written to, or ``b`` is before the last read of ``a``.

        A write to ``a`` clashes even where nobody reads ``b`` any more: what made ``b`` may have
        saved it for its gradient.
        """
        writes_a, reads_a = self._uses(a, start, gone)
        writes_b, _ = self._uses(b, start, gone)
        return writes_a <= len(self._order) or reads_a >= writes_b

    def _uses(self, node: Node, start: int, gone: Collection[Node]) -> tuple[int, int]:
        """The first write to the memory of ``node`` after ``start`` (one that never comes: after
        the end), and the last read of it."""
        members = self._members[self._root[node]]
        write, read = len(self._order) + 1, -1
        for user in {u for m in members for u in m.users}:
            place = self._order[user]
            if place <= start or user in gone:
                continue
            read = max(read, place)
            if any(self.same(w, node) for w in written(user)):
                write = min(write, place)
        return write, read
