# SPDX-License-Identifier: Apache-2.0
"""Stages and blocks of a network, found in its graph: what repeats, and what repeats but once.

The graph is cut where all that the first layers gave flows through one tensor: behind the addition
of a residual branch, between the layers of a chain. What lies between two cuts is a segment; a
stage is a run of equal segments (or equal sequences of them), with the block before it where that
does the same in other shapes, as the down-sampling block of a ResNet's stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor
from torch.fx import Node

from edgeprune.channels.memory import operator_name
from edgeprune.mask import Network, look
from edgeprune.model import Model

__all__ = ["Block", "Layout", "Stage", "Use", "common_path", "find_stages"]

_SHORTCUT = 2
"""Uses that a first block may have beyond those of the others: a convolution and its norm."""


@dataclass(frozen=True)
class Use:
    """A node that uses parameters or buffers."""

    op: str
    states: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    """Of the states."""
    numbers: tuple[str, ...] = ()
    """Stride, padding, dilation and groups of a convolution."""

    @property
    def form(self) -> tuple[object, ...]:
        """What it is but for names."""
        return self.op, self.shapes, self.numbers


@dataclass(frozen=True)
class Block:
    """Neighbouring parts of the graph."""

    layers: tuple[str, ...]
    """Weights that multiply, in the order of the graph."""
    uses: tuple[Use, ...] = field(repr=False)
    """All that uses parameters or buffers, in the order of the graph."""

    @property
    def form(self) -> tuple[object, ...]:
        """Equal for blocks of equal operators and shapes."""
        return tuple(use.form for use in self.uses)

    @property
    def name(self) -> str:
        """What the names of its states have in common."""
        return common_path([state for use in self.uses for state in use.states])


@dataclass(frozen=True)
class Stage:
    """Blocks that follow each other; all but the first are equal."""

    blocks: tuple[Block, ...]

    def __str__(self) -> str:
        return " ".join(block.name or "+".join(block.layers) for block in self.blocks)


@dataclass(frozen=True)
class Layout:
    """A network as stages and what lies between them, in the order of the graph."""

    parts: tuple[Stage | Block, ...]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What repeats."""
        return tuple(part for part in self.parts if isinstance(part, Stage))


def find_stages(model: Model) -> Layout:
    """The stages of ``model``, from its graph. The names of its parameters only decide where the
    graph leaves it open: at which of several segments a run of blocks begins, and whether the
    block before it belongs to it."""
    segments = _segments(model, look(model))
    parts: list[Stage | Block] = []
    rest = 0
    for bounds in _runs(segments):
        parts += [segment.block for segment in segments[rest : bounds[0]]]
        parts.append(Stage(tuple(_blocks(segments, bounds))))
        rest = bounds[-1]
    parts += [segment.block for segment in segments[rest:]]
    return Layout(tuple(parts))


@dataclass(frozen=True)
class _Segment:
    """What lies between two cuts."""

    block: Block
    out: str
    """The shape of the tensor that all flows through at its end, without the batch."""
    adds: bool
    """Whether branches are added in it."""


Bounds = tuple[int, ...]
"""Of the blocks of a stage, as places of segments: one more than there are blocks."""


def _segments(model: Model, network: Network) -> list[_Segment]:
    """The segments that use states; one without any belongs to the one before it."""
    nodes = [n for n in model.program.graph.nodes if n.op == "call_function"]
    of_node: dict[str, list[str]] = {}
    for layer in network.layers:
        for name in layer.nodes:
            of_node.setdefault(name, []).append(layer.name)
    cuts = _cuts(model, nodes)
    found: list[_Segment] = []
    uses: list[Use] = []
    layers: list[str] = []
    adds = False
    for node in nodes:
        use = _use(model, node)
        if use is not None:
            uses.append(use)
        layers += of_node.get(node.name, [])
        adds = adds or (operator_name(node).startswith("add") and len(node.all_input_nodes) == 2)
        if node in cuts and uses:
            found.append(_Segment(Block(tuple(layers), tuple(uses)), _out(node), adds))
            uses, layers, adds = [], [], False
    if uses:
        found.append(_Segment(Block(tuple(layers), tuple(uses)), "", False))
    return found


def _cuts(model: Model, nodes: Sequence[Node]) -> set[Node]:
    """The nodes that all goes through: in the order of the graph, no edge passes them by between
    nodes that depend on an input and a parameter."""
    signature = model.program.graph_signature
    given = {n for n in model.program.graph.nodes if n.name in signature.user_inputs}
    behind: dict[Node, int] = {}
    last: dict[Node, int] = {}
    entry = 0  # the last place at which an input meets its first parameter
    for place, node in enumerate(nodes):
        operands = node.all_input_nodes
        if given.isdisjoint(operands) or not _is_tensor(node):
            continue
        given.add(node)
        sources = [n for n in operands if n in behind]
        last |= dict.fromkeys(sources, place)
        if sources or any(n.name in signature.inputs_to_parameters for n in operands):
            behind[node] = place
            entry = entry if sources else place
    reach, cuts = entry, set()
    for node, place in behind.items():
        if place >= reach:
            cuts.add(node)
        reach = max(reach, last.get(node, 0))
    return cuts


