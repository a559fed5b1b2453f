# SPDX-License-Identifier: Apache-2.0
"""Take channels out: keep the living indices of each tensor, rewrite the literals of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

from edgeprune.channels.atoms import Axis
from edgeprune.channels.branches import Branch, Cut, cut, without
from edgeprune.channels.groups import Bools, Groups
from edgeprune.model import Event, Model, rebuild
from edgeprune.model.program import holder, identity

__all__ = ["apply", "masked"]


def apply(
    model: Model,
    groups: Groups,
    removed: Bools,
    event: Event,
    branches: Sequence[Branch] = (),
) -> Model:
    """``model`` without ``branches``, and without the channels in ``removed`` (one boolean for each
    channel of ``groups``) in what is left.

    Raises:
        ValueError: A group would lose its last channel, an input its use, an output all layers.
    """
    check(groups, removed, branches)
    if not removed.any() and not branches:
        return model.evolve(model.program, event)
    lost = cut(model, groups, branches)
    groups = without(groups, lost)
    gone = groups.gone(removed)

    def kept(axis: Axis) -> int:
        return int(axis.size - np.count_nonzero(gone[axis]))

    def change(graph: Graph) -> None:
        _take_out(graph, branches, lost)
        nodes = {node.name: node for node in graph.nodes}
        for edit in groups.walk.edits:
            edit.change(nodes[edit.node], kept)

    return rebuild(model, _shrunk(model, groups, gone), change, event, lost.states)


def check(groups: Groups, removed: Bools, branches: Sequence[Branch] = ()) -> None:
    """See that no group loses its last channel, unless it goes whole with one of ``branches``.

    Raises:
        ValueError: One does.
    """
    whole = {name for branch in branches for name in branch.groups}
    for group in groups.groups:
        if removed[group.channels].all() and group.name not in whole:
            raise ValueError(f"group {group.name} would lose all its {group.size} channels")


def masked(
    model: Model, groups: Groups, removed: Bools, branches: Sequence[Branch] = ()
) -> GraphModule:
    """The dense network with every slice that the removed channels own set to zero, and zeros added
    in place of ``branches``: what the pruned one must compute, where nothing renormalises."""
    module = model.module()
    gone = groups.gone(removed)
    with torch.no_grad():
        for name, dims in groups.walk.states.items():
            tensor = _state(module, name)
            for dim, axis in enumerate(dims):
                if axis is not None and gone[axis].any() and name not in groups.walk.divisors:
                    tensor.index_fill_(dim, torch.from_numpy(np.flatnonzero(gone[axis])), 0)
    nodes = {node.name: node for node in module.graph.nodes}
    for branch in branches:
        add = nodes[branch.add]
        with module.graph.inserting_before(add):
            own = add.all_input_nodes[branch.side]
            zeros = module.graph.call_function(torch.ops.aten.zeros_like.default, (own,))
        add.update_arg(branch.side, zeros)
    module.graph.lint()
    module.recompile()
    return module


def _take_out(graph: Graph, branches: Iterable[Branch], lost: Cut) -> None:
    """Put each branch's stream in the place of its addition, and erase what nothing uses then."""
    nodes = {node.name: node for node in graph.nodes}
    for branch in branches:
        add = nodes[branch.add]
        skip = add.all_input_nodes[1 - branch.side]
        if branch.add in lost.copies:
            with graph.inserting_before(add):
                skip = graph.call_function(
                    torch.ops.aten.clone.default,
                    (skip,),
                    {"memory_format": torch.contiguous_format},
                )
        add.replace_all_uses_with(skip)
        if branch.add not in lost.nodes:
            graph.erase_node(add)
    for node in reversed(list(graph.nodes)):
        if node.name in lost.nodes:
            graph.erase_node(node)


def _shrunk(model: Model, groups: Groups, gone: Bools) -> dict[str, Tensor]:
    """The tensors that lose indices, cut; names that share one tensor share the smaller one."""
    stored = {**model.program.state_dict, **model.program.constants}
    aliases: dict[object, list[str]] = {}
    for name, value in stored.items():
        if isinstance(value, Tensor):
            aliases.setdefault(identity(value), []).append(name)
    found: dict[str, Tensor] = {}
    for name, dims in groups.walk.states.items():
        small: Tensor = stored[name].detach()
        for dim, axis in enumerate(dims):
            if axis is not None and (away := gone[axis]).any():
                small = small.index_select(dim, torch.from_numpy(np.flatnonzero(~away)))
        if small.shape != stored[name].shape:
            found |= dict.fromkeys(aliases[identity(stored[name])], small)
    return found


def _state(module: GraphModule, name: str) -> Tensor:
    owner, leaf = holder(module, name)
    tensor = getattr(owner, leaf)
    assert isinstance(tensor, Tensor)
    return tensor
