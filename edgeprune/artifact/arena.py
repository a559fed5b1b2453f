# SPDX-License-Identifier: Apache-2.0
"""An estimate of the memory for activations: every tensor lives from the operator that makes it to
the last that reads it, and tensors that don't live at the same time may lie in the same place.

Planned greedily, the largest tensor first, each at the first place where it fits: "Greedy by Size"
of Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference (2020,
arXiv:2001.03288), in the order and with the 16 bytes of alignment of tflite-micro's planner.

Not in it: a runtime's own structures, scratch memory of its kernels, weights that it unpacks.
Operators that it joins or does in place need less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgeprune.artifact import limits
from edgeprune.artifact.call import Unknown
from edgeprune.artifact.graph import Graph, Operator, stored_bytes
from edgeprune.artifact.kinds import kinds, links
from edgeprune.artifact.operators import bare

__all__ = ["Arena", "Life", "arena", "plan"]

_ALIGNMENT = 16


class Life(NamedTuple):
    """A tensor's bytes, and the first and the last step at which they are needed."""

    name: str
    bytes: int
    first: int
    last: int


class Arena(NamedTuple):
    """The plan."""

    bytes: int
    """Of the whole."""
    widest: str
    """The operator at which most is needed at once."""
    needed: int
    """Bytes of all tensors that live there: no plan can do with less."""


def arena(graph: Graph, lite: bool) -> Arena:
    """Plan the memory of ``graph``, whose tensors must all be known.

    Raises:
        Unknown: The size of a tensor isn't known, or the graph is too large to plan.
    """
    lives = _Lives(graph, lite).found()
    needed = _needed(lives, len(graph.operators))
    step = max(range(len(needed)), key=needed.__getitem__, default=0)
    widest = graph.operators[step].name if graph.operators else ""
    places = plan(lives)
    size = max((start + life.bytes for life, start in zip(lives, places, strict=True)), default=0)
    return Arena(size, widest, max(needed, default=0))


def plan(lives: Sequence[Life]) -> list[int]:
    """Where each tensor lies, laid out greedily by size.

    Raises:
        Unknown: There are too many to plan.
    """
    steps: dict[int, list[int]] = {}
    places = [0] * len(lives)
    work = 0
    for number in sorted(range(len(lives)), key=lambda number: -lives[number].bytes):
        life = lives[number]
        beside: set[int] = set()
        for step in range(life.first, life.last + 1):
            there = steps.setdefault(step, [])
            beside.update(there)
            there.append(number)
            work += 1 + len(there)
            if work > limits.PLANNING:
                raise Unknown("too many tensors live at the same time to plan their memory")
        places[number] = _first_gap(sorted((places[n], lives[n].bytes) for n in beside), life.bytes)
    return places


def _first_gap(taken: list[tuple[int, int]], size: int) -> int:
    offset = 0
    for start, length in taken:
        if start - offset >= size:
            break
        offset = max(offset, start + length)
    return offset


def _needed(lives: Sequence[Life], steps: int) -> list[int]:
    change = [0] * (steps + 1)
    for life in lives:
        change[min(life.first, steps)] += life.bytes
        if life.last + 1 <= steps:
            change[life.last + 1] -= life.bytes
    total, result = 0, []
    for step in range(steps):
        total += change[step]
        result.append(total)
    return result


class _Lives:
    def __init__(self, graph: Graph, lite: bool) -> None:
        self._graph = graph
        self._lite = lite
        self._links = links(graph)
        self._kinds = kinds(graph, self._links, lite)
        self._inside: dict[str, bool] = {}
        self._steps = self._merged()

    def found(self) -> list[Life]:
        """The life of every tensor that takes memory, and of what sub-graphs need inside."""
        end = max(len(self._graph.operators) - 1, 0)
        first = dict.fromkeys(self._graph.inputs, 0)
        last: dict[str, int] = dict.fromkeys(self._graph.inputs, 0)
        extra = []
        for at, operator in enumerate(self._graph.operators):
            step = self._steps[at]
            for name in self._made(operator):
                first.setdefault(name, step)
                last[name] = max(last.get(name, 0), step)
            for name in self._read(operator):
                last[name] = max(last.get(name, 0), step)
            inner = [arena(graph, self._lite).bytes for graph in operator.graphs.values()]
            if inner:
                extra.append(Life(operator.name, max(inner), step, step))
        last.update((name, end) for name in self._graph.outputs if name in first)
        for name, tensor in self._graph.tensors.items():
            if tensor.variable:  # state is kept from run to run
                first[name], last[name] = 0, end
        lives = [self._life(name, first[name], last[name]) for name in first]
        return [life for life in lives if life.bytes] + extra

    def _life(self, name: str, first: int, last: int) -> Life:
        tensor = self._graph.tensors[name]
        if tensor.fixed or self._is_inside(name):
            return Life(name, 0, first, last)
        size = stored_bytes(tensor)
        if size is None:
            raise Unknown(f"the size of '{name}' isn't known")
        return Life(name, -(-size // _ALIGNMENT) * _ALIGNMENT, first, last)

    def _made(self, operator: Operator) -> list[str]:
        """The tensors that an operator makes; ONNX's optional ones only if somebody reads them."""
        named = operator.outputs if self._lite else operator.outputs[:1]
        rest = [name for name in operator.outputs[len(named) :] if name in self._links.readers]
        return [name for name in (*named, *rest) if name]

    def _read(self, operator: Operator) -> list[str]:
        """The tensors that an operator really reads."""
        names = []
        for name in filter(None, operator.inputs):
            maker = self._maker(name)
            behind = maker is not None and self._is_inside(name) and _is(maker, "DequantizeLinear")
            names.append(maker.input(0) if maker is not None and behind else name)
        return names

    def _is_inside(self, name: str) -> bool:
        """Whether a float tensor is only how the file writes an integer operator.

        Such are what it reads from DequantizeLinear, and what it gives to QuantizeLinear.
        """
        if name not in self._inside:  # a tensor with very many readers is asked for as often
            self._inside[name] = self._find_inside(name)
        return self._inside[name]

    def _find_inside(self, name: str) -> bool:
        at = self._links.maker.get(name)
        if self._lite or at is None:
            return False
        maker = self._graph.operators[at]
        readers = self._links.readers.get(name, ())
        if not readers or -1 in readers:
            return False
        if _is(maker, "DequantizeLinear"):
            return all(self._kinds[reader] == "int8" for reader in readers)
        if self._kinds[at] != "int8" and not self._is_dropped(at):
            return False
        return all(
            _is(self._graph.operators[reader], "QuantizeLinear") or self._is_dropped(reader)
            for reader in readers
        )

    def _is_dropped(self, at: int) -> bool:
        return self._kinds[at] == "none" and self._graph.operators[at].type in _CLIPS

    def _merged(self) -> list[int]:
        """The step of each operator; one that quantizes inside another runs with it."""
        steps: list[int] = []
        for at, operator in enumerate(self._graph.operators):
            name = next(iter(operator.inputs), "")
            maker = self._links.maker.get(name)
            joined = (
                maker is not None
                and self._is_inside(name)
                and not _is(self._graph.operators[maker], "DequantizeLinear")
            )
            steps.append(steps[maker] if maker is not None and joined else at)
        return steps

    def _maker(self, name: str) -> Operator | None:
        at = self._links.maker.get(name)
        return None if at is None else self._graph.operators[at]


_CLIPS = ("Clip", "Relu")


def _is(operator: Operator, kind: str) -> bool:
    return bare(operator.type) == kind
