# SPDX-License-Identifier: Apache-2.0
"""A ticket stretched or squeezed to another depth (Chen et al. 2021, The Elastic Lottery Ticket
Hypothesis, section 3).

Each stage keeps its first block, which may be the one that samples down; the later ones, which are
alike, are replicated or dropped, masks, weights and statistics together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from edgeprune.errors import InputError
from edgeprune.finetune import read_state
from edgeprune.mask import About, Mask, Ticket, look
from edgeprune.model import Model
from edgeprune.tickets.carry.correspond import Pair, correspond
from edgeprune.tickets.carry.transfer import Head, heads

__all__ = ["Order", "Origin", "Stretched", "stretch"]

Order = Literal["append", "interpolate"]
Depths = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Origin:
    """Where a block of the target comes from."""

    block: str
    """What the names of its parameters have in common."""
    source: str
    layers: tuple[tuple[str, str], ...]
    """Weights of the target, each with the one of the source that it has its mask from."""
    states: tuple[tuple[str, str], ...]
    """The same of all parameters and buffers that the graph uses."""


@dataclass(frozen=True)
class Stretched:
    """A ticket for a network of another depth."""

    ticket: Ticket
    origins: tuple[Origin, ...]
    """Of all parts of the target, those that aren't repeated too, in the order of its graph."""
    depths: Depths
    """Blocks of each stage, in the source and in the target."""
    left: tuple[tuple[str, str], ...]
    """Weights of the target that stay dense, and why."""
    notes: tuple[str, ...] = ()


def stretch(
    ticket: Ticket,
    source: Model | None,
    target: Model,
    *,
    order: Order = "append",
    head: Head = "exclude",
) -> Stretched:
    """Fit a ticket to a network with deeper or shallower stages of the same widths.

    With later blocks 1 and 2, four of them become 1 2 1 2 by ``append`` and 1 1 2 2 by
    ``interpolate``; of 1 2 3 4, two become 1 2 by ``append`` and 1 3 by ``interpolate``. The paper
    finds both alike, as long as the early blocks aren't the ones that go (sections 3.1 and 3.2).

    Args:
        ticket: By weights, not by channels.
        source: The network that it was found on. ``None``: the ticket's own names and shapes are
            matched with the target; then it needs a mask for each weight but the head's, and names
            must tell which norms belong to which block.
        target: It isn't changed.
        order: Of the replicated blocks.
        head: ``exclude`` leaves the last layers dense, which may be for other classes then.

    Returns:
        The ticket for ``target``. It has weights to start from where ``ticket`` has; what has no
        match there, as a head for other classes, starts as it is in ``target``.

    Raises:
        InputError: The stages don't correspond, or have nothing to replicate.
    """
    if ticket.mask.about.structure == "channels":
        raise InputError(
            "a ticket by channels can't be stretched: its channels go through all blocks of a stage"
        )
    if source is not None:
        ticket.mask.check(source)
    network = look(target)
    dense = heads(target, network) if head == "exclude" else ()
    pairs = correspond(ticket.mask, source, target, dense)
    weights = {layer.name for layer in network.layers}
    origins = tuple(o for pair in pairs for o in _origins(pair, order, weights))
    theirs = dict(pair for origin in origins for pair in origin.layers)
    names = [n.name for n in network.layers if n.name not in dense]
    keep = {n: ticket.mask.keep[theirs[n]] for n in names if theirs.get(n) in ticket.mask.keep}
    if not keep:
        raise InputError("the ticket covers nothing but the head; --head include carries it over")
    depths = tuple((len(p.source), len(p.target)) for p in pairs if p.repeats)
    about = _about(ticket.mask.about, target, order, depths)
    start, notes = _start(ticket, target, origins)
    left = tuple(
        (layer.name, "the head" if layer.name in dense else "not in the ticket")
        for layer in network.layers
        if layer.name not in keep
    )
    return Stretched(Ticket(Mask(keep, about), start), origins, depths, left, notes)


def _about(about: About, target: Model, order: Order, depths: Depths) -> About:
    stretched = {"from": about.model, "order": order, "depths": [list(pair) for pair in depths]}
    facts = {**about.facts, "stretched": stretched}
    return replace(about, model=target.fingerprint(), facts=facts)


def _origins(pair: Pair, order: Order, weights: set[str]) -> Iterator[Origin]:
    places = _places(len(pair.source) - 1, len(pair.target) - 1, order)
    if pair.repeats and len(pair.source) == 1 < len(pair.target):
        if pair.source[0].forms != pair.target[1].forms:
            raise InputError(
                f"'{pair.source[0].name}' is the only block of its stage in the ticket's network, "
                "and not like the later ones of the target: there is none to replicate"
            )
        places = [-1] * (len(pair.target) - 1)
    for block, place in zip(pair.target, [-1, *places], strict=True):
        source = pair.source[place + 1]
        states = [
            (mine, theirs)
            for item, other in zip(block.items, source.items, strict=True)
            for mine, theirs in zip(item.states, other.states, strict=True)
        ]
        layers = tuple(p for p in states if p[0] in weights)
        yield Origin(block.name, source.name, layers, tuple(states))


def _places(have: int, want: int, order: Order) -> list[int]:
    """Which of ``have`` later blocks each of ``want`` is made of."""
    if order == "append":
        return [j % have if have else 0 for j in range(want)]
    return [j * have // want for j in range(want)]


def _start(
    ticket: Ticket, target: Model, origins: Sequence[Origin]
) -> tuple[dict[str, Tensor] | None, tuple[str, ...]]:
    """Weights and statistics to start from, each from where its block's mask is."""
    if ticket.start is None:
        return None, ()
    own = read_state(target.module())
    carried: dict[str, Tensor] = {}
    for name, value in own.items():
        found = ticket.start.get(_source_of(name, origins))
        if found is not None and found.shape == value.shape:
            carried[name] = found
    left = [name for name in own if name not in carried]
    if not left:
        return carried, ()
    shown = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
    return {**own, **carried}, (f"{len(left)} tensors start as they are in the model: {shown}",)


def _source_of(name: str, origins: Sequence[Origin]) -> str:
    """The source's name for a state: that of the graph; where the graph doesn't use it, as counters
    of batches, that beside another state of its module, or of its block."""
    for origin in origins:
        for mine, theirs in origin.states:
            if mine == name:
                return theirs
    owner, _, leaf = name.rpartition(".")
    for origin in origins:
        for mine, theirs in origin.states:
            if mine.rpartition(".")[0] == owner:
                return f"{theirs.rpartition('.')[0]}.{leaf}"
    for origin in origins:
        if origin.block and name.startswith(f"{origin.block}."):
            return origin.source + name.removeprefix(origin.block)
    return name
