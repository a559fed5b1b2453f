# SPDX-License-Identifier: Apache-2.0
"""The network run over samples, with a look at the inputs of layers, and with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from edgeprune.channels import evaluate, find_computed
from edgeprune.data import Batch
from edgeprune.errors import DataError, InputError
from edgeprune.prune.criteria.criterion import Subject
from edgeprune.prune.criteria.slices import marked
from edgeprune.tasks import Kind, logits

__all__ = ["Look", "products", "runnable", "watch"]

Look: TypeAlias = Callable[[Interpreter, Node, Tensor], None]
"""Called with the run, a node and its value as soon as that is there."""


def runnable(subject: Subject) -> GraphModule:
    """The network up to its logits, in eval mode; each weight that the graph computes from
    parameters is a parameter instead, named as in ``slices.marked``."""
    module = logits(subject.model)
    computed = find_computed(subject.model, subject.groups)
    values = marked(evaluate(subject.model, computed.labels))
    for node in list(module.graph.nodes):
        name = f"%{node.name}"
        if name in values:
            module.register_parameter(name, nn.Parameter(values[name]))
            with module.graph.inserting_before(node):
                constant = module.graph.get_attr(name)
            constant.meta = dict(node.meta)
            node.replace_all_uses_with(constant)
    module.graph.eliminate_dead_code()
    return module


def watch(
    subject: Subject, module: GraphModule, name: str, looks: Mapping[Node, Look]
) -> Iterator[tuple[Batch, tuple[Tensor, ...]]]:
    """Each batch, and the outputs for it.

    Args:
        subject: The model and its samples.
        module: What ``runnable`` gives of it.
        name: The criterion, for messages.
        looks: What is to be called at which nodes.

    Raises:
        DataError: An index in the data is outside the model's table.
    """
    run = _Watching(module, looks)
    for batch in subject.drawn.batches:
        try:
            given = run.run(*batch.inputs)
        except IndexError as error:
            raise DataError(
                f"importance '{name}': {error}: a token id, or another index in the data, is "
                "larger than the model's table"
            ) from error
        yield batch, (given,) if isinstance(given, Tensor) else tuple(given)
        subject.drawn.advance(len(batch))


def products(
    subject: Subject,
    name: str,
    module: GraphModule | None = None,
    looks: Mapping[Node, Look] | None = None,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """For each batch its size, and weight times gradient by parameter or computed weight.

    The loss is the mean over the batch, summed over the outputs: to the labels of those that
    labels are about; to the model's own decisions of other classes and probabilities; of values
    half the mean square. The network is in eval mode. Arguments are those of ``watch``.

    Raises:
        DataError: A label is outside the classes of the model's output, or an index in the data
            outside the model's table.
        InputError: No output has a gradient.
    """
    module = module or runnable(subject)
    for batch, outputs in watch(subject, module, name, looks or {}):
        module.zero_grad()
        loss = _loss(outputs, subject.drawn.kinds, batch.labels, name)
        loss.backward()  # type: ignore[no-untyped-call]
        found = {n: p.detach() * p.grad for n, p in module.named_parameters() if p.grad is not None}
        yield len(batch), found


class _Watching(Interpreter):
    """Runs a graph and shows values as they are made."""

    def __init__(self, module: GraphModule, looks: Mapping[Node, Look]) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.looks = looks

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        if n in self.looks:
            self.looks[n](self, n, value)
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
