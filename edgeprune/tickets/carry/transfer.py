# SPDX-License-Identifier: Apache-2.0
"""A ticket carried over to another network of the same architecture: other data, other classes
(Morcos et al. 2019, One Ticket to Win Them All).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor
from torch.fx import Node

from edgeprune.channels import analyse
from edgeprune.errors import InputError
from edgeprune.finetune import read_state
from edgeprune.mask import Mask, Network, Ticket, channel_mask, look, removed_channels
from edgeprune.model import Model

__all__ = ["By", "Head", "Transferred", "heads", "transfer"]

By = Literal["auto", "name", "order"]
Head = Literal["exclude", "include"]

_STRETCH = "for another depth: `edgeprune ticket stretch`"
_HEAD, _ABSENT = "the head", "not in the ticket"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Transferred:
    """A ticket for another network, and how it came about."""

    ticket: Ticket
    coverage: float
    """The share of the network's maskable weights that the mask covers."""
    pairs: tuple[tuple[str, str], ...]
    """Names in the ticket and in the network, in the order of the graph."""
    left: tuple[tuple[str, str], ...]
    """Weights of the network that stay dense, and why."""
    notes: tuple[str, ...] = ()


def transfer(
    ticket: Ticket,
    model: Model,
    *,
    by: By = "auto",
    head: Head = "exclude",
    weights: bool = False,
) -> Transferred:
    """Fit a ticket to ``model``.

    Args:
        ticket: Found on a network of the same architecture.
        model: What the ticket is for from now on; it isn't changed.
        by: ``name`` pairs weights of equal names, ``order`` those at the same place in the order
            of the graph; ``auto`` is by name where all names are known, and by order elsewhere.
        head: ``exclude`` leaves the last layers before the outputs dense, whatever they look like
            in the ticket (a mask by channels takes the inputs that go from them, and no output);
            ``include`` carries their masks too.
        weights: Carry over the weights to start from, too. What has no match there, as a head for
            other classes, keeps the values that ``model`` has.

    Raises:
        InputError: The ticket is for another architecture, or has no weights to carry.
    """
    places = _Places(model, ticket.mask, head)
    pairs, used = _paired(ticket.mask, places, by)
    keep = {
        mine: places.fitted(ticket.mask.keep[theirs], mine)
        for theirs, mine in pairs
        if mine not in places.dense or places.by_channels
    }
    if not keep:
        raise InputError("the ticket covers nothing but the head; --head include carries it over")
    facts: dict[str, Any] = {"from": ticket.mask.about.model, "by": used, "head": head}
    about = replace(
        ticket.mask.about,
        model=model.fingerprint(),
        facts={**ticket.mask.about.facts, "transferred": facts},
    )
    mask = Mask(keep, about)
    if places.by_channels:
        removed_channels(places.groups, mask)  # refuses what isn't by whole channels here
    left = _left(mask, places)
    start, notes = _start(ticket, model, pairs) if weights else (None, ())
    covered = sum(layer.size for layer in places.network.layers if layer.name in keep)
    return Transferred(
        Ticket(mask, start),
        covered / places.network.size,
        tuple((theirs, mine) for theirs, mine in pairs if mine in keep),
        tuple(left),
        notes,
    )


def heads(model: Model, network: Network) -> tuple[str, ...]:
    """The last layers before the outputs: those with no other layer on some way to an output."""
    of_node = {node: layer.name for layer in network.layers for node in layer.nodes}
    found: dict[str, None] = {}
    seen: set[Node] = set()
    waiting = [n for n in model.program.graph.nodes if n.op == "output"]
    while waiting:
        for node in waiting.pop().all_input_nodes:
            if node in seen:
                continue
            seen.add(node)
            if node.name in of_node:
                found[of_node[node.name]] = None
            else:
                waiting.append(node)
    return tuple(found)


