# SPDX-License-Identifier: Apache-2.0
"""Coefficients that judge channels without a batch norm: heads, feed-forward neurons, plain layers.

EarlyBERT (Chen et al. 2021) multiplies the output of each attention head, and each intermediate
neuron of a feed-forward layer, with a learnable coefficient that begins at 1 and has an L1 penalty.
The next layer is linear in these, so that here the coefficient stands at the columns of that
layer's weight, ``W[:, c] * coefficient[c]``: the same function, and at the end the coefficients are
multiplied into the weights and gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule, Node

from edgeprune.channels import Group, Groups
from edgeprune.finetune import read_state
from edgeprune.mask import Network
from edgeprune.model import Event, Model, recapture

__all__ = ["Coefficients", "readers", "with_coefficients"]

_NAME = "early_bird_coefficients"
_aten = torch.ops.aten


@dataclass(frozen=True)
class Coefficients:
    """One coefficient a channel, in one parameter, and where each acts."""

    name: str
    """Of the parameter."""
    channels: NDArray[np.int64]
    """The channel of each coefficient."""
    acts: Mapping[str, tuple[int, Tensor]]
    """By weight: its input dimension, and for each index there the coefficient's place, or
    ``len(channels)`` for none."""

    def folded(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``state`` of a network with coefficients as one of the network without: the same
        function."""
        factors = torch.cat([state[self.name], state[self.name].new_ones(1)])
        folded = {name: value for name, value in state.items() if not name.startswith(self.name)}
        for name, (dim, places) in self.acts.items():
            shape = [1] * folded[name].ndim
            shape[dim] = -1
            folded[name] = folded[name] * factors[places].reshape(shape)
        return folded


def readers(network: Network, groups: Groups, group: Group) -> tuple[str, ...]:
    """The weights that take all channels of ``group`` in; none where a norm over these channels
    would undo a coefficient, as in the stream of a transformer."""
    if group.renormalises:
        return ()
    return tuple(
        layer.name
        for layer in network.layers
        if np.isin(group.channels, groups.labels.get((layer.name, layer.in_dim), ())).all()
    )


def with_coefficients(
    model: Model, network: Network, groups: Groups, chosen: Sequence[Group]
) -> tuple[Model, Coefficients]:
    """``model`` with a coefficient of 1 for each channel of the ``chosen`` groups: the same
    function, with one parameter more.

    Args:
        model: Left as it was.
        network: All of its layers, nothing excluded.
        groups: Of the same model.
        chosen: Groups that have ``readers``.
    """
    channels = np.concatenate([group.channels for group in chosen])
    place = np.full(groups.channels + 1, len(channels))
    place[channels] = np.arange(len(channels))
    acts: dict[str, tuple[int, Tensor]] = {}
    for name in {name: None for group in chosen for name in readers(network, groups, group)}:
        dim = network[name].in_dim
        acts[name] = (dim, torch.from_numpy(place[groups.labels[name, dim]]))
    module = model.module()
    found = Coefficients(_free(read_state(module)), channels, acts)
    _insert(module, found)
    return recapture(model, module, Event("early-bird coefficients")), found


def _free(taken: Mapping[str, Tensor]) -> str:
    name = _NAME
    while any(other.startswith(name) for other in taken):
        name += "_"
    return name


def _insert(module: GraphModule, found: Coefficients) -> None:
    """Multiply each weight, where the graph fetches it, with its coefficients."""
    module.register_parameter(found.name, torch.nn.Parameter(torch.ones(len(found.channels))))
    module.register_buffer(f"{found.name}_none", torch.ones(1))
    graph = module.graph
    with graph.inserting_before(next(iter(graph.nodes))):
        own = graph.get_attr(found.name)
        none = graph.get_attr(f"{found.name}_none")
        factors = graph.call_function(_aten.cat.default, ([own, none],))
    for number, (name, (dim, places)) in enumerate(found.acts.items()):
        module.register_buffer(f"{found.name}_{number}", places)
        with graph.inserting_after(factors):
            index = graph.get_attr(f"{found.name}_{number}")
        for fetched in [n for n in graph.nodes if n.op == "get_attr" and n.target == name]:
            _scale(graph, fetched, factors, index, dim)
    graph.lint()
    module.recompile()


def _scale(graph: torch.fx.Graph, weight: Node, factors: Node, index: Node, dim: int) -> None:
    shape = [1] * weight.meta["val"].ndim
    shape[dim] = -1
    users = list(weight.users)
    with graph.inserting_after(weight):
        picked = graph.call_function(_aten.index_select.default, (factors, 0, index))
    with graph.inserting_after(picked):
        formed = graph.call_function(_aten.reshape.default, (picked, shape))
    with graph.inserting_after(formed):
        scaled = graph.call_function(_aten.mul.Tensor, (weight, formed))
    for user in users:
        user.replace_input_with(weight, scaled)
