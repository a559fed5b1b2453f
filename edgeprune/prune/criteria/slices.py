# SPDX-License-Identifier: Apache-2.0
"""Sums of values of parameters over what a channel, or a branch, owns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from torch import Tensor

from edgeprune.channels import Branch, Computed, Groups
from edgeprune.model import Model
from edgeprune.prune.criteria.criterion import Scores

__all__ = ["marked", "means", "parameters", "sum_slices", "sums"]

Value = TypeVar("Value")


def parameters(model: Model, groups: Groups) -> dict[str, Tensor]:
    """What is trained, by name."""
    state = model.program.state_dict
    return {
        name: state[name].detach().float()
        for name in groups.trainable
        if name in groups.walk.states
    }


def marked(values: Mapping[str, Value]) -> dict[str, Value]:
    """By node, told from what is named after a parameter."""
    return {f"%{name}": value for name, value in values.items()}


def sum_slices(
    groups: Groups, values: Mapping[str, Tensor], computed: Computed | None = None
) -> Scores:
    """For each channel, the sum of ``values`` over all slices that it owns.

    A weight both of whose dimensions belong to a channel is counted in each of the two.
    """
    total = np.zeros(groups.channels)
    labels = dict(groups.labels)
    for name, dims in marked({} if computed is None else computed.labels).items():
        labels |= {(name, dim): label for dim, label in enumerate(dims) if label is not None}
    for (name, dim), label in labels.items():
        if name not in values or not (label >= 0).any():
            continue
        value = values[name].double()
        others = [d for d in range(value.dim()) if d != dim]
        line = (value.sum(others) if others else value).numpy()
        owned = label >= 0
        total += np.bincount(label[owned], line[owned], minlength=groups.channels)
    return total


def sums(branches: Sequence[Branch], values: Mapping[str, Tensor]) -> Scores:
    """For each branch, the sum of ``values`` over all that only it owns; NaN where that is
    nothing."""
    owned = [_own(branch, values) for branch in branches]
    return np.array([sum(float(v.sum()) for v in own) if own else np.nan for own in owned])


def means(branches: Sequence[Branch], values: Mapping[str, Tensor]) -> Scores:
    """As ``sums``, for each weight."""
    counts = [sum(v.numel() for v in _own(branch, values)) for branch in branches]
    return sums(branches, values) / np.maximum(counts, 1)


def _own(branch: Branch, values: Mapping[str, Tensor]) -> list[Tensor]:
    names = (*sorted(branch.states), *marked(dict.fromkeys(sorted(branch.nodes))))
    return [values[name].double() for name in names if name in values]
