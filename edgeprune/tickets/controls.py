# SPDX-License-Identifier: Apache-2.0
"""What a ticket must beat to be more than its layers' densities: the controls.

Three things make a ticket: which weights live, with what values they begin, and how many live in
each layer. Each control keeps the last and takes one of the others away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from edgeprune.channels import analyse
from edgeprune.errors import InputError
from edgeprune.finetune import read_state
from edgeprune.mask import Layer, Mask, Ticket, channel_mask, look, removed_channels
from edgeprune.model import Model
from edgeprune.tickets.initial import fresh_state
from edgeprune.tickets.select import parse_pattern
from edgeprune.tickets.streams import generator

__all__ = ["CONTROLS", "Control", "random_mask", "reinitialised", "shuffled"]

Control = Callable[[Ticket, Model, int], Ticket]
"""From a ticket, the network that it is for, and a seed."""


def reinitialised(ticket: Ticket, model: Model, seed: int) -> Ticket:
    """The same mask with newly drawn weights (Frankle and Carbin 2019, section 2: random
    reinitialisation).

    Raises:
        InputError: The ticket is for another network.
    """
    ticket.mask.check(model)
    drawn = fresh_state(model, seed, "reinitialised")  # not those of --fresh by the same seed
    return Ticket(_told(ticket.mask, "reinitialised", seed), drawn)


def random_mask(ticket: Ticket, model: Model, seed: int) -> Ticket:
    """The same weights under a mask with as many living weights in each layer, at random places.

    That is the mask's entries permuted within each layer (Frankle et al. 2021, Pruning Neural
    Networks at Initialization, call that shuffling; "layerwise rearrange" of Su et al. 2020,
    Sanity-Checking Pruning Methods): to permute and to draw as many anew are one distribution, so
    that there is one control for both. A pattern N:M stays one, its entries permuted within each
    block; of a mask by channels whole channels are permuted within each group.

    Raises:
        InputError: The ticket is for another network.
    """
    mask = ticket.mask
    mask.check(model)
    if mask.about.structure == "channels":
        drawn = _other_channels(mask, model, seed)
    else:
        block, layers = _block(mask), {layer.name: layer for layer in look(model).layers}
        drawn = replace(
            mask,
            keep={
                name: _permuted(kept, layers.get(name), block, generator(seed, "random-mask", name))
                for name, kept in mask.keep.items()
            },
        )
    return Ticket(_told(drawn, "random-mask", seed), _start(ticket, model))


def shuffled(ticket: Ticket, model: Model, seed: int) -> Ticket:
    """The same mask with the values of its living weights permuted among their places, within each
    layer ("layerwise weights shuffling" of Su et al. 2020): each layer keeps its mask and the
    distribution of its weights, and loses which weight has which value.

    Raises:
        InputError: The ticket is for another network.
    """
    ticket.mask.check(model)
    start = dict(_start(ticket, model))
    for name, kept in ticket.mask.keep.items():
        value = start[name].clone()
        living = value[kept]
        order = torch.randperm(len(living), generator=generator(seed, "shuffled", name))
        value[kept] = living[order]
        start[name] = value
    return Ticket(_told(ticket.mask, "shuffled", seed), start)


CONTROLS: Mapping[str, Control] = {
    "reinitialised": reinitialised,
    "random-mask": random_mask,
    "shuffled": shuffled,
}
"""All controls by name."""


def _start(ticket: Ticket, model: Model) -> Mapping[str, Tensor]:
    return read_state(model.module()) if ticket.start is None else ticket.start


def _told(mask: Mask, control: str, seed: int) -> Mask:
    """The mask, with the control in what is said of it."""
    facts = {**mask.about.facts, "control": control, "control_seed": seed}
    return replace(mask, about=replace(mask.about, facts=facts))


def _block(mask: Mask) -> int | None:
    """M of a mask with a pattern N:M, as its options say it."""
    if mask.about.structure != "n:m":
        return None
    pattern = (mask.about.facts.get("options") or {}).get("pattern")
    if pattern is None:
        raise InputError("the mask says that it is N:M, but not which: it can't be drawn anew")
    return parse_pattern(pattern)[1]


def _permuted(
    kept: Tensor, layer: Layer | None, block: int | None, random: torch.Generator
) -> Tensor:
    """The entries in another order: within each block of neighbours along the input axis, or all.

    Raises:
        InputError: The blocks don't divide the layer.
    """
    if block is None:
        return kept.flatten()[torch.randperm(kept.numel(), generator=random)].reshape(kept.shape)
    if layer is None or kept.shape[layer.in_dim] % block:
        raise InputError(f"the mask is for another network: a block of {block} doesn't divide it")
    rows = kept.movedim(layer.in_dim, -1)
    blocks = rows.reshape(-1, block)
    order = torch.rand(blocks.shape, generator=random).argsort(-1)
    mixed = blocks.gather(-1, order).reshape(rows.shape)
    return mixed.movedim(-1, layer.in_dim).contiguous()


def _other_channels(mask: Mask, model: Model, seed: int) -> Mask:
    groups = analyse(model)
    removed = removed_channels(groups, mask)
    for group in groups.groups:
        random = generator(seed, "random-mask", group.name)
        order = torch.randperm(group.size, generator=random).numpy()
        removed[group.channels] = removed[group.channels][order]
    return channel_mask(groups, removed, mask.about)
