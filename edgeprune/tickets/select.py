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
from edgeprune.tickets.scores import Scores, generator

__all__ = ["Ranking", "best", "eligible", "parse_pattern", "pick", "select"]


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

    @classmethod
    def of(cls, options: TicketOptions, seed: int, rule: AllocationRule = "global") -> Ranking:
        """As the options say; ``rule`` is the method's own."""
        return cls(options.alloc or rule, options.densities, options.pattern, seed)


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
    allowed = eligible(network, scores, ranking, among)
    room = {name: int(free.sum()) for name, free in allowed.items()}
    most = sum(room.values())
    if round(density * network.size) > most:
        why = f"the pattern {ranking.pattern} allows" if ranking.pattern else "may go on living"
        raise InputError(f"density {density:g} is more than {why}: {most / network.size:.4g}")
    shares = share_out(network, density, ranking.rule, ranking.densities, room)
    return pick(scores, shares, allowed, ranking.seed, about)


def eligible(
    network: Network, scores: Scores, ranking: Ranking, among: Mask | None = None
) -> dict[str, Tensor]:
    """Which weights compete, by layer.

    Raises:
        InputError: As ``select``.
    """
    _check(network, scores)
    if ranking.pattern is not None:
        _check_pattern(network, ranking.pattern)
    allowed: dict[str, Tensor] = {}
    for layer in network.layers:
        alive = torch.ones(layer.shape, dtype=torch.bool)
        if among is not None:
            alive = among.keep[layer.name]
        if ranking.pattern is not None:
            alive = _best_of_blocks(layer, scores[layer.name], alive, ranking)
        allowed[layer.name] = alive
    return allowed


def pick(
    scores: Scores, shares: Shares, allowed: Mapping[str, Tensor], seed: int, about: About
) -> Mask:
    """Keep the counts of ``shares`` among the ``allowed`` weights."""
    keep: dict[str, Tensor] = {}
    for name, count in shares.own.items():
        keep[name] = best(scores[name], count, allowed[name], generator(seed, "ties", name))
    rest = [name for name in allowed if name not in shares.own]
    if rest:
        values = torch.cat([scores[name].flatten().double() for name in rest])
        free = torch.cat([allowed[name].flatten() for name in rest])
        kept = best(values, shares.common, free, generator(seed, "ties"))
        parts = torch.split(kept, [allowed[name].numel() for name in rest])
        for name, part in zip(rest, parts, strict=True):
            keep[name] = part.reshape(allowed[name].shape).clone()
    return Mask({name: keep[name] for name in allowed}, about)


def best(scores: Tensor, count: int, allowed: Tensor, random: torch.Generator) -> Tensor:
    """The ``count`` highest of the ``allowed``; which of equal ones is drawn.

    Raises:
        ValueError: Fewer are allowed.
    """
    places = allowed.flatten().nonzero().flatten()
    if not 0 <= count <= len(places):
        raise ValueError(f"{count} of {len(places)}")
    keep = torch.zeros(scores.numel(), dtype=torch.bool)
    if count:
        values = scores.detach().flatten()[places]
        limit = values.kthvalue(len(values) - count + 1).values
        above, equal = places[values > limit], places[values == limit]
        drawn = torch.randperm(len(equal), generator=random)[: count - len(above)]
        keep[above] = True
        keep[equal[drawn]] = True
    return keep.reshape(scores.shape)


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


def _check(network: Network, scores: Scores) -> None:
    for layer in network.layers:
        if layer.name not in scores or scores[layer.name].shape != layer.shape:
            raise InputError(f"'{layer.name}' has no scores of shape {layer.shape}")
        if not bool(scores[layer.name].isfinite().all()):
            raise InputError(
                f"scores of '{layer.name}' are NaN or infinite: nothing can be ranked; the weights "
                "or the loss overflow, or the weights hold NaN already"
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