class _Places:
    """Where a mask of a kind can lie in a network, in the order of the graph."""

    def __init__(self, model: Model, mask: Mask, head: Head) -> None:
        self.network = look(model)
        self.heads = heads(model, self.network)
        self.dense = self.heads if head == "exclude" else ()
        self.by_channels = mask.about.structure == "channels"
        self.shapes: Shapes = {layer.name: layer.shape for layer in self.network.layers}
        if self.by_channels:
            self.groups = analyse(model)
            self.shapes = channel_mask(self.groups, self.groups.keep_all(), mask.about).shapes

    def takes(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether a mask of ``shape`` fits: the head's may be for other classes."""
        mine = self.shapes[name]
        if name not in self.dense:
            return shape == mine
        out = self.network[name].out_dim
        return len(shape) == len(mine) and all(
            d == out or a == b for d, (a, b) in enumerate(zip(shape, mine, strict=True))
        )

    def fitted(self, kept: Tensor, name: str) -> Tensor:
        """The mask of inputs that go, for another count of outputs."""
        if tuple(kept.shape) == self.shapes[name]:
            return kept
        whole = kept.any(dim=self.network[name].out_dim, keepdim=True)
        return whole.expand(self.shapes[name]).contiguous()


def _paired(mask: Mask, places: _Places, by: By) -> tuple[list[tuple[str, str]], str]:
    """Names in the ticket beside those in the network, and by what they were paired."""
    if by == "name" or (by == "auto" and all(name in places.shapes for name in mask.keep)):
        for name, shape in mask.shapes.items():
            _check_name(places, name, shape)
        named = [(name, name) for name in places.shapes if name in mask.keep]
        return named, "name"
    theirs, mine = list(mask.shapes.items()), list(places.shapes)
    first = _embedded(theirs, mine, places)
    if len(first) < len(theirs):
        name, shape = theirs[len(first)]
        raise InputError(
            f"the ticket is for another architecture: in the order of the graph nothing is left "
            f"for its '{name}' of shape {shape}, number {len(first) + 1} of {len(theirs)}; "
            f"{_STRETCH}"
        )
    last = _embedded(theirs[::-1], mine[::-1], places)[::-1]
    for (name, _), one, other in zip(theirs, first, last, strict=True):
        if one != other:
            raise InputError(
                f"the ticket has fewer masks than the network has weights: by order '{name}' may "
                f"be '{one}' or '{other}'; give both the same names, or {_STRETCH}"
            )
    return [(name, own) for (name, _), own in zip(theirs, first, strict=True)], "order"


def _check_name(places: _Places, name: str, shape: tuple[int, ...]) -> None:
    if name not in places.shapes:
        raise InputError(
            f"the ticket is for another network: it has no weight '{name}' to mask; --by order "
            "pairs weights by their place in the graph"
        )
    if not places.takes(name, shape):
        advice = (
            "--head exclude leaves it dense"
            if name in places.heads
            else "a ticket fits equal shapes only, whatever the depth"
        )
        raise InputError(
            f"the ticket is for another network: '{name}' has shape {places.shapes[name]} there, "
            f"{shape} in the ticket; {advice}"
        )


def _embedded(
    theirs: Sequence[tuple[str, tuple[int, ...]]], mine: Sequence[str], places: _Places
) -> list[str]:
    """The first names that the ticket's masks fit, in order; shorter where one fits none."""
    found: list[str] = []
    waiting = iter(mine)
    for _, shape in theirs:
        name = next((name for name in waiting if places.takes(name, shape)), None)
        if name is None:
            break
        found.append(name)
    return found


def _left(mask: Mask, places: _Places) -> list[tuple[str, str]]:
    """The weights that stay dense under the carried mask, and why.

    Raises:
        InputError: The ticket's own network can't have had one of them.
    """
    if places.by_channels:
        return []
    layers = places.network.layers
    if mask.found_whole:
        mask.check_covers(layer for layer in layers if layer.name not in places.heads)
    dense = [layer.name for layer in layers if layer.name not in mask.keep]
    return [(name, _HEAD if name in places.dense else _ABSENT) for name in dense]


def _start(
    ticket: Ticket, model: Model, pairs: Sequence[tuple[str, str]]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights to start from under the network's names, and what has none."""
    if ticket.start is None:
        raise InputError(
            "the ticket has no weights to start from: its method starts from the model's own"
        )
    own = read_state(model.module())
    names = _names(ticket.start, own, dict(pairs))
    carried = {
        mine: ticket.start[theirs]
        for theirs, mine in names.items()
        if ticket.start[theirs].shape == own[mine].shape
    }
    left = [name for name in own if name not in carried]
    if not left:
        return carried, ()
    shown = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
    return {**own, **carried}, (f"{len(left)} tensors start as they are in the model: {shown}",)


def _names(
    start: Mapping[str, Tensor], own: Mapping[str, Tensor], pairs: Mapping[str, str]
) -> dict[str, str]:
    """The network's name for each of the ticket's tensors: equal ones where all weights are paired
    so, else those at the same place where all paired weights stand at equal places; else only the
    paired ones."""
    if all(theirs == mine for theirs, mine in pairs.items()):
        return {name: name for name in start if name in own}
    placed = dict(zip(start, own, strict=False))
    alike = len(start) == len(own) and all(placed[t] == m for t, m in pairs.items() if t in placed)
    return placed if alike else {t: m for t, m in pairs.items() if t in start}
