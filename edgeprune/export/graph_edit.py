# SPDX-License-Identifier: Apache-2.0
"""Put nodes into an exported graph, with the metadata that the next edit reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

__all__ = ["constant", "insert", "like_source", "replace", "shape_of"]

quantized = torch.ops.quantized_decomposed


def shape_of(node: Node) -> tuple[Any, ...]:
    """Sizes of a node's tensor; a batch may be symbolic."""
    return tuple(node.meta["val"].shape)


def insert(before: Node, target: Any, *args: Any) -> Node:
    """A call in front of ``before``, with its fake value."""
    with before.graph.inserting_before(before):
        node = before.graph.call_function(target, args)
    mode = _fake_mode(before)

    def known(source: Node) -> Any:
        return source.meta["val"]

    with mode:
        node.meta["val"] = target(*map_arg(args, known))
    return node


def constant(module: GraphModule, before: Node, tensor: Tensor) -> Node:
    """A buffer in front of ``before`` that holds ``tensor``."""
    number = 0
    while hasattr(module, f"edited_{number}"):
        number += 1
    module.register_buffer(f"edited_{number}", tensor)
    with before.graph.inserting_before(before):
        node = before.graph.get_attr(f"edited_{number}")
    node.meta["val"] = _fake_mode(before).from_tensor(tensor, static_shapes=True)
    return node


def _fake_mode(node: Node) -> Any:
    value = node.meta["val"]
    return (value[0] if isinstance(value, list | tuple) else value).fake_mode


def replace(node: Node, by: Node) -> None:
    """Let ``by`` take the place of ``node``."""
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


def like_source(before: Node, source: Node, result: Node) -> Node:
    """``result`` on the integers of ``source``, where that is a dequantized value."""
    if source.target is not quantized.dequantize_per_tensor.default:
        return result
    grid = source.args[1:]
    stored = insert(before, quantized.quantize_per_tensor.default, result, *grid)
    return insert(before, quantized.dequantize_per_tensor.default, stored, *grid)
