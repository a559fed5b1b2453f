# SPDX-License-Identifier: Apache-2.0
"""Least squares for one weight: sums over samples, in float64, and the change that they give."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, log10

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgeprune.prune.layers import Layer

__all__ = ["Equations", "Fit", "ridged"]

_RIDGE = 1e-2
"""Of the mean square of an input (bench/pruning.md has others)."""
_FEW = 0.5
"""And for each input of the layer that a sampled output speaks of: the fewer they are, the nearer
the weights stay to what they were."""
_WIDE = 4096
"""Inputs of a layer from which on the equations are those of the samples, which are fewer."""
_POSITIONS = 16
"""Outputs of a channel that are looked at in each sample, at least."""
_ROWS = 8
"""And for each input of the layer, all samples together."""
_SAME = 1e-10
"""Share of a layer's output that is no error but rounding."""


@dataclass(frozen=True)
class Fit:
    """What least squares did to one layer."""

    layer: str
    before: float
    """dB of what it adds to the network against what it should, channels that are left only."""
    after: float


class Equations:
    """Normal equations of one weight: sums over samples, in float64."""

    def __init__(self, module: GraphModule, layer: Layer, samples: int) -> None:
        self.module, self.layer = module, layer
        self.stored = module.get_parameter(layer.weight).detach()
        self.weight = layer.matrix(self.stored.float())
        groups, inputs, outputs = self.weight.shape
        self.wide = inputs > _WIDE
        self.each = max(_POSITIONS, -(-_ROWS * inputs // samples))
        if self.wide:
            self.each = max(1, _WIDE // samples)
        size = 0 if self.wide else inputs
        self.gram = torch.zeros(groups, size, size, dtype=torch.float64)
        self.cross = torch.zeros(groups, size, outputs, dtype=torch.float64)
        self.sum_x = torch.zeros(groups, inputs, 1, dtype=torch.float64)
        self.sum_r = torch.zeros(groups, outputs, 1, dtype=torch.float64)
        self.rows: list[tuple[Tensor, Tensor]] = []
        self.count = 0
        self.error = self.signal = 0.0

    def add(self, x: Tensor, y: Tensor, bias: Tensor | None) -> None:
        """Take in inputs ``[G, n, K]`` and what the layer should make of them, ``[n, G O]``."""
        y = y.reshape(len(y), self.layer.groups, -1).transpose(0, 1)
        r = y - x @ self.weight
        if bias is not None:
            r = r - bias.detach().reshape(self.layer.groups, 1, -1)
        self.count += x.shape[1]
        self.signal += float(y.double().square().sum())
        self.error += float(r.double().square().sum())
        self.sum_x += x.double().sum(1)[..., None]
        self.sum_r += r.double().sum(1)[..., None]
        if self.wide:
            self.rows.append((x, r))
            return
        self.gram += (x.transpose(1, 2) @ x).double()
        self.cross += (x.transpose(1, 2) @ r).double()

    @torch.no_grad()
    def solve(self) -> Fit | None:
        """Change the weight, and the bias or what stands for it, in the module; ``None`` where
        there is nothing to change."""
        layer = self.layer
        if not isfinite(self.error) or self.error <= _SAME * self.signal:
            return None
        mean_x, mean_r = self.sum_x / self.count, self.sum_r / self.count
        if layer.bias is None and layer.mean is None:
            mean_x, mean_r = torch.zeros_like(mean_x), torch.zeros_like(mean_r)
        solved = self._by_rows(mean_x, mean_r) if self.wide else self._by_sums(mean_x, mean_r)
        if solved is None:
            return None
        delta, after = solved
        shift = (mean_r - delta.transpose(1, 2) @ mean_x).reshape(-1)
        matrix = layer.matrix(self.stored.double()) + delta
        self.stored.copy_(layer.stored(matrix, self.stored))
        if layer.bias is not None:
            self.module.get_parameter(layer.bias).add_(shift)
        elif layer.mean is not None:
            self.module.get_buffer(layer.mean).sub_(shift)
        return Fit(layer.weight, self._decibels(self.error), self._decibels(after))

    def _by_sums(self, mean_x: Tensor, mean_r: Tensor) -> tuple[Tensor, float] | None:
        """The change of the weight, and the squared error that is left."""
        gram = self.gram - self.count * mean_x @ mean_x.transpose(1, 2)
        cross = self.cross - self.count * mean_x @ mean_r.transpose(1, 2)
        error = self.error - self.count * float(mean_r.square().sum())
        delta = ridged(gram, gram.diagonal(dim1=1, dim2=2).mean(1), cross, self._ridge())
        if delta is None:
            return None
        gained = 2 * float((delta * cross).sum()) - float((delta * (gram @ delta)).sum())
        return delta, error - gained

    def _by_rows(self, mean_x: Tensor, mean_r: Tensor) -> tuple[Tensor, float] | None:
        """The same from the samples' own products: X' (X X' + lambda)^-1 R."""
        x = torch.cat([x for x, _ in self.rows], 1).double() - mean_x.transpose(1, 2)
        r = torch.cat([r for _, r in self.rows], 1).double() - mean_r.transpose(1, 2)
        outer = x @ x.transpose(1, 2)
        solved = ridged(outer, outer.diagonal(dim1=1, dim2=2).sum(1) / x.shape[2], r, self._ridge())
        if solved is None:
            return None
        delta = x.transpose(1, 2) @ solved
        return delta, float((r - x @ delta).square().sum())

    def _ridge(self) -> float:
        return _RIDGE + _FEW * self.weight.shape[1] / self.count

    def _decibels(self, error: float) -> float:
        return 10 * log10(self.signal / max(error, self.signal * _SAME))


def ridged(square: Tensor, scale: Tensor, right: Tensor, ridge: float) -> Tensor | None:
    """``(square + ridge scale)^-1 right`` for each group; zero for a group without any input."""
    added = torch.where(scale > 0, ridge * scale, torch.ones_like(scale))
    eye = torch.eye(square.shape[1], dtype=square.dtype)
    solution, failed = torch.linalg.solve_ex(square + added[:, None, None] * eye, right)
    return solution if not failed.any() and bool(solution.isfinite().all()) else None