def _runs(segments: Sequence[_Segment]) -> list[Bounds]:
    """The stages, the one with most layers found first, and no segment in two."""
    free = [True] * len(segments)
    found: list[Bounds] = []
    for begin, width, count in sorted(_repeats(segments), key=lambda r: _rank(segments, *r)):
        bounds = tuple(begin + width * i for i in range(count + 1))
        if not all(free[begin : bounds[-1]]):
            continue
        first = _first_block(segments, bounds, free)
        if first is not None:
            bounds = (first, *bounds)
        if len(bounds) > 2:
            free[bounds[0] : bounds[-1]] = [False] * (bounds[-1] - bounds[0])
            found.append(bounds)
    return sorted(found)


def _repeats(segments: Sequence[_Segment]) -> Iterator[tuple[int, int, int]]:
    """Where equal sequences of segments follow each other: first segment, width of one, how many.
    A residual block counts alone too: there may be a first block before it."""
    forms = [segment.block.form for segment in segments]
    for begin in range(len(forms)):
        for width in range(1, len(forms) - begin + 1):
            unit, count = forms[begin : begin + width], 1
            while forms[begin + count * width : begin + (count + 1) * width] == unit:
                count += 1
            layers = sum(len(s.block.layers) for s in segments[begin : begin + width])
            alone = width == 1 and layers > 1 and segments[begin].adds
            if (layers and count > 1) or alone:
                yield begin, width, count


def _rank(segments: Sequence[_Segment], begin: int, width: int, count: int) -> tuple[int, ...]:
    """Most layers first, then the shortest blocks, then those that have a name of their own."""
    end = begin + width * count
    layers = sum(len(s.block.layers) for s in segments[begin:end])
    bounds = tuple(range(begin, end + 1, width))
    around = [s.block for s in (*segments[max(0, begin - 1) : begin], *segments[end : end + 1])]
    blocks = list(_blocks(segments, bounds))
    own = sum(
        bool(block.name)
        and not any(_within(other, block.name) for other in {*blocks, *around} - {block})
        for block in blocks
    )
    return count == 1, -layers, width, -own, begin


def _first_block(segments: Sequence[_Segment], bounds: Bounds, free: Sequence[bool]) -> int | None:
    """Where the block before a run begins that does the same in other shapes, maybe with a
    shortcut of its own; ``None``: there is none."""
    begin = bounds[0]
    later = _joined(segments[begin : bounds[1]])
    wanted = [use.op for use in later.uses]
    for first in range(begin - 1, -1, -1):
        if not free[first]:
            return None
        block = _joined(segments[first:begin])
        ops = [use.op for use in block.uses]
        if len(ops) > len(wanted) + _SHORTCUT:
            return None
        if _contains(ops, wanted):
            whole = segments[begin - 1].out == segments[bounds[1] - 1].out != ""
            run = [segment.block for segment in segments[begin : bounds[-1]]]
            return first if whole and _related(block, run, len(bounds) > 2) else None
    return None


def _related(block: Block, run: Sequence[Block], several: bool) -> bool:
    """Whether names leave it open that a block belongs to a run."""
    states = [state for b in run for use in b.uses for state in use.states]
    if several:
        return _within(block, common_path(states))
    mine = [state for use in block.uses for state in use.states]
    return bool(common_path([*states, *mine])) or not common_path(states)


def _within(block: Block, name: str) -> bool:
    return all(s.startswith(f"{name}.") for u in block.uses for s in u.states) or not name


def _contains(ops: Sequence[str], wanted: Sequence[str]) -> bool:
    rest = iter(ops)
    return all(op in rest for op in wanted)


def _blocks(segments: Sequence[_Segment], bounds: Bounds) -> Iterator[Block]:
    for begin, end in pairwise(bounds):
        yield _joined(segments[begin:end])


def _joined(segments: Sequence[_Segment]) -> Block:
    return Block(
        tuple(name for s in segments for name in s.block.layers),
        tuple(use for s in segments for use in s.block.uses),
    )


def common_path(names: Sequence[str]) -> str:
    """The path of modules that names have in common."""
    paths = [name.split(".")[:-1] for name in names]
    common = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return ".".join(common)


def _use(model: Model, node: Node) -> Use | None:
    signature = model.program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    given = [n for n in node.all_input_nodes if n.name in names]
    if not given:
        return None
    op = operator_name(node)
    numbers = tuple(str(a) for a in node.args if not isinstance(a, Node))
    return Use(
        op,
        tuple(names[n.name] for n in given),
        tuple(tuple(n.meta["val"].shape) for n in given),
        numbers if op.startswith("conv") else (),
    )


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), (Tensor, tuple, list))


def _out(node: Node) -> str:
    value = node.meta.get("val")
    return str(tuple(value.shape[1:])) if isinstance(value, Tensor) else ""
