# SPDX-License-Identifier: Apache-2.0
"""Groups of channels: what can be pruned, what it would save, and what can't and why.

A *channel* is one glued set of atoms: it goes whole, from every parameter that it touches. A
*group* is the channels that touch the same parameters in the same way, such as the outputs of one
convolution; layer widths are decided group by group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from edgeprune.channels.ledger import Group, describe
from edgeprune.channels.policy import STANDARD, Policy
from edgeprune.channels.walk import Walk, walk
from edgeprune.model import Model

__all__ = ["Frozen", "Group", "Groups", "Totals", "analyse"]

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Frozen:
    """A parameter's dimension that can't be pruned, wholly or in part, and why."""

    name: str
    dim: int
    size: int
    """How many of its indices are frozen."""
    cause: str
    node: str
    """The node that says so; empty where all of it lives together, which no one node says."""


@dataclass(frozen=True)
class Totals:
    """Costs of a network: parameters, multiply-accumulates for one sample, bytes of all state."""

    parameters: int
    macs: int
    bytes: int


@dataclass(frozen=True)
class Groups:
    """The result of the analysis.

    A removal is an array of ``channels`` booleans, True for each channel that goes: start from
    ``keep_all()`` and set ``removed[group.channels[...]]``.
    """

    groups: tuple[Group, ...]
    """What can be pruned, in the order of the first parameters; a channel is in one group only."""
    frozen: tuple[Frozen, ...]
    """What can't: dimensions of trainable parameters, each with its cause and the node."""
    labels: dict[tuple[str, int], NDArray[np.int64]]
    """For each dimension of each parameter and buffer: the channel at each index, -1 for none."""
    walk: Walk
    channel_of: NDArray[np.int64]
    """The channel of each atom, -1 for none."""
    itemsize: dict[str, int]
    trainable: frozenset[str]

    @cached_property
    def channels(self) -> int:
        """The number of channels in all groups."""
        return sum(group.size for group in self.groups)

    def keep_all(self) -> Bools:
        """The removal that removes nothing: one False for each channel."""
        return np.zeros(self.channels, np.bool_)

    def gone(self, removed: Bools) -> Bools:
        """Whether each atom goes when the channels in ``removed`` do."""
        known = self.channel_of >= 0
        return (
            known & removed[np.where(known, self.channel_of, 0)] if removed.size else known & False
        )

    def left(self, removed: Bools, name: str, dim: int) -> NDArray[np.int64] | None:
        """Which indices of a dimension of a parameter are still there without the channels in
        ``removed``; ``None``: all."""
        dims = self.walk.states.get(name)
        axis = dims[dim] if dims is not None and dim < len(dims) else None
        return None if axis is None else np.flatnonzero(~self.gone(removed)[axis])

    def totals(self, removed: Bools | None = None) -> Totals:
        """What the network costs without the channels in ``removed``, from shapes alone."""
        kept = ~self.gone(self.keep_all() if removed is None else removed)
        parameters = bytes_ = 0
        for name, dims in self.walk.states.items():
            count = prod(int(kept[axis].sum()) for axis in dims if axis is not None)
            parameters += count if name in self.trainable else 0
            bytes_ += count * self.itemsize[name]
        macs = sum(
            p.total * prod(float(kept[axis].mean()) for axis in p.axes) for p in self.walk.products
        )
        return Totals(parameters, round(macs), bytes_)


def analyse(model: Model, policy: Policy = STANDARD) -> Groups:
    """Find the groups of channels of ``model`` that can be removed, by walking its graph once.

    An operator without a rule freezes the channels that it touches; nothing here runs the network,
    and ``model`` is left as it is. See ``edgeprune.channels`` for an example.
    """
    found = walk(model, policy)
    of, cause = found.components.of, found.components.cause
    signature = model.program.graph_signature
    trainable = frozenset(signature.parameters)
    order = _grouped(found, _prunable(found, trainable))
    number = np.full(cause.size, -1, np.int64)
    for position, component in enumerate(np.concatenate(order) if order else ()):
        number[component] = position
    channel_of = number[of] if of.size else np.empty(0, np.int64)
    states = {**model.program.state_dict, **model.program.constants}
    itemsize = {n: t.element_size() for n, t in states.items() if isinstance(t, torch.Tensor)}
    labels = _labels(found, channel_of)
    return Groups(
        describe(found, [len(sets) for sets in order], channel_of, itemsize, trainable),
        tuple(_frozen(found, trainable, channel_of)),
        labels,
        found,
        channel_of,
        itemsize,
        trainable,
    )


def _prunable(found: Walk, trainable: frozenset[str]) -> Bools:
    """Which glued sets are free and own a slice of a trainable parameter."""
    touched = np.zeros(found.components.cause.size, np.bool_)
    for name, dims in found.states.items():
        if name in trainable:
            for axis in dims:
                touched[found.components.of[axis]] = True
    return touched & (found.components.cause < 0)


def _grouped(found: Walk, prunable: Bools) -> list[NDArray[np.int64]]:
    """Sort the prunable sets into groups: equal signatures, which are sums of a random number for
    each dimension that a set stands in, as often as it stands there."""
    random = np.random.default_rng(0)
    signature = np.zeros(prunable.size, np.uint64)
    of = found.components.of
    places = [axis for dims in found.states.values() for axis in dims if axis is not None]
    for axis in [*places, *found.atoms.pieces]:
        key = random.integers(1, 2**63, dtype=np.uint64)
        here, counts = np.unique(of[axis], return_counts=True)
        with np.errstate(over="ignore"):
            signature[here] += key * counts.astype(np.uint64)
    sets = np.flatnonzero(prunable)
    _, inverse = np.unique(signature[sets], return_inverse=True)
    by_group = np.split(sets[np.argsort(inverse, kind="stable")], np.cumsum(np.bincount(inverse)))
    alike = [members for members in by_group if members.size > 1]
    return sorted(alike, key=lambda members: int(members[0]))


def _labels(found: Walk, channel_of: NDArray[np.int64]) -> dict[tuple[str, int], NDArray[np.int64]]:
    return {
        (name, dim): channel_of[axis]
        for name, dims in found.states.items()
        for dim, axis in enumerate(dims)
        if axis is not None
    }


_ALONE = "one channel without another like it"


def _frozen(
    found: Walk, trainable: frozenset[str], channel_of: NDArray[np.int64]
) -> Iterator[Frozen]:
    of, cause = found.components.of, found.components.cause
    for name, dims in found.states.items():
        for dim, axis in enumerate(dims):
            if name not in trainable or axis is None or axis.size < 2:
                continue
            causes = cause[of[axis]]
            fixed = causes[causes >= 0]
            if fixed.size:
                why = found.atoms.freezes[int(fixed[0])]
                if why.cause != "kernel":
                    yield Frozen(name, dim, int(fixed.size), why.cause, why.node)
            elif (alone := int(np.count_nonzero(channel_of[axis] < 0))) > 0:
                yield Frozen(name, dim, alone, _ALONE, "")
