# SPDX-License-Identifier: Apache-2.0
"""Small tools on the graph of an exported module."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from edgeprune.model.program import holder, quietly, value

__all__ = [
    "evaluate",
    "fake_mode",
    "new_constant",
    "put",
    "readers",
    "replace",
    "tidy",
    "twin",
]


def tidy(gm: GraphModule) -> None:
    """Drop what nothing uses: nodes, parameters, submodules."""
    gm.graph.eliminate_dead_code()
    used = {n.target for n in gm.graph.nodes if n.op == "get_attr"}
    held = [*(n for n, _ in gm.named_parameters()), *(n for n, _ in gm.named_buffers())]
    for name in held:
        if name not in used:
            owner, attribute = holder(gm, name)
            delattr(owner, attribute)
    gm.delete_all_unused_submodules()
    gm.graph.lint()
    gm.recompile()


def put(gm: GraphModule, node: Node, tensor: Tensor) -> None:
    """Overwrite what a ``get_attr`` node reads, in place: tied parameters stay tied."""
    with torch.no_grad():
        value(gm, node).copy_(tensor)


def readers(gm: GraphModule, node: Node) -> int:
    """How many uses the tensor behind a ``get_attr`` node has, under all of its names."""
    memory = value(gm, node).data_ptr()
    return sum(
        len(other.users)
        for other in gm.graph.find_nodes(op="get_attr")
        if _is_tensor(gm, other) and value(gm, other).data_ptr() == memory
    )


def new_constant(
    gm: GraphModule, before: Node, name: str, tensor: Tensor, dtype: torch.dtype
) -> Node:
    """Add a parameter under the first free name from ``name`` on, and a node that reads it."""
    free, count = name, 1
    while _exists(gm, free):
        count += 1
        free = f"{name}_{count}"
    owner_name, _, attribute = free.rpartition(".")
    if owner_name:
        try:
            owner = gm.get_submodule(owner_name)
        except AttributeError:
            owner = torch.nn.Module()
            gm.add_submodule(owner_name, owner)
    else:
        owner = gm
    parameter = torch.nn.Parameter(tensor.to(dtype))
    owner.register_parameter(attribute, parameter)
    with gm.graph.inserting_before(before):
        node = gm.graph.get_attr(free)
    mode = fake_mode(before)
    node.meta["val"] = mode.from_tensor(parameter, static_shapes=True) if mode else parameter
    return node


def replace(gm: GraphModule, node: Node, target: Any, args: tuple[Any, ...]) -> Node:
    """Put a call in the place of ``node``, with its value's metadata."""
    with gm.graph.inserting_before(node):
        new = gm.graph.call_function(target, args)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    gm.graph.erase_node(node)
    return new


def _exists(gm: GraphModule, name: str) -> bool:
    try:
        owner, attribute = holder(gm, name)
    except AttributeError:
        return False
    return hasattr(owner, attribute)


def twin(gm: GraphModule) -> GraphModule:
    """A copy that shares nothing."""
    with quietly():
        return copy.deepcopy(gm)


def fake_mode(node: Node) -> Any:
    """What made a node's fake value, to make another; ``None`` where it has none."""
    return getattr(node.meta.get("val"), "fake_mode", None)


def evaluate(gm: GraphModule, node: Node) -> Tensor | None:
    """The tensor that ``node`` always gives; ``None`` where it depends on an input."""
    if node.op == "get_attr":
        return value(gm, node) if _is_tensor(gm, node) else None
    if node.op != "call_function" or not node.all_input_nodes:
        return None
    known = {n: evaluate(gm, n) for n in node.all_input_nodes}
    if any(v is None for v in known.values()):
        return None

    def look(source: Node) -> Any:
        return known[source]

    function: Any = node.target
    with torch.no_grad():
        result = function(*map_arg(node.args, look), **map_arg(node.kwargs, look))
    return result if isinstance(result, Tensor) else None


def _is_tensor(gm: GraphModule, node: Node) -> bool:
    owner, attribute = holder(gm, str(node.target))
    return isinstance(getattr(owner, attribute), Tensor)
