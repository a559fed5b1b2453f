# SPDX-License-Identifier: Apache-2.0
"""Blocks that torch wraps as graphs of their own (``no_grad``, ``autocast``), laid out in line."""

from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

__all__ = ["inline", "is_wrapped"]


def is_wrapped(program: ExportedProgram) -> bool:
    """Whether ``inline`` has something to do."""
    return any(_block(node) is not None for node in program.graph.nodes)


def inline(module: GraphModule) -> None:
    """Put the nodes of wrapped blocks into the graph around them, in place.

    What ``no_grad`` gives is detached, so that it still gets no gradient. A block that computes in
    another precision (``autocast`` that is on) stays as it is.
    """
    for node in list(module.graph.nodes):
        place = _block(node)
        if place is None:
            continue
        inner = getattr(module, node.args[place].target)
        inline(inner)
        given = node.args[place + 1 :]
        _lay_out(module, node, inner, given, detached=place == 1 and not node.args[0])
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()


def _block(node: Node) -> int | None:
    """Where the inner graph stands among the arguments of a block that can be laid out."""
    if node.target is torch.ops.higher_order.wrap_with_set_grad_enabled:
        return 1
    if node.target is torch.ops.higher_order.wrap_with_autocast:
        device, _, enabled, *_ = node.args
        return 4 if not enabled or device != "cpu" else None
    return None


def _lay_out(
    module: GraphModule, node: Node, inner: GraphModule, given: tuple[Any, ...], *, detached: bool
) -> None:
    places = inner.graph.find_nodes(op="placeholder")
    known: dict[Node, Any] = dict(zip(places, given, strict=True))
    with module.graph.inserting_before(node):
        for fetch in inner.graph.find_nodes(op="get_attr"):
            known[fetch] = _brought(module, inner, str(fetch.target))
        for part in inner.graph.nodes:
            if part.op == "call_function":
                known[part] = module.graph.node_copy(part, lambda n: known[n])
        (output,) = inner.graph.find_nodes(op="output")
        results = pytree.tree_map_only(
            Node, lambda n: _result(module.graph, known[n], detached), list(output.args[0])
        )
    for user in list(node.users):
        user.replace_all_uses_with(results[user.args[1]])
        module.graph.erase_node(user)
    module.graph.erase_node(node)


def _result(graph: Graph, node: Any, detached: bool) -> Any:
    value = node.meta.get("val") if isinstance(node, Node) else None
    if not detached or not isinstance(value, Tensor):
        return node
    new = graph.call_function(torch.ops.aten.detach.default, (node,))
    new.meta["val"] = value
    return new


def _brought(module: GraphModule, inner: GraphModule, name: str) -> Node:
    """A tensor that the inner graph owns, under a name that is free in the outer one."""
    free, number = name, 0
    while hasattr(module, free):
        number += 1
        free = f"{name}_{number}"
    setattr(module, free, getattr(inner, name))
    return module.graph.get_attr(free)
