# SPDX-License-Identifier: Apache-2.0
"""What each group of channels owns and costs, summed over the network once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from edgeprune.channels.atoms import Axis
from edgeprune.channels.walk import Walk

__all__ = ["Group", "describe"]


@dataclass(frozen=True)
class Group:
    """Channels that are alike. Sizes and costs are of all its channels together."""

    name: str
    """The first layer that its channels are rows of; numbered where several groups are."""
    channels: NDArray[np.int64]
    """Their numbers, as ``Groups.labels`` counts them."""
    members: tuple[tuple[str, int], ...]
    """Parameters and buffers that it owns slices of, each with the dimension."""
    parameters: int
    macs: int
    bytes: int
    renormalises: tuple[str, ...]
    """Nodes that normalise or reduce over these channels, so that pruning isn't exactly masking."""

    @property
    def size(self) -> int:
        """How many channels."""
        return int(self.channels.size)


@dataclass
class _Entry:
    members: list[tuple[str, int]] = field(default_factory=list)
    renormalises: dict[str, None] = field(default_factory=dict)
    parameters: float = 0
    macs: float = 0
    bytes: float = 0


def describe(
    found: Walk,
    sizes: list[int],
    channel_of: NDArray[np.int64],
    itemsize: dict[str, int],
    trainable: frozenset[str],
) -> tuple[Group, ...]:
    """The groups of ``sizes`` consecutive channels each, with what they own and cost."""
    group_of = np.repeat(np.arange(len(sizes)), sizes)
    entries = [_Entry() for _ in sizes]

    def present(axis: Axis) -> dict[int, float]:
        channels = channel_of[axis]
        groups, counts = np.unique(group_of[channels[channels >= 0]], return_counts=True)
        return {int(g): c / axis.size for g, c in zip(groups, counts, strict=True)}

    for name, dims in found.states.items():
        axes = [axis for axis in dims if axis is not None]
        shares = [present(axis) for axis in axes]
        count = prod(axis.size for axis in axes)
        for dim, here in enumerate(shares):
            for group in here:
                entries[group].members.append((name, dim))
        for group, share in _together(shares).items():
            entries[group].bytes += share * count * itemsize[name]
            entries[group].parameters += share * count if name in trainable else 0
    for product in found.products:
        for group, share in _together([present(axis) for axis in product.axes]).items():
            entries[group].macs += share * product.total
    for axis, node in found.atoms.renormalised:
        for group in present(axis):
            entries[group].renormalises[node] = None
    return _named(entries, np.split(np.arange(group_of.size), np.cumsum(sizes)[:-1]))


def _together(shares: Iterable[dict[int, float]]) -> dict[int, float]:
    """The share of a tensor that goes with each group, given its share of each dimension."""
    left: dict[int, float] = {}
    for here in shares:
        for group, share in here.items():
            left[group] = left.get(group, 1.0) * (1 - share)
    return {group: 1 - rest for group, rest in left.items()}


def _named(entries: list[_Entry], channels: list[NDArray[np.int64]]) -> tuple[Group, ...]:
    groups: list[Group] = []
    seen: Counter[str] = Counter()
    for entry, own in zip(entries, channels, strict=False):
        rows = [name for name, dim in entry.members if dim == 0 and name.endswith("weight")]
        name = (rows or [entry.members[0][0]])[0].removesuffix(".weight")
        seen[name] += 1
        groups.append(
            Group(
                name if seen[name] == 1 else f"{name}#{seen[name]}",
                own,
                tuple(entry.members),
                round(entry.parameters),
                round(entry.macs),
                round(entry.bytes),
                tuple(entry.renormalises),
            )
        )
    return tuple(groups)
