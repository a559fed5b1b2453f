# SPDX-License-Identifier: Apache-2.0
"""Walk a captured graph once, applying each operator's rule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import Node

from edgeprune.channels.atoms import Atoms, Components, Dims
from edgeprune.channels.divisors import divisors
from edgeprune.channels.op import Edit, Op, Product, Value
from edgeprune.channels.policy import STANDARD, Policy
from edgeprune.channels.rules import RULES, pointwise
from edgeprune.model import Model

__all__ = ["Walk", "owners", "walk"]

_UNREADABLE = (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError)


@dataclass(frozen=True)
class Walk:
    """What one walk found: the atoms of every state tensor's dimensions, the literals to rewrite,
    and the nodes that multiply."""

    atoms: Atoms
    components: Components
    states: dict[str, Dims]
    """Parameters, buffers and constants by their qualified names."""
    edits: tuple[Edit, ...]
    products: tuple[Product, ...]
    divisors: frozenset[str]
    """State that a mask must leave as it is: a zero of it would be divided by."""
    computed: dict[str, Dims]
    """What is computed from state alone (a normed weight), by the names of the nodes."""


def walk(model: Model, policy: Policy = STANDARD) -> Walk:
    """Collect atoms and their glue over the graph of ``model``."""
    atoms = Atoms()
    values: dict[Node, Value] = {}
    states: dict[str, Dims] = {}
    edits: list[Edit] = []
    products: list[Product] = []
    weights: set[Node] = set()
    computed: dict[str, Dims] = {}
    names = owners(model)
    nodes = list(model.program.graph.nodes)
    reads = frozenset(n for n in nodes if n.op == "placeholder" and n.name not in names)
    alive = _alive(nodes)
    for node in (n for n in nodes if n in alive):
        if node.op == "placeholder":
            name = names.get(node.name)
            dims = states[name] if name in states else _placeholder(atoms, node, name)
            values[node] = dims
            if name is not None:
                states[name] = dims
                weights.add(node)
        elif node.op == "call_function":
            op = Op(node, atoms, values, policy, reads, weights)
            value = values[node] = _apply(op)
            edits += op.edits
            products += op.products
            if node.all_input_nodes and weights.issuperset(node.all_input_nodes):
                weights.add(node)
                if isinstance(value, tuple):
                    computed[node.name] = value
        elif node.op == "output":
            Op(node, atoms, values).freeze_all("output")
    inputs = {n: names[n.name] for n in nodes if n.name in names}
    divided = divisors(nodes, inputs)
    return Walk(atoms, atoms.components(), states, tuple(edits), tuple(products), divided, computed)


def _alive(nodes: list[Node]) -> set[Node]:
    """Nodes that an output or a write needs; code and state that nothing uses cost nothing."""
    alive: set[Node] = set()
    for node in reversed(nodes):
        if node.op == "output" or node in alive or _writes(node):
            alive.add(node)
            alive.update(node.all_input_nodes)
    return alive


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _state_names(model: Model) -> dict[str, str]:
    signature = model.program.graph_signature
    return {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }


def owners(model: Model) -> dict[str, str]:
    """For each node of a state tensor, the first name of that tensor: tied weights are one."""
    owner: dict[str, str] = {}
    first: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in {**model.program.state_dict, **model.program.constants}.items():
        if isinstance(tensor, torch.Tensor):
            key = (tensor.data_ptr(), tensor.shape)
            owner[name] = first.setdefault(key, name) if tensor.numel() else name
    return {node: owner[name] for node, name in _state_names(model).items() if name in owner}


def _placeholder(atoms: Atoms, node: Node, state: str | None) -> Dims:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return ()
    if state is None:
        return (None,) * value.dim()
    return tuple(atoms.fresh(int(size)) for size in value.shape)


def _apply(op: Op) -> Value:
    """The result of the op's rule. One without a rule, or that its rule can't read, freezes."""
    rule = RULES.get(op.name)
    if rule is None and _is_pointwise(op.node):
        rule = pointwise
    if rule is not None:
        try:
            value = rule(op)
            if _fits(value, op.node.meta.get("val")):
                return value
        except _UNREADABLE:
            pass
        # A form of the op that its rule doesn't know must freeze, as an unknown op does.
        op.edits.clear()
        op.products.clear()
    if _works_on_tensors(op.node):
        reason = "no rule for" if rule is None else "a form without a rule of"
        op.freeze_all(f"{reason} {op.node.target}")
    return op.untracked()


def _fits(value: Value, made: object) -> bool:
    """Whether a rule speaks of what the node makes: as many dimensions, and as long."""
    if isinstance(made, torch.Tensor):
        return len(value) == made.dim() and all(
            axis is None or not isinstance(size, int) or len(axis) == size
            for axis, size in zip(value, made.shape, strict=True)
        )
    if isinstance(made, (list, tuple)):
        return len(value) == len(made) and all(map(_fits, value, made))  # type: ignore[arg-type]
    return True


def _is_pointwise(node: Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    return torch.Tag.pointwise in target.tags or (
        str(target.overloadpacket).endswith("_") and (_twin_is_pointwise(target))
    )


def _twin_is_pointwise(target: torch._ops.OpOverload) -> bool:
    """In-place operators carry no tag of their own; their functional twin does."""
    name = target._schema.name.split("::")[-1].removesuffix("_")
    packet = getattr(torch.ops.aten, name, None)
    overloads = packet.overloads() if packet is not None else ()
    return any(torch.Tag.pointwise in getattr(packet, o).tags for o in overloads)


def _works_on_tensors(node: Node) -> bool:
    return any(
        isinstance(n.meta.get("val"), (torch.Tensor, list, tuple)) or n.op == "get_attr"
        for n in node.all_input_nodes
    ) and not str(node.target).startswith("aten.sym_")
