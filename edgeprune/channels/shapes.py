# SPDX-License-Identifier: Apache-2.0
"""Concrete sizes of symbolic shapes, and how the dimensions of a reshape correspond."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch.fx import Node

__all__ = ["Block", "blocks", "concrete", "per_sample", "shape_of"]

_PRIMES = (37, 41, 43, 47, 53, 59, 61, 67, 71, 73)
"""Stand-ins for symbols: a size that no network has, so that equal products mean equal sizes."""


def concrete(size: Any) -> int:
    """A size with each symbol replaced by its own prime."""
    return _substitute(size, None)


def per_sample(size: Any) -> int:
    """A size with each symbol, the batch above all, replaced by 1."""
    return _substitute(size, 1)


def _substitute(size: Any, value: int | None) -> int:
    return size if isinstance(size, int) else _evaluated(size.node.expr, value)


@lru_cache(maxsize=1024)  # the same few sizes stand at all nodes of a graph
def _evaluated(expression: Any, value: int | None) -> int:
    symbols = sorted(expression.free_symbols, key=str)
    values = {s: value or _PRIMES[_number(str(s)) % len(_PRIMES)] for s in symbols}
    return int(expression.subs(values))


def _number(symbol: str) -> int:
    digits = "".join(c for c in symbol if c.isdigit())
    return int(digits) if digits else 0


def shape_of(node: Node) -> tuple[int, ...]:
    """The concrete shape of a node's tensor.

    Raises:
        TypeError: The node's value is no tensor.
    """
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{node.name} is no tensor")
    return tuple(concrete(s) for s in value.shape)


@dataclass(frozen=True)
class Block:
    """Input dimensions whose elements become those of output dimensions, and no others."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[Block] | None:
    """Split a reshape into the smallest independent parts, sizes of one left out; ``None`` where
    a dimension has size zero."""
    if prod(before) != prod(after) or prod(before) == 0:
        return None
    left = [i for i, size in enumerate(before) if size != 1]
    right = [j for j, size in enumerate(after) if size != 1]
    found: list[Block] = []
    while left:
        ins, outs = [left.pop(0)], [right.pop(0)]
        while (a := prod(before[i] for i in ins)) != (b := prod(after[j] for j in outs)):
            if a < b:
                ins.append(left.pop(0))
            else:
                outs.append(right.pop(0))
        found.append(Block(tuple(ins), tuple(outs)))
    return found
