# SPDX-License-Identifier: Apache-2.0
"""From scores to a mask: exact counts, in each layer or over all, with a pattern N:M or without."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from edgeprune.errors import InputError
from edgeprune.mask import About, Layer, Mask, Network
from edgeprune.tickets.allocate import Shares, share_out
from edgeprune.tickets.options import AllocationRule, TicketOptions
from edgeprune.tickets.scores import Scores
from edgeprune.tickets.streams import generator

__all__ = [
    "Field",
    "Ranking",
    "best",
    "check_scores",
    "compete",
    "emptied",
    "goal",
    "parse_pattern",
    "pick",
    "select",
]


@dataclass(frozen=True)
class Ranking:
    """Where scores compete, and within what."""

    rule: AllocationRule = "global"
    densities: Mapping[str, float] = field(default_factory=dict)
    """By hand, by shell pattern; they hold under every rule."""
    pattern: str | None = None
    """``2:4``: at most 2 of 4 neighbours along the input axis live."""
    seed: int = 0
    """Of the order among equal scores."""
    final: bool = True
    """False: on the way to the density. More weights than the pattern allows may live yet, but
    those that it will keep are kept first, so that it can be met later."""

    @classmethod
    def of(cls, options: TicketOptions, seed: int) -> Ranking:
        """As the options say."""
        return cls(options.allocation, options.densities, options.pattern, seed)


@dataclass(frozen=True)
class Field:
    """Which weights compete, by layer."""

    first: Mapping[str, Tensor]
    later: Mapping[str, Tensor]
    """Those whose turn comes when all of ``first`` live."""

    @property
    def room(self) -> dict[str, int]:
        """How many compete in each layer."""
        return {name: int((f | self.later[name]).sum()) for name, f in self.first.items()}


def select(
    network: Network,
    scores: Scores,
    density: float,
    ranking: Ranking,
    about: About,
    among: Mask | None = None,
) -> Mask:
    """Keep the ``round(density * network.size)`` weights with the highest scores.

    With a pattern only the N highest of each M neighbours compete; a density of N/M keeps exactly N
    of each M. With ``among`` only its living weights may go on living; a layer that has fewer of
    them than its share leaves the rest to the others.

    Raises:
        InputError: Scores are missing, NaN or infinite; the pattern doesn't divide a layer; the
            density can't be met.
    """
    competing = compete(network, scores, ranking, among)
    room = competing.room
    most = sum(room.values())
    if round(density * network.size) > most:
        why = f"the pattern {ranking.pattern} allows" if ranking.pattern else "may go on living"
        raise InputError(f"density {density:g} is more than {why}: {most / network.size:.4g}")
    shares = share_out(network, density, ranking.rule, ranking.densities, room)
    return pick(scores, shares, competing, ranking.seed, about)


def compete(network: Network, scores: Scores, ranking: Ranking, among: Mask | None = None) -> Field:
    """Which weights compete. Errors as ``select``."""
    for layer in network.layers:
        check_scores(layer, scores)
    if ranking.pattern is not None:
        _check_pattern(network, ranking.pattern)
    first: dict[str, Tensor] = {}
    later: dict[str, Tensor] = {}
    for layer in network.layers:
        alive = torch.ones(layer.shape, dtype=torch.bool)
        if among is not None:
            alive = among.keep[layer.name]
        first[layer.name] = alive
        if ranking.pattern is not None:
            first[layer.name] = _best_of_blocks(layer, scores[layer.name], alive, ranking)
        rest = torch.zeros_like(alive) if ranking.final else alive & ~first[layer.name]
        later[layer.name] = rest
    return Field(first, later)


def goal(network: Network, density: float, ranking: Ranking) -> Shares:
    """How many weights live in the end.

    Raises:
        InputError: The density, the allocation or the pattern doesn't fit the network.
    """
    ones = {layer.name: torch.ones(layer.shape) for layer in network.layers}
    room = compete(network, ones, ranking).room
    most = sum(room.values())
    if round(density * network.size) > most:
        raise InputError(
            f"density {density:g} is more than the pattern {ranking.pattern} allows: "
            f"{most / network.size:.4g}"
        )
    return share_out(network, density, ranking.rule, ranking.densities, room)


def pick(scores: Scores, shares: Shares, competing: Field, seed: int, about: About) -> Mask:
    """Keep the counts of ``shares`` among the weights that compete."""
    keep: dict[str, Tensor] = {}
    for name, count in shares.own.items():
        given = (scores[name], competing.first[name], competing.later[name])
        keep[name] = _in_turn(*given, count, generator(seed, "ties", name))
    rest = [name for name in competing.first if name not in keep]
    if rest:
        values, first, later = (
            torch.cat([tensors[name].flatten() for name in rest])
            for tensors in (
                {name: scores[name].double() for name in rest},
                competing.first,
                competing.later,
            )
        )
        kept = _in_turn(values, first, later, shares.common, generator(seed, "ties"))
        parts = torch.split(kept, [scores[name].numel() for name in rest])
        for name, part in zip(rest, parts, strict=True):
            keep[name] = part.reshape(scores[name].shape).clone()
    return Mask({name: keep[name] for name in competing.first}, about)


def _in_turn(
    scores: Tensor, first: Tensor, later: Tensor, count: int, random: torch.Generator
) -> Tensor:
    more = count - int(first.sum())
    if more <= 0:
        return best(scores, count, first, random)
    return first | best(scores, more, later, random)


def best(scores: Tensor, count: int, allowed: Tensor, random: torch.Generator) -> Tensor:
    """The ``count`` highest of the ``allowed``; which of equal ones is drawn.

    Args:
        scores: Finite.
        count: As many are allowed at least.
        allowed: Of the shape of ``scores``.
        random: Draws.
    """
    places = allowed.flatten().nonzero().flatten()
    keep = torch.zeros(scores.numel(), dtype=torch.bool)
    if count:
        values = scores.detach().flatten()[places]
        limit = values.kthvalue(len(values) - count + 1).values
        above, equal = places[values > limit], places[values == limit]
        drawn = torch.randperm(len(equal), generator=random)[: count - len(above)]
        keep[above] = True
        keep[equal[drawn]] = True
    return keep.reshape(scores.shape)


def emptied(mask: Mask) -> tuple[str, ...]:
    """A note on layers without any living weight, where there are such."""
    names = [name for name, kept in mask.keep.items() if not bool(kept.any())]
    return (f"layer collapse: no weight lives in {', '.join(names)}",) if names else ()


def parse_pattern(pattern: str) -> tuple[int, int]:
    """N and M of ``"N:M"``.

    Raises:
        InputError: It isn't such a pattern with N from 1 to below M.
    """
    parts = pattern.split(":")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        kept, block = int(parts[0]), int(parts[1])
        if 1 <= kept < block:
            return kept, block
    raise InputError(f"pattern '{pattern}': takes N:M with N from 1 to below M, as 2:4")


def _best_of_blocks(layer: Layer, scores: Tensor, alive: Tensor, ranking: Ranking) -> Tensor:
    """The N highest of each M neighbours along the input axis that are alive."""
    kept, block = parse_pattern(ranking.pattern or "")
    values = scores.detach().double().masked_fill(~alive, -torch.inf)
    rows = values.movedim(layer.in_dim, -1)
    blocks = rows.reshape(-1, block)
    # Sorted in a drawn order first: a stable sort then leaves equal scores in that order.
    random = generator(ranking.seed, "blocks", layer.name)
    drawn = torch.rand(blocks.shape, generator=random).argsort(-1)
    order = blocks.gather(-1, drawn).argsort(dim=-1, descending=True, stable=True)[:, :kept]
    chosen = torch.zeros(blocks.shape, dtype=torch.bool)
    chosen.scatter_(-1, drawn.gather(-1, order), True)
    return chosen.reshape(rows.shape).movedim(-1, layer.in_dim).contiguous() & alive


def check_scores(layer: Layer, scores: Scores) -> None:
    """Refuse what can't be ranked.

    Raises:
        InputError: Scores of the layer are missing, NaN or infinite.
    """
    if layer.name not in scores or scores[layer.name].shape != layer.shape:
        raise InputError(f"'{layer.name}' has no scores of shape {layer.shape}")
    if not bool(scores[layer.name].isfinite().all()):
        raise InputError(
            f"scores of '{layer.name}' are NaN or infinite: nothing can be ranked; the weights "
            "hold NaN, or the loss overflows (a lower learning rate helps then)"
        )


def _check_pattern(network: Network, pattern: str) -> None:
    _, block = parse_pattern(pattern)
    wrong = [layer for layer in network.layers if layer.shape[layer.in_dim] % block]
    if not wrong:
        return
    first = wrong[0]
    flags = " ".join(f"--exclude {layer.name}" for layer in wrong)
    raise InputError(
        f"pattern {pattern}: '{first.name}' has {first.shape[first.in_dim]} inputs, which {block} "
        f"doesn't divide; keep such weights dense: {flags}"
    )
