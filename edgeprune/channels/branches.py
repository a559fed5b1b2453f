# SPDX-License-Identifier: Apache-2.0
"""Residual branches: what a network can lose whole, found in its graph alone.

Where ``y = x + f(x)``, taking ``f`` out leaves ``y = x``: a network of another depth (Veit et al.
2016, Residual Networks Behave Like Ensembles of Relatively Shallow Networks, section 4.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch.fx import Node

from edgeprune.channels.groups import Groups
from edgeprune.channels.memory import Memory, operator_name, roots, written
from edgeprune.channels.reach import Reach
from edgeprune.model import Model

__all__ = ["Branch", "Cut", "cut", "find_branches", "without"]

_NOOPS = {
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "squeeze",
    "unsqueeze", "contiguous", "clone", "dropout", "feature_dropout", "alpha_dropout", "alias",
    "detach", "to", "_to_copy", "type_as", "view_as", "reshape_as", "swapaxes", "swapdims",
    "movedim", "moveaxis", "t", "lift_fresh_copy",
}  # fmt: skip
"""Operators that keep each element and its value, in eval mode."""


@dataclass(frozen=True)
class Branch:
    """One side of an addition, and all that is computed for it alone."""

    name: str
    """What the names of its layers begin with; numbered where several branches have one name."""
    add: str
    """The node that adds it to the stream; taken out, the stream itself stands there."""
    side: int
    """Its argument of that node: 0 or 1."""
    nodes: frozenset[str]
    """What nothing uses any more without it."""
    states: frozenset[str]
    """Parameters and buffers that only it uses."""
    uses: frozenset[str]
    """All parameters and buffers that it uses; another layer may share them."""
    groups: tuple[str, ...]
    """The groups of channels that live wholly inside."""
    stage: str
    """The node at which the stream that it adds to begins: equal for the blocks of one stage."""
    kind: tuple[str, ...]
    """The operators that multiply in it: attention isn't ranked with a feed-forward branch."""
    macs: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Cut:
    """What goes from the graph with some branches."""

    nodes: frozenset[str]
    states: frozenset[str]
    copies: frozenset[str]
    """Additions that need a copy of their stream in their place: an in-place operator behind them
    would write to what others still read, or its layout in memory is another."""


def find_branches(model: Model, groups: Groups) -> tuple[Branch, ...]:
    """The residual branches of ``model``, in the order of the graph; nested ones too.

    For each addition of two tensors of one shape and type, one side is cut off. What is dead then
    is a branch if it multiplies with parameters, and if it starts from the other side: from what
    views, norms and activations make of it, or of the same stream some branches earlier. So a
    down-sampling shortcut with a layer of its own is none, and masks and position tables may enter
    a branch anywhere. What writes in place to memory outside of it stays. A branch without which an
    input, or all layers before an output, would be of no use isn't offered.
    """
    graph = Reach(model, groups)
    streams: dict[Node, str] = {}
    skips: dict[Node, Node] = {}
    seen: Counter[str] = Counter()
    found = []
    for add in graph.nodes:
        for side in _sides(add):
            dead = graph.dead({add: side})
            if not _is_residual(graph, add, side, dead, skips):
                continue
            skips[add] = add.all_input_nodes[1 - side]
            streams[add] = _stream(graph, skips[add], streams)
            branch = _describe(graph, groups, add, side, dead, streams[add])
            seen[branch.name] += 1
            if seen[branch.name] > 1:
                branch = replace(branch, name=f"{branch.name}#{seen[branch.name]}")
            found.append(branch)
            break
    return tuple(found)


def cut(model: Model, groups: Groups, branches: Sequence[Branch]) -> Cut:
    """What goes with all of ``branches``: also what several of them shared and nothing else uses.

    Raises:
        ValueError: An input would be of no use any more, or nothing would compute an output.
    """
    if not branches:
        return Cut(frozenset(), frozenset(), frozenset())
    graph = Reach(model, groups)
    adds = {graph.named[b.add]: b.side for b in sorted(branches, key=lambda b: graph.place(b.add))}
    dead = graph.dead(adds)
    lost = graph.severed(adds, dead)
    if lost is not None:
        raise ValueError(f"without {', '.join(b.name for b in branches)} {lost}")
    return Cut(
        frozenset(n.name for n in dead),
        graph.states_of(dead),
        frozenset(_copies(graph, adds, dead)),
    )


def without(groups: Groups, gone: Cut) -> Groups:
    """``groups`` of the network that is left: costs and literals of what goes are out. Groups of
    channels keep their numbers, also those that live wholly in what goes."""
    walk = groups.walk
    left = replace(
        walk,
        states={name: dims for name, dims in walk.states.items() if name not in gone.states},
        edits=tuple(edit for edit in walk.edits if edit.node not in gone.nodes),
        products=tuple(product for product in walk.products if product.node not in gone.nodes),
    )
    return replace(groups, walk=left)


