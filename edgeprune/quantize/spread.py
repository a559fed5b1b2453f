# SPDX-License-Identifier: Apache-2.0
"""Operators for whose values one 8-bit scale is too coarse: found on a batch, kept in float."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.model.program import argument
from edgeprune.quantize import rules
from edgeprune.quantize.noise import sqnr

__all__ = ["too_coarse"]

aten = torch.ops.aten

_ENOUGH_DB = 30.0
"""Signal to noise on a shared scale from which a tensor is well kept: 16 steps and more."""
_GAIN_DB = 6.0
"""What a scale of its own must win, one bit, for the operator to stay float."""
_STEPS = 255

_MOVES = rules.SAME_RANGE | rules.SPLIT | rules.JOIN
_PADS = frozenset({aten.pad.default, aten.constant_pad_nd.default})
_SLICES = rules.SPLIT | {
    aten.slice.Tensor,
    aten.select.int,
    aten.narrow.default,
    aten.index.Tensor,
    aten.index_select.default,
}


def too_coarse(gm: GraphModule, inputs: tuple[Tensor, ...]) -> frozenset[str]:
    """Name the operators that one scale for all of their values would spoil.

    - A concatenation of operands of unlike range, where a result or a slice shows them apart.
    - A padding or a clamp with a constant far outside of the operand's range.
    - A softmax, sigmoid or tanh whose values are small beside the scale that runtimes prescribe.

    Args:
        gm: A graph in the form that :func:`edgeprune.quantize.simplify.prepare_static` gives.
        inputs: A batch.
    """
    finder = _Finder(gm)
    with torch.no_grad():
        finder.run(*inputs)
    return frozenset(finder.found)


class _Finder(Interpreter):
    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.found: set[str] = set()

    def run_node(self, n: Node) -> Any:
        """Run one node and judge what it does to its operands' values."""
        result = super().run_node(n)
        if n.op == "call_function" and self._spoils(n, result):
            self.found.add(n.name)
        return result

    def _spoils(self, node: Node, result: Any) -> bool:
        if node.target in rules.FIXED:
            return _is_spoilt(result, *_prescribed(node))
        if node.target in rules.JOIN and _is_seen_apart(node):
            parts = [self.env[part] for part in argument(node, 0)]
            low, high = _range(result)
            return any(_is_spoilt(part, low, high) for part in parts)
        if node.target in _PADS:
            values, number = self.env[argument(node, 0)], _padding(node)
            low, high = _fixed(argument(node, 0)) or _range(values)
            if low <= number <= high:
                return False
            prescribed = _fixed(argument(node, 0)) is not None
            return prescribed or _is_spoilt(values, min(low, number), max(high, number))
        if node.target in rules.RELU:
            low, high = _range(self.env[argument(node, 0)])
            bottom, top = rules.bounds(node)
            return (bottom or low) > high or (high if top is None else top) < low
        return False


def _is_seen_apart(node: Node) -> bool:
    """Whether the parts of a concatenation are told apart by what reads them: the caller, a slice,
    an operator that stays float. A layer takes all of them on one scale in any case."""
    return any(
        user.op == "output" or user.target in _SLICES or user.target not in _INTEGER
        for user in _readers(node)
    )


def _readers(node: Node) -> Iterator[Node]:
    for user in node.users:
        yield user
        if user.target in _MOVES and user.target not in _SLICES:
            yield from _readers(user)


_INTEGER = (
    _MOVES
    | rules.WEIGHTED.keys()
    | rules.BINARY
    | rules.PRODUCT
    | rules.OWN_RANGE
    | rules.AVERAGE
    | rules.FIXED.keys()
    | rules.NORM
)


def _prescribed(node: Node) -> tuple[float, float]:
    scale, zero = rules.FIXED[node.target]
    return scale * (-128 - zero), scale * (127 - zero)


def _fixed(node: Node) -> tuple[float, float] | None:
    """The range that runtimes prescribe for a value, where they do."""
    while node.target in rules.SAME_RANGE | rules.AVERAGE:
        node = argument(node, 0)
    return _prescribed(node) if node.target in rules.FIXED else None


def _padding(node: Node) -> float:
    """The constant that a padding puts around; 0 where it repeats values."""
    if node.target is aten.pad.default and argument(node, 2, "constant") != "constant":
        return 0.0
    given = argument(node, 3 if node.target is aten.pad.default else 2, None)
    return float(given or 0.0)


def _range(values: Tensor) -> tuple[float, float]:
    return min(float(values.min()), 0.0), max(float(values.max()), 0.0)


def _is_spoilt(values: Tensor, low: float, high: float) -> bool:
    """Whether values keep less of their signal on the scale of a range than they need, and than
    they would on a scale of their own."""
    if not values.is_floating_point() or not values.numel():
        return False
    shared = _kept(values, low, high)
    return shared < _ENOUGH_DB and _kept(values, *_range(values)) - shared > _GAIN_DB


def _kept(values: Tensor, low: float, high: float) -> float:
    step = (high - low) / _STEPS
    if not step or step != step or step == float("inf"):
        return float("inf") if not step else 0.0
    ratio = sqnr(values, (values / step).round().clamp(low / step, high / step) * step)
    return float("inf") if ratio is None else ratio
