# SPDX-License-Identifier: Apache-2.0
"""How a density is shared among the layers, in whole weights, so that the total is met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import floor, prod

from edgeprune.errors import InputError, nearest
from edgeprune.mask import Layer, Network
from edgeprune.tickets.options import AllocationRule

__all__ = ["Shares", "allocate", "share_out"]

_TOLERANCE = 0.001
"""By how much of itself a total may be missed."""


@dataclass(frozen=True)
class Shares:
    """How many weights live."""

    own: Mapping[str, int]
    """In layers that have a count of their own."""
    common: int
    """In all other layers together: a common ranking decides."""


def allocate(
    network: Network,
    density: float,
    rule: AllocationRule,
    densities: Mapping[str, float] | None = None,
) -> dict[str, float] | None:
    """The density of each layer, as whole weights allow it; ``None``: for ``global`` the ranking
    decides. Arguments and errors as ``share_out``."""
    shares = share_out(network, density, rule, densities)
    if rule == "global":
        return None
    return {layer.name: shares.own[layer.name] / layer.size for layer in network.layers}


def share_out(
    network: Network,
    density: float,
    rule: AllocationRule,
    densities: Mapping[str, float] | None = None,
    room: Mapping[str, int] | None = None,
) -> Shares:
    """Share ``round(density * network.size)`` living weights among the layers.

    ``uniform`` gives each layer the same density, the first and the last too (leave them out of the
    mask where they shall stay dense, as Evci et al. 2020 do with the first). ``er`` gives densities
    in proportion to ``(n_in + n_out) / (n_in * n_out)`` (Mocanu et al. 2018), ``erk`` to ``(n_in +
    n_out + w + h) / (n_in * n_out * w * h)`` (Evci et al. 2020, section 3). Where such a density
    would be above 1 the layer stays dense and its surplus goes to the others in the same
    proportion, until no layer is above. Whole weights by the largest remainder.

    A layer that has room keeps at least one weight, unless it was given density 0 by hand or
    ``global`` ranks it so: a layer without weights cuts the network in two.

    Args:
        network: The layers.
        density: Of all weights together, above 0 and up to 1.
        rule: For layers that ``densities`` doesn't name; ``by-hand`` shares the rest uniformly.
        densities: By hand, by shell pattern over names of weights; the first that fits counts.
        room: How many weights of each layer may live at most; ``None``: all.

    Raises:
        InputError: A density is out of range, a pattern fits no weight, or the total can't be met.
    """
    if not 0 < density <= 1:
        raise InputError(f"density {density:g}: takes a share above 0 and up to 1")
    named = _named(network, densities or {})
    if rule == "by-hand" and not named:
        raise InputError("alloc 'by-hand' takes densities: 'pattern = density' for weights")
    limits = {layer.name: layer.size for layer in network.layers} | dict(room or {})
    total = max(1, round(density * network.size))
    own = {
        name: min(limits[name], max(1, round(share * network[name].size)) if share else 0)
        for name, share in named.items()
    }
    rest = [layer for layer in network.layers if layer.name not in named]
    left = total - sum(own.values())
    _check_rest(network, density, rule, rest, left, limits)
    if rule == "global" or not rest:
        return Shares(own, max(left, 0) if rest else 0)
    return Shares(own | _spread(rest, [_raw(rule, layer) for layer in rest], left, limits), 0)


def _raw(rule: AllocationRule, layer: Layer) -> float:
    """The density of a layer up to a factor that is the same for all."""
    if rule == "er":
        inner, outer = layer.shape[layer.in_dim], layer.shape[layer.out_dim]
        return (inner + outer) / (inner * outer)
    if rule == "erk":
        return sum(layer.shape) / prod(layer.shape)
    return 1.0


def _spread(
    layers: Sequence[Layer], raw: Sequence[float], total: int, room: Mapping[str, int]
) -> dict[str, int]:
    """Counts in proportion to ``raw * size`` but within ``room``, that add up to ``total``."""
    wanted = {layer.name: r * layer.size for layer, r in zip(layers, raw, strict=True)}
    ideal = {name: float(room[name]) for name in wanted}
    free, left = dict(wanted), float(total)
    while free:
        factor = left / sum(free.values())
        full = [name for name, want in free.items() if factor * want >= room[name]]
        if not full:
            ideal |= {name: factor * want for name, want in free.items()}
            break
        for name in full:
            left -= room[name]
            del free[name]
    return _whole(ideal, total, room)


def _whole(ideal: Mapping[str, float], total: int, room: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers of that sum by the largest remainder, each at least 1 where there is room."""
    counts = {name: min(room[name], max(1, floor(value))) for name, value in ideal.items()}
    while (missing := total - sum(counts.values())) != 0:
        step = 1 if missing > 0 else -1
        free = [n for n, c in counts.items() if (c < room[n] if step > 0 else c > 1)]
        chosen = max(free, key=lambda name: step * (ideal[name] - counts[name]))
        counts[chosen] += step
    return counts


def _named(network: Network, densities: Mapping[str, float]) -> dict[str, float]:
    """The density of each layer that a pattern fits."""
    names = [layer.name for layer in network.layers]
    found: dict[str, float] = {}
    for pattern, share in densities.items():
        fitting = [name for name in names if fnmatchcase(name, pattern)]
        if not fitting:
            raise InputError(
                f"densities: '{pattern}' fits no weight{nearest(pattern, names)}; "
                "`edgeprune ticket show` lists them"
            )
        if not 0 <= share <= 1:
            raise InputError(f"densities: '{pattern}' is {share:g}: takes a share from 0 to 1")
        found = dict.fromkeys(fitting, share) | found
    return found


def _check_rest(
    network: Network,
    density: float,
    rule: AllocationRule,
    rest: Sequence[Layer],
    left: int,
    room: Mapping[str, int],
) -> None:
    """Refuse a count that the layers without a density of their own can't have."""
    total = max(1, round(density * network.size))
    if not rest:
        if abs(left) > max(_TOLERANCE * total, len(network.layers)):
            given = (total - left) / network.size
            raise InputError(
                f"densities name every weight and come to {given:.4g} in all, not to density "
                f"{density:g}: set density to {given:.4g}, or leave a weight unnamed"
            )
        return
    most = sum(room[layer.name] for layer in rest)
    least = 0 if rule == "global" else sum(room[layer.name] > 0 for layer in rest)
    if least <= left <= most:
        return
    named = len(network.layers) - len(rest)
    taken = f"; the {named} that densities name keep {total - left}" if named else ""
    raise InputError(
        f"density {density:g} can't be met: it is {total} of {network.size} weights{taken}, and "
        f"{len(rest)} layers can share {least} to {most}"
    )
