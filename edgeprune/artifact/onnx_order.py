# SPDX-License-Identifier: Apache-2.0
"""Operators in an order in which each finds its inputs made. ONNX asks for it; not all keep it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from edgeprune.artifact.graph import Graph, Operator
from edgeprune.artifact.source import shown
from edgeprune.errors import InputError

__all__ = ["Scope", "in_order", "reads"]


@dataclass(frozen=True)
class Scope:
    """Names that a graph may read: its own, and those of the graph around it.

    Not one set for all: a file with a thousand sub-graphs would copy the outer names each time.
    """

    own: frozenset[str] = frozenset()
    outer: Scope | None = None

    def __contains__(self, name: str) -> bool:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.own:
                return True
            scope = scope.outer
        return False


def in_order(operators: list[Operator], given: Scope, name: str) -> tuple[Operator, ...]:
    """Sort ``operators`` so that each stands behind those whose outputs it reads.

    Operators that are in order already stay as they are. ``given`` are the tensors that are there
    from the start, ``name`` is how messages call the file.

    Raises:
        InputError: A tensor is read that nothing makes, or operators wait for each other.
    """
    wants = [reads(operator) for operator in operators]
    there: set[str] = set()
    for operator, wanted in zip(operators, wants, strict=True):
        if any(n not in there and n not in given for n in wanted):
            break
        there.update(operator.outputs)
    else:
        return tuple(operators)
    return _sorted(operators, wants, given, name)


def reads(operator: Operator) -> set[str]:
    """The tensors that it reads, those that its sub-graphs take from around them too."""
    wanted = {i for i in operator.inputs if i}
    for graph in operator.graphs.values():
        wanted |= _captured(graph)
    return wanted


def _captured(graph: Graph) -> set[str]:
    own = set(graph.inputs) | {n for n, t in graph.tensors.items() if t.constant}
    wanted = {output for output in graph.outputs if output}
    for operator in graph.operators:
        own.update(operator.outputs)
        wanted |= reads(operator)
    return wanted - own


def _sorted(
    operators: list[Operator], wants: list[set[str]], given: Scope, name: str
) -> tuple[Operator, ...]:
    maker = {output: i for i, op in enumerate(operators) for output in op.outputs if output}
    followers: dict[int, list[int]] = {}
    waits = []
    for index, wanted in enumerate(wants):
        makers = set()
        for tensor in wanted:
            if tensor in given:
                continue
            if tensor not in maker:
                raise InputError(
                    f"{name}: '{shown(operators[index].name)}' reads the tensor "
                    f"'{shown(tensor)}', which nothing makes"
                )
            makers.add(maker[tensor])
        waits.append(len(makers))
        for other in makers:
            followers.setdefault(other, []).append(index)
    return tuple(operators[i] for i in _walk(waits, followers, operators, name))


def _walk(
    waits: list[int], followers: dict[int, list[int]], operators: list[Operator], name: str
) -> Iterable[int]:
    ready = deque(index for index, count in enumerate(waits) if count == 0)
    done = []
    while ready:
        index = ready.popleft()
        done.append(index)
        for follower in followers.get(index, ()):
            waits[follower] -= 1
            if waits[follower] == 0:
                ready.append(follower)
    if len(done) < len(operators):
        stuck = next(op for op, count in zip(operators, waits, strict=True) if count)
        raise InputError(
            f"{name}: the graph has a cycle: '{shown(stuck.name)}' waits for its own output"
        )
    return done
