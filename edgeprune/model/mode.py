# SPDX-License-Identifier: Apache-2.0
"""Train and eval mode of a captured graph: one literal per node, nothing else."""

import torch
from torch.fx import GraphModule, Node

__all__ = ["set_training"]

_NAMES = frozenset({"train", "training"})


def set_training(module: GraphModule, training: bool) -> None:
    """Switch every batch norm, dropout and their like to train or eval mode, in place.

    An exported graph has no mode: each such operator was called with a literal. The operator's
    schema says which argument that is (one named ``train`` or ``training``), and only it changes:
    probabilities, eps and momentum stay. A batch norm without running statistics always normalises
    by its batch and stays as it is. ``scaled_dot_product_attention`` has no such argument: what
    dropout it was captured with (none, in eval mode), it keeps.

    ``module.train()`` is no substitute: it raises on an exported module, and torchao's
    replacement resets p, eps and momentum.
    """
    for part in module.modules():
        if isinstance(part, GraphModule):
            for node in part.graph.nodes:
                _switch(node, training)
            part.recompile()


def _switch(node: Node, training: bool) -> None:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return
    for index, argument in enumerate(target._schema.arguments):
        if argument.name not in _NAMES or not _switchable(node, target):
            continue
        if argument.name in node.kwargs:
            node.update_kwarg(argument.name, training)
        elif index < len(node.args):
            node.update_arg(index, training)
        elif argument.default_value != training:
            node.update_kwarg(argument.name, training)


def _switchable(node: Node, target: torch._ops.OpOverload) -> bool:
    """Whether the operator could run in eval mode: not without running statistics to use."""
    names = [argument.name for argument in target._schema.arguments]
    if "running_mean" not in names:
        return target._overloadname != "no_stats"
    index = names.index("running_mean")
    given = node.args[index] if index < len(node.args) else node.kwargs.get("running_mean")
    return given is not None
