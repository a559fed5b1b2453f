# SPDX-License-Identifier: Apache-2.0
"""Gradients of the loss: of parameters, and of weights that the graph computes from them."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.channels import Computed
from edgeprune.errors import DataError, InputError
from edgeprune.prune.criteria.criterion import Subject
from edgeprune.prune.criteria.slices import marked
from edgeprune.tasks import Kind, logits

__all__ = ["products"]


def products(subject: Subject, computed: Computed, name: str) -> Iterator[dict[str, Tensor]]:
    """For each batch, weight times gradient of all that is trained, by parameter or computed
    weight.

    The loss is summed over the outputs: to the labels of those that labels are about; to the
    model's own decisions of other classes and probabilities; of values half the mean square. The
    network is in eval mode.

    Args:
        subject: The model and its samples.
        computed: Its computed weights.
        name: The criterion, for messages.

    Raises:
        DataError: A label is outside the classes of the model's output, or an index in the data
            outside the model's table.
        InputError: No output has a gradient.
    """
    module = logits(subject.model)
    run = _Keeping(module, computed.labels)
    trained = subject.groups.trainable - computed.replaced
    named = {n: p for n, p in module.named_parameters() if p.requires_grad and n in trained}
    for batch in subject.drawn.batches:
        module.zero_grad()
        try:
            given = run.run(*batch.inputs)
        except IndexError as error:
            raise DataError(
                f"importance '{name}': {error}: a token id, or another index in the data, is "
                "larger than the model's table"
            ) from error
        outputs = (given,) if isinstance(given, Tensor) else tuple(given)
        loss = _loss(outputs, subject.drawn.kinds, batch.labels, name)
        loss.backward()  # type: ignore[no-untyped-call]
        yield {
            n: p.detach() * p.grad
            for n, p in (named | marked(run.kept)).items()
            if p.grad is not None
        }
        subject.drawn.advance(len(batch))


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


def _loss(
    outputs: Sequence[Tensor], kinds: Sequence[Kind], labels: Tensor | None, name: str
) -> Tensor:
    parts = [
        kind.learn(output, labels) if kind.labelled and labels is not None else kind.own(output)
        for output, kind in zip(outputs, kinds, strict=True)
        if output.requires_grad
    ]
    if not parts:
        raise InputError(
            f"importance '{name}' takes a gradient, and no output of the model "
            f"({', '.join(str(o.dtype) for o in outputs)}) has one; use l1, l2 or bn-scale"
        )
    return torch.stack(parts).sum()
