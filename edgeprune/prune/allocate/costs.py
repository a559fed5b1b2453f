# SPDX-License-Identifier: Apache-2.0
"""What a network costs as a function of the widths of its groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeprune.channels import Groups, Totals
from edgeprune.channels.atoms import Axis

__all__ = ["Costs", "Widths"]

Widths = NDArray[np.int64]
"""How many channels of each group stay."""
_Floats = NDArray[np.float64]


class Costs:
    """Parameters, multiply-accumulates and bytes for any widths, equal to ``Groups.totals``.

    A cost is a sum of products, one factor a dimension, and a factor is what stays of the
    dimension: linear in the widths.
    """

    def __init__(self, groups: Groups) -> None:
        self.sizes = np.array([group.size for group in groups.groups], np.int64)
        group_of = np.repeat(np.arange(self.sizes.size), self.sizes)
        number = np.full(groups.channels, -1, np.int64)
        for group, own in enumerate(groups.groups):
            number[own.channels] = group
        assert groups.channels == group_of.size

        def factor(axis: Axis) -> _Floats:
            """What each group has of a dimension, and in the end what no group has."""
            channels = groups.channel_of[axis]
            owners = np.where(channels >= 0, number[channels], self.sizes.size)
            return np.bincount(owners, minlength=self.sizes.size + 1) / max(axis.size, 1)

        always = np.append(np.zeros(self.sizes.size), 1.0)  # of what no group is part of
        stored, products = [], []
        for name, dims in groups.walk.states.items():
            axes = [axis for axis in dims if axis is not None]
            count = float(np.prod([axis.size for axis in axes]))
            trainable = float(name in groups.trainable)
            weights = (count * trainable, 0.0, count * groups.itemsize[name])
            stored.append((weights, [factor(axis) for axis in axes] or [always]))
        for product in groups.walk.products:
            factors = [factor(axis) for axis in product.axes] or [always]
            products.append(((0.0, product.total, 0.0), factors))
        self._weights, self._factors, self._starts = _table([*stored, *products])

    def totals(self, widths: Widths) -> Totals:
        """The costs where ``widths`` channels of the groups stay."""
        kept = np.append(widths / np.maximum(self.sizes, 1), 1.0)
        parts = np.multiply.reduceat(self._factors @ kept, self._starts)
        parameters, macs, size = parts @ self._weights
        return Totals(round(parameters), round(macs), round(size))


def _table(
    terms: Sequence[tuple[tuple[float, float, float], list[_Floats]]],
) -> tuple[_Floats, _Floats, NDArray[np.int64]]:
    """The weights of the terms, all their factors, and where each term's begin."""
    starts = np.cumsum([0, *(len(factors) for _, factors in terms)])[:-1]
    rows = [row for _, factors in terms for row in factors]
    return np.array([weights for weights, _ in terms]), np.array(rows), starts