def _sides(add: Node) -> tuple[int, ...]:
    """The sides of an addition that may be a branch: none of anything else."""
    if add.op != "call_function" or add.target not in (
        torch.ops.aten.add.Tensor,
        torch.ops.aten.add_.Tensor,
    ):
        return ()
    parts = add.args
    if len(parts) != 2 or len(set(add.all_input_nodes)) != 2:
        return ()
    kinds = {_kind(node) for node in (add, *add.all_input_nodes)}
    if len(kinds) != 1 or None in kinds:
        return ()
    return (1,) if add.kwargs.get("alpha", 1) != 1 else (0, 1)


def _kind(node: Node) -> tuple[str, torch.dtype] | None:
    value = node.meta.get("val")
    return (str(tuple(value.shape)), value.dtype) if isinstance(value, torch.Tensor) else None


def _is_residual(
    graph: Reach, add: Node, side: int, dead: set[Node], skips: dict[Node, Node]
) -> bool:
    if not any(node in graph.weighted for node in dead):
        return False
    parts = add.all_input_nodes
    if written(add) == [parts[side]] and not roots(parts[side]) <= dead:
        return False
    if not _starts_from(graph, parts[1 - side], dead, skips):
        return False
    # Only where it can: looking at the whole graph for each branch would take too long
    skip = parts[1 - side]
    inputs = any(n in graph.inputs for d in dead for n in d.all_input_nodes)
    return (skip in graph.layered and not inputs) or graph.severed({add: side}, dead) is None


def _starts_from(graph: Reach, skip: Node, dead: set[Node], skips: dict[Node, Node]) -> bool:
    """Whether an input of ``dead`` is made of the stream of ``skip`` by operators of one input."""
    made_of: set[Node] = set()
    for entry in {n for d in dead for n in d.all_input_nodes if n not in dead}:
        here: Node | None = entry
        while here is not None and here not in made_of:
            made_of.add(here)
            here = graph.only_input(here)
    first = min(graph.order[node] for node in made_of)
    here = skip
    while here is not None and graph.order[here] >= first:
        if here in made_of:
            return True
        behind = graph.only_input(here) if operator_name(here) in _NOOPS else None
        here = skips.get(here, behind)
    return False


def _stream(graph: Reach, skip: Node, streams: dict[Node, str]) -> str:
    """The start of the stream that ``skip`` belongs to: through norms, activations and views up to
    another residual addition, whose stream it is, or to what is none of these."""
    here = skip
    while here not in streams:
        behind = graph.only_input(here)
        if behind is None or (operator_name(here) not in _NOOPS and _kind(here) != _kind(behind)):
            return here.name
        here = behind
    return streams[here]


def _describe(
    graph: Reach, groups: Groups, add: Node, side: int, dead: set[Node], stage: str
) -> Branch:
    nodes = frozenset(n.name for n in dead)
    states = graph.states_of(dead)
    touched = {i for name in states for i in graph.groups_on.get(name, ())}
    inside = [
        groups.groups[i]
        for i in sorted(touched)
        if all(name in states for name, _ in groups.groups[i].members)
    ]
    counted = states & groups.walk.states.keys()
    tensors = graph.tensors(counted)
    layers = sorted((n for n in dead if n in graph.weighted), key=graph.order.__getitem__)
    return Branch(
        _name([name for layer in layers for name in graph.parameters_of(layer)]),
        add.name,
        side,
        nodes,
        states,
        frozenset(graph.states[n] for d in dead for n in d.all_input_nodes if n in graph.states),
        tuple(group.name for group in inside),
        stage,
        tuple(sorted({operator_name(n) for n in dead if n.name in graph.macs})),
        sum(graph.macs.get(name, 0) for name in nodes),
        sum(t.numel() for name, t in tensors.items() if name in groups.trainable),
        sum(t.nbytes for t in tensors.values()),
    )


def _name(parameters: list[str]) -> str:
    modules = [name.rpartition(".")[0] or name for name in parameters]
    columns = zip(*(module.split(".") for module in modules), strict=False)
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    return ".".join(shared) or modules[0]


def _copies(graph: Reach, adds: dict[Node, int], dead: set[Node]) -> Iterator[str]:
    memory = Memory(graph.order)
    for add, side in adds.items():
        skip = add.all_input_nodes[1 - side]
        strides = [str(tuple(n.meta["val"].stride())) for n in (add, skip)]
        if add in dead or memory.same(add, skip):
            continue
        if strides[0] != strides[1] or memory.clash(add, skip, graph.order[add], dead):
            yield add.name
        else:
            memory.merge(add, skip)
