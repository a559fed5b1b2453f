# SPDX-License-Identifier: Apache-2.0
"""Einstein sums: a letter is one axis, wherever it stands."""

from collections import Counter
from math import prod

from torch.fx import Node

from edgeprune.channels.atoms import Axis
from edgeprune.channels.op import Op, Rule, Value
from edgeprune.channels.rules.contract import renormalise

__all__ = ["RULES"]


def einsum(op: Op) -> Value:
    """``einsum(equation, operands)``: the axes of each letter are glued; any may be pruned."""
    nodes: list[Node] = list(op.argument("tensors"))
    ranks = [len(op.dims(node)) for node in nodes]
    terms, result = _letters(op.argument("equation"), ranks)
    axes: dict[str, Axis | None] = {}
    sizes: dict[str, int] = {}
    for node, term in zip(nodes, terms, strict=True):
        for letter, axis, size, each in zip(
            term, op.dims(node), op.shape(node), op.sizes(node), strict=True
        ):
            if size == 1:
                axes.setdefault(letter, None)
                sizes.setdefault(letter, 1)
            elif sizes.get(letter, 1) == 1 and axes.get(letter) is None:
                axes[letter], sizes[letter] = axis, each
            else:
                op.glue(axes[letter], axis)
                axes[letter] = axes[letter] if axis is not None else None
    for letter in sorted(set(axes) - set(result)):
        factors = [node for node, term in zip(nodes, terms, strict=True) if letter in term]
        renormalise(op, axes[letter], *factors)
    _count(op, terms, result, axes, sizes)
    return tuple(axes[letter] for letter in result)


def _letters(equation: str, ranks: list[int]) -> tuple[list[list[str]], list[str]]:
    """The letters of each operand and of the result; the dimensions of an ellipsis are ``.0``,
    ``.1``, ... counted from the right."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = [_expanded(term, rank) for term, rank in zip(left.split(","), ranks, strict=True)]
    dots = max((term for term in (_dots(t) for t in terms)), key=len)
    if arrow:
        head, ellipsis, tail = right.partition("...")
        return terms, [*head, *(dots if ellipsis else []), *tail]
    times = Counter(letter for term in terms for letter in term if not letter.startswith("."))
    return terms, [*dots, *sorted(letter for letter, n in times.items() if n == 1)]


def _expanded(term: str, rank: int) -> list[str]:
    head, ellipsis, tail = term.partition("...")
    count = rank - len(head) - len(tail) if ellipsis else 0
    return [*head, *(f".{count - 1 - i}" for i in range(count)), *tail]


def _dots(term: list[str]) -> list[str]:
    return [letter for letter in term if letter.startswith(".")]


def _count(
    op: Op,
    terms: list[list[str]],
    result: list[str],
    axes: dict[str, Axis | None],
    sizes: dict[str, int],
) -> None:
    """Count the products pair by pair from the left, as the operator contracts; a pair that sums
    over no letter is element by element and counts nothing."""
    so_far = terms[0]
    for place in range(1, len(terms)):
        together = list(dict.fromkeys([*so_far, *terms[place]]))
        needed = {*result, *(letter for term in terms[place + 1 :] for letter in term)}
        rest = [letter for letter in together if letter in needed]
        if len(rest) < len(together):
            op.product(prod(sizes[t] for t in together), *(axes[t] for t in together))
        so_far = rest


RULES: dict[str, Rule] = {"einsum": einsum}
