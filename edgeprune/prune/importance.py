# SPDX-License-Identifier: Apache-2.0
"""How much each channel matters: one score for each channel of all groups, higher is dearer; and
one for each residual branch behind these, where any are given.

A channel owns slices of several parameters; its score is a sum over all of them (group importance,
Fang et al. 2023, DepGraph, section 3.3), so coupled layers are judged together. A branch owns all
parameters that nothing else uses; magnitudes are means over its weights, so that its size, of
which the costs speak, doesn't decide. A weight that the graph computes from parameters (weight
norm) counts as it is computed, in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.channels import Branch, Computed, Groups, evaluate, find_computed
from edgeprune.data import Batch
from edgeprune.errors import DataError, InputError
from edgeprune.model import Model
from edgeprune.tasks import Kind, logits

__all__ = ["Scores", "batch_norm_scale", "batch_norm_weights", "magnitude", "random", "taylor"]

Value = TypeVar("Value")
Scores = NDArray[np.float64]
"""One for each channel, then one for each branch; NaN where a criterion has nothing to say."""


def magnitude(model: Model, groups: Groups, power: int, branches: Sequence[Branch] = ()) -> Scores:
    """Group magnitude: the L1 (``power`` 1) or L2 (2) norm of all weights that a channel owns
    (Li et al. 2017, Pruning Filters for Efficient ConvNets, section 3.1); of a branch the mean
    absolute weight, or the root of the mean square."""
    computed = find_computed(model, groups)
    weights = _parameters(model, groups) | _marked(evaluate(model, computed.labels))
    powers = {n: w.abs() ** power for n, w in weights.items() if n not in computed.replaced}
    total = np.append(_sum_slices(groups, powers, computed), _means(branches, powers))
    return np.asarray(total ** (1 / power), np.float64)


def batch_norm_scale(model: Model, groups: Groups, branches: Sequence[Branch] = ()) -> Scores:
    """The sum of |gamma| of the batch norms on a channel (Liu et al. 2017, Network Slimming), and
    the mean of those in a branch.

    Channels and branches without batch norm get NaN.
    """
    scales = batch_norm_weights(model)
    parameters = {n: p.abs() for n, p in _parameters(model, groups).items() if n in scales}
    present = _sum_slices(groups, {n: torch.ones_like(p) for n, p in parameters.items()})
    channels = np.where(present > 0, _sum_slices(groups, parameters), np.nan)
    return np.append(channels, _means(branches, parameters))


def random(groups: Groups, seed: int, branches: Sequence[Branch] = ()) -> Scores:
    """Uniform scores: the baseline that every criterion must beat."""
    return np.random.default_rng(seed).random(groups.channels + len(branches))


def taylor(
    model: Model,
    groups: Groups,
    batches: Iterator[Batch],
    kinds: Sequence[Kind],
    advance: Callable[[int], None] = lambda _: None,
    branches: Sequence[Branch] = (),
) -> Scores:
    """First-order Taylor: the squared change of the loss when a channel is set to zero, to first
    order, (sum of gradient times weight)^2, averaged over batches (Molchanov et al. 2019,
    Importance Estimation for Neural Network Pruning, eq. 8 with a channel, or a branch, as the
    unit).

    The loss is summed over ``kinds``, the outputs: to the labels of those that labels are about; to
    the model's own decisions of other classes and probabilities; of values half the mean square.
    The network is in eval mode.

    Raises:
        DataError: A label is outside the classes of the model's output, or an index in the data
            outside the model's table.
        InputError: No output has a gradient.
    """
    module = logits(model)
    computed = find_computed(model, groups)
    run = _Keeping(module, computed.labels)
    named = {
        n: p
        for n, p in module.named_parameters()
        if p.requires_grad and n in groups.trainable - computed.replaced
    }
    total = np.zeros(groups.channels + len(branches))
    for count, batch in enumerate(batches, 1):
        module.zero_grad()
        try:
            given = run.run(*batch.inputs)
        except IndexError as error:
            raise DataError(
                f"importance 'taylor': {error}: a token id, or another index in the data, is "
                "larger than the model's table"
            ) from error
        outputs = (given,) if isinstance(given, Tensor) else tuple(given)
        loss = _loss(outputs, kinds, batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        products = {
            n: p.detach() * p.grad
            for n, p in (named | _marked(run.kept)).items()
            if p.grad is not None
        }
        sums = np.append(_sum_slices(groups, products, computed), _sums(branches, products))
        total += (sums**2 - total) / count
        advance(len(batch))
    return total


class _Keeping(Interpreter):
    """Runs a graph and keeps the named values with their gradients."""

    def __init__(self, module: GraphModule, names: Container[str]) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.names = names
        self.kept: dict[str, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        if n.name in self.names and value.requires_grad:
            value.retain_grad()
            self.kept[n.name] = value
        return value


def _loss(outputs: Sequence[Tensor], kinds: Sequence[Kind], labels: Tensor | None) -> Tensor:
    parts = [
        kind.learn(output, labels) if kind.labelled and labels is not None else kind.own(output)
        for output, kind in zip(outputs, kinds, strict=True)
        if output.requires_grad
    ]
    if not parts:
        raise InputError(
            "importance 'taylor' takes a gradient, and no output of the model "
            f"({', '.join(str(o.dtype) for o in outputs)}) has one; use l1, l2 or bn-scale"
        )
    return torch.stack(parts).sum()


def _parameters(model: Model, groups: Groups) -> dict[str, Tensor]:
    state = model.program.state_dict
    return {
        name: state[name].detach().float()
        for name in groups.trainable
        if name in groups.walk.states
    }


def _marked(values: Mapping[str, Value]) -> dict[str, Value]:
    """By node, told from what is named after a parameter."""
    return {f"%{name}": value for name, value in values.items()}


def _sum_slices(
    groups: Groups, values: dict[str, Tensor], computed: Computed | None = None
) -> Scores:
    """For each channel, the sum of ``values`` over all slices that it owns.

    A weight both of whose dimensions belong to a channel is counted in each of the two.
    """
    total = np.zeros(groups.channels)
    labels = dict(groups.labels)
    for name, dims in _marked({} if computed is None else computed.labels).items():
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


def _own(branch: Branch, values: Mapping[str, Tensor]) -> list[Tensor]:
    names = (*sorted(branch.states), *_marked(dict.fromkeys(sorted(branch.nodes))))
    return [values[name].double() for name in names if name in values]


def _sums(branches: Sequence[Branch], values: Mapping[str, Tensor]) -> Scores:
    """For each branch, the sum of ``values`` over all that only it owns; NaN where that is
    nothing."""
    owned = [_own(branch, values) for branch in branches]
    return np.array([sum(float(v.sum()) for v in own) if own else np.nan for own in owned])


def _means(branches: Sequence[Branch], values: Mapping[str, Tensor]) -> Scores:
    """As ``_sums``, for each weight."""
    counts = [sum(v.numel() for v in _own(branch, values)) for branch in branches]
    return _sums(branches, values) / np.maximum(counts, 1)


def batch_norm_weights(model: Model) -> set[str]:
    """The scales of all batch norms, by name."""
    names = model.program.graph_signature.inputs_to_parameters
    return {
        names[node.args[1].name]
        for node in model.program.graph.nodes
        if node.op == "call_function"
        and "batch_norm" in str(node.target)
        and isinstance(node.args[1], torch.fx.Node)
        and node.args[1].name in names
    }
