# SPDX-License-Identifier: Apache-2.0
"""Atoms: every index of every tracked tensor dimension, and the glue between them.

Two atoms that are glued live or die together; a frozen atom stays. Rules (``channels.rules``) only
ever say these things, in whole arrays; what follows from them is one connected-components call.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["Atoms", "Axis", "Components", "Dims", "Freeze"]

Axis: TypeAlias = NDArray[np.int64]
"""The atoms along one dimension, one for each index; an atom may stand at several indices."""

Dims: TypeAlias = "tuple[Axis | None, ...]"
"""A tensor's dimensions; ``None`` is one that can't be pruned (batch, space, a model input)."""


@dataclass(frozen=True)
class Freeze:
    """Atoms that must stay, why, and the node that says so."""

    axis: Axis
    cause: str
    node: str


@dataclass(frozen=True)
class Components:
    """The glued sets. ``of[atom]`` is the set of an atom; ``cause[set]`` indexes ``Atoms.freezes``
    with the first freeze that touched the set, or is -1 where the set is free."""

    of: NDArray[np.int64]
    cause: NDArray[np.int64]


@dataclass
class Atoms:
    """Collects atoms and what is said of them while a graph is walked."""

    count: int = 0
    glued: list[tuple[Axis, Axis]] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    renormalised: list[tuple[Axis, str]] = field(default_factory=list)
    """Axes that a normalisation or reduction runs over, and its node."""
    pieces: list[Axis] = field(default_factory=list)
    """Parts of an axis that must each keep an atom (the outputs of a split)."""

    def fresh(self, size: int) -> Axis:
        """New atoms for a dimension of ``size``."""
        axis = np.arange(self.count, self.count + size, dtype=np.int64)
        self.count += size
        return axis

    def glue(self, a: Axis | None, b: Axis | None, cause: str, node: str) -> None:
        """Tie two dimensions index by index. Against an untracked one the tracked one freezes."""
        if a is None or b is None:
            for axis in (a, b):
                self.freeze(axis, cause, node)
        elif a is not b:
            self.glued.append((a, b))

    def fold(self, axis: Axis, shape: tuple[int, ...], keep: int) -> Axis:
        """See ``axis`` as an array of ``shape`` and tie all that share their index in dimension
        ``keep``; returns one atom for each index of that dimension."""
        table = np.moveaxis(axis.reshape(shape), keep, 0).reshape(shape[keep], -1)
        first = np.ascontiguousarray(table[:, 0])
        if table.shape[1] > 1:
            self.glued.append((np.repeat(first, table.shape[1] - 1), table[:, 1:].reshape(-1)))
        return first

    def freeze(self, axis: Axis | None, cause: str, node: str) -> None:
        """Keep all atoms of ``axis``."""
        if axis is not None and axis.size:
            self.freezes.append(Freeze(axis, cause, node))

    def renormalise(self, axis: Axis | None, node: str) -> None:
        """Note that ``node`` mixes the indices of ``axis``, so that removal changes its result."""
        if axis is not None:
            self.renormalised.append((axis, node))

    def components(self) -> Components:
        """The sets that the glue makes, and which of them are frozen."""
        left = np.concatenate([a for a, _ in self.glued] or [np.empty(0, np.int64)])
        right = np.concatenate([b for _, b in self.glued] or [np.empty(0, np.int64)])
        edges = coo_array((np.ones(left.size, np.int8), (left, right)), (self.count, self.count))
        number, labels = connected_components(edges, directed=False)
        of = labels.astype(np.int64)
        cause = np.full(number, -1, np.int64)
        for index in range(len(self.freezes) - 1, -1, -1):  # so that the first freeze wins
            cause[of[self.freezes[index].axis]] = index
        return Components(of, cause)
