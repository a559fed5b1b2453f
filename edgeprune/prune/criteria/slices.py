# SPDX-License-Identifier: Apache-2.0
"""Weights and their sums over what a channel, or a branch, owns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from edgeprune.channels import Branch, Groups, evaluate, find_computed
from edgeprune.model import Model
from edgeprune.prune.criteria.criterion import Scores, Subject

__all__ = ["Slices", "biases", "marked", "weights"]

Value = TypeVar("Value")


def marked(values: Mapping[str, Value]) -> dict[str, Value]:
    """By node, told from what is named after a parameter."""
    return {f"%{name}": value for name, value in values.items()}


def weights(subject: Subject) -> dict[str, Tensor]:
    """What is trained without biases, by name, and computed weights in place of their
    parameters."""
    model, groups = subject.model, subject.groups
    computed = find_computed(model, groups)
    left_out = computed.replaced | biases(model)
    state = model.program.state_dict
    named = {
        name: state[name].detach().float()
        for name in groups.trainable
        if name in groups.walk.states and name not in left_out
    }
    return named | marked(evaluate(model, computed.labels))


def biases(model: Model) -> set[str]:
    """Parameters that layers and norms add: a channel is no dearer for a large one, as the next
    layer's bias can take it over."""
    names = model.program.graph_signature.inputs_to_parameters
    found: dict[str, set[bool]] = {}
    for node in model.program.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        arguments = [a.name for a in node.target._schema.arguments]
        places = {*zip(arguments, node.args, strict=False), *node.kwargs.items()}
        for argument, value in places:
            if isinstance(value, torch.fx.Node) and value.name in names:
                added = "bias" if "addmm" not in str(node.target) else "self"
                found.setdefault(names[value.name], set()).add(argument == added)
    return {name for name, uses in found.items() if uses == {True}}


class Slices:
    """Where the channels and branches lie in parameters and computed weights."""

    def __init__(self, subject: Subject) -> None:
        self.groups: Groups = subject.groups
        self.branches: Sequence[Branch] = subject.branches
        computed = find_computed(subject.model, subject.groups)
        self.labels = dict(subject.groups.labels)
        for name, dims in marked(computed.labels).items():
            self.labels |= {
                (name, dim): label for dim, label in enumerate(dims) if label is not None
            }

    def sums(self, values: Mapping[str, Tensor]) -> Scores:
        """The sum of ``values`` over all slices that a channel owns, then over all that only a
        branch owns; NaN where a branch owns none.

        A weight both of whose dimensions belong to a channel is counted in each of the two.
        """
        return np.append(self._channels(values), [_sum(b, values) for b in self.branches])

    def means(self, values: Mapping[str, Tensor]) -> Scores:
        """As ``sums``; of a branch the mean."""
        counts = [sum(v.numel() for v in _own(b, values)) for b in self.branches]
        sums = self.sums(values)
        sums[self.groups.channels :] /= np.maximum(counts, 1)
        return sums

    def _channels(self, values: Mapping[str, Tensor]) -> Scores:
        total = np.zeros(self.groups.channels)
        for (name, dim), label in self.labels.items():
            owned = label >= 0
            if name not in values or not owned.any():
                continue
            value = values[name].double()
            others = [d for d in range(value.dim()) if d != dim]
            line = (value.sum(others) if others else value).numpy()
            total += np.bincount(label[owned], line[owned], minlength=self.groups.channels)
        return total


def _own(branch: Branch, values: Mapping[str, Tensor]) -> list[Tensor]:
    names = (*sorted(branch.states), *marked(dict.fromkeys(sorted(branch.nodes))))
    return [values[name].double() for name in names if name in values]


def _sum(branch: Branch, values: Mapping[str, Tensor]) -> float:
    own = _own(branch, values)
    return sum(float(value.sum()) for value in own) if own else np.nan
