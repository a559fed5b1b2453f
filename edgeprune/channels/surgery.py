# SPDX-License-Identifier: Apache-2.0
"""Take channels out: keep the living indices of each tensor, rewrite the literals of the graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgeprune.channels.atoms import Axis
from edgeprune.channels.groups import Bools, Groups
from edgeprune.model import Event, Model, recapture

__all__ = ["apply", "masked"]


def apply(model: Model, groups: Groups, removed: Bools, event: Event) -> Model:
    """``model`` without the channels in ``removed`` (one boolean for each channel of ``groups``).

    Raises:
        ValueError: A group would lose its last channel.
    """
    check(groups, removed)
    if not removed.any():
        return model.evolve(model.program, event)
    module = model.module()
    gone = groups.gone(removed)
    _shrink(module, groups, gone)

    def kept(axis: Axis) -> int:
        return int((~gone[axis]).sum())

    nodes = {node.name: node for node in module.graph.nodes}
    for edit in groups.walk.edits:
        edit.change(nodes[edit.node], kept)
    module.graph.lint()
    module.recompile()
    return recapture(model, module, event)


def check(groups: Groups, removed: Bools) -> None:
    """See that no group loses its last channel.

    Raises:
        ValueError: One does.
    """
    for group in groups.groups:
        if removed[group.channels].all():
            raise ValueError(f"group {group.name} would lose all its {group.size} channels")


def masked(model: Model, groups: Groups, removed: Bools) -> GraphModule:
    """The dense network with every slice that the removed channels own set to zero: what the pruned
    one must compute, where nothing renormalises."""
    module = model.module()
    gone = groups.gone(removed)
    with torch.no_grad():
        for name, dims in groups.walk.states.items():
            tensor = _state(module, name)
            for dim, axis in enumerate(dims):
                if axis is not None and gone[axis].any() and not name.endswith("running_var"):
                    tensor.index_fill_(dim, torch.from_numpy(np.flatnonzero(gone[axis])), 0)
    return module


def _shrink(module: GraphModule, groups: Groups, gone: Bools) -> None:
    """Cut the tensors; names that share one tensor go on sharing the smaller one."""
    aliases = _aliases(module)
    for name, dims in groups.walk.states.items():
        tensor = _state(module, name)
        small: Tensor = tensor.detach()
        for dim, axis in enumerate(dims):
            if axis is not None and gone[axis].any():
                small = small.index_select(dim, torch.from_numpy(np.flatnonzero(~gone[axis])))
        if small.shape == tensor.shape:
            continue
        new = (
            nn.Parameter(small, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else small
        )
        for alias in aliases.get(id(tensor), [name]):
            _assign(module, alias, new)


def _aliases(module: GraphModule) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name, tensor in (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ):
        found.setdefault(id(tensor), []).append(name)
    return found


def _owner(module: GraphModule, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


def _state(module: GraphModule, name: str) -> Tensor:
    owner, leaf = _owner(module, name)
    tensor = getattr(owner, leaf)
    assert isinstance(tensor, Tensor)
    return tensor


def _assign(module: GraphModule, name: str, tensor: Tensor) -> None:
    owner, leaf = _owner(module, name)
    setattr(owner, leaf, tensor)
