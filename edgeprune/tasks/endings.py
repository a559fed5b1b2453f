# SPDX-License-Identifier: Apache-2.0
"""How each output of a graph ends: in softmax, log-softmax, sigmoid, or in none of them.

Seen through operators that only arrange elements (views, transposes, concatenations), so that the
same can be done to what stands before: the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from edgeprune.channels.memory import operator_name
from edgeprune.channels.shapes import blocks, shape_of
from edgeprune.model import Model

__all__ = ["Ending", "endings", "logits"]

Kind = Literal["softmax", "log_softmax", "sigmoid", "logits", "open"]


@dataclass(frozen=True)
class Ending:
    """The last operator that computes an output."""

    kind: Kind = "open"
    """``logits``: it is what another output is the softmax of; ``open``: it ends otherwise."""
    axis: int = -1
    """Of the classes of a softmax, in the output."""
    groups: tuple[int, ...] = ()
    """Sizes of the softmaxes that lie one after the other along ``axis``; one as a rule."""


@dataclass(frozen=True)
class _Found:
    """An ending, and how to build the same from what stands before it."""

    ending: Ending
    build: Callable[[Graph], Node]
    starts: Node | None = None
    """What stands before a softmax that is the output as it is."""


_KEEP = {
    "alias", "contiguous", "clone", "detach", "dropout", "feature_dropout", "alpha_dropout", "to",
    "_to_copy", "lift_fresh_copy", "type_as", "clamp", "clamp_min", "clamp_max", "clip",
}  # fmt: skip
_RESHAPE = {
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze",
}  # fmt: skip
_PERMUTE = {"permute", "transpose", "t", "swapaxes", "swapdims", "movedim", "moveaxis"}
_PICK = {"slice", "select", "narrow", "index_select"}
_JOIN = {"cat", "concat", "stack"}
_OVER_ONE = {"mean", "sum", "amax", "amin"}
_EDGE = 1e-3
"""How far from 0 and 1 probabilities may be clamped."""


def endings(model: Model) -> tuple[Ending, ...]:
    """How each output of ``model`` ends, in their order; axes are those of samples first."""
    graph = model.program.graph
    named = {node.name: node for node in graph.nodes}
    outputs = model.program.graph_signature.user_outputs
    nodes = [named.get(name) for name in outputs if isinstance(name, str)]
    found = [None if node is None else _trace(node) for node in nodes]
    before: dict[Node | None, Ending] = {
        f.starts: replace(f.ending, kind="logits") for f in found if f and f.starts
    }
    ends = [
        f.ending if f else before.get(node, Ending()) for node, f in zip(nodes, found, strict=True)
    ]
    return tuple(_samples_first(e, o.batch_axis) for e, o in zip(ends, model.outputs, strict=True))


def logits(model: Model) -> GraphModule:
    """``model.module()``, whose outputs are what stands before their softmax or sigmoid, with the
    samples first.

    Other outputs are as they were, and so are the module's parameters and buffers.
    """
    module = model.module()
    graph = module.graph
    (output,) = graph.find_nodes(op="output")
    given: list[Node] = []
    map_arg(output.args, given.append)  # an output may be given twice
    made = []
    with graph.inserting_before(output):
        for node, spec in zip(given, model.outputs, strict=True):
            found = _trace(node)
            made.append(node if found is None else found.build(graph))
            if spec.batch_axis:
                moved = (made[-1], spec.batch_axis, 0)
                made[-1] = graph.call_function(torch.ops.aten.movedim.int, moved)
    if made != given:
        replaced = iter(made)
        output.args = map_arg(output.args, lambda _: next(replaced))
        graph.eliminate_dead_code()
        module.recompile()
    return module


def _samples_first(ending: Ending, batch: int | None) -> Ending:
    if not ending.groups or not batch:
        return ending
    if ending.axis == batch:
        return Ending()
    return replace(ending, axis=ending.axis + (ending.axis < batch))


def _trace(node: Node) -> _Found | None:
    """The ending of a value; ``None`` where it is open."""
    if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
        return None
    name = operator_name(node).removesuffix("_")
    in_place = operator_name(node).endswith("_")
    if in_place and name != "sigmoid" and name not in _KEEP:
        return None
    if name in ("softmax", "_softmax", "log_softmax", "_log_softmax", "sigmoid"):
        return _start(node, name.strip("_"))
    if name in _JOIN:
        return _joined(node)
    first = node.args[0] if node.args else None
    found = _trace(first) if isinstance(first, Node) else None
    if found is None or not isinstance(first, Node):
        return None
    if name in ("exp", "log"):
        return _exponential(found, name)
    if name == "rsub" and found.ending.kind == "sigmoid" and node.args[1:] == (1,):
        return replace(
            found,
            build=_then(found, lambda g, n: g.call_function(torch.ops.aten.neg.default, (n,))),
        )
    arranged = _arranged(node, first, name, found.ending)
    if arranged is None:
        return None
    if name in _KEEP:
        return replace(found, ending=arranged)
    return _Found(arranged, _then(found, lambda g, n: _again(g, node, n)))


def _exponential(found: _Found, name: str) -> _Found | None:
    """Softmax to log-softmax and back."""
    kinds: tuple[Kind, Kind] = ("log_softmax", "softmax")
    wanted, gives = kinds if name == "exp" else kinds[::-1]
    if found.ending.kind != wanted:
        return None
    return replace(found, ending=replace(found.ending, kind=gives))


def _again(graph: Graph, node: Node, taken: Any) -> Node:
    """The same operator, of something else."""
    args = (taken, *node.args[1:])
    return graph.create_node("call_function", node.target, args, dict(node.kwargs))


def _then(found: _Found, step: Callable[[Graph, Node], Node]) -> Callable[[Graph], Node]:
    return lambda graph: step(graph, found.build(graph))


def _start(node: Node, name: str) -> _Found | None:
    before, shape = node.args[0], shape_of(node)
    if not isinstance(before, Node):
        return None
    if operator_name(node) == "sigmoid_" and len(before.users) > 1:
        return None

    def build(_graph: Graph) -> Node:
        if operator_name(node) == "sigmoid_":  # it would write to what stands before
            node.target = torch.ops.aten.sigmoid.default
        return before

    if name == "sigmoid":
        return _Found(Ending("sigmoid"), build)
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    if not isinstance(dim, int) or not shape:
        return None
    axis = dim % len(shape)
    if axis == 0 or shape[axis] < 2:  # over the samples, or over one class: no probabilities
        return None
    kind: Kind = "softmax" if name == "softmax" else "log_softmax"
    return _Found(Ending(kind, axis, (shape[axis],)), build, before)


def _joined(node: Node) -> _Found | None:
    parts = node.args[0]
    if not isinstance(parts, (list, tuple)) or not all(isinstance(p, Node) for p in parts):
        return None
    found = [_trace(part) for part in parts if isinstance(part, Node)]
    known = [f for f in found if f is not None]
    if not known or len(known) < len(found):
        return None
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    if not isinstance(dim, int):
        return None
    ending, rank = known[0].ending, len(shape_of(node))
    dim %= rank
    stacked = operator_name(node) == "stack"
    if any((f.ending.kind, f.ending.axis) != (ending.kind, ending.axis) for f in known):
        return None
    if ending.kind != "sigmoid":
        if stacked and dim <= ending.axis:
            ending = replace(ending, axis=ending.axis + 1)
        elif not stacked and dim == ending.axis:
            ending = replace(ending, groups=sum((f.ending.groups for f in known), ()))
        if any(f.ending.groups != known[0].ending.groups for f in known) and dim != ending.axis:
            return None

    return _Found(ending, lambda graph: _again(graph, node, [f.build(graph) for f in known]))


def _arranged(node: Node, before: Node, name: str, ending: Ending) -> Ending | None:
    """The ending behind an operator that arranges elements; ``None`` behind any other."""
    if name in ("clamp", "clamp_min", "clamp_max", "clip"):
        return ending if ending.kind != "log_softmax" and _is_edge(node, name) else None
    if name in _KEEP:
        same = node.meta["val"].dtype.is_floating_point
        return ending if same else None
    if name in _PICK or name in _OVER_ONE:
        return _picked(node, before, name, ending)
    if name not in _RESHAPE and name not in _PERMUTE:
        return None
    if ending.kind == "sigmoid":
        return ending
    old, new = shape_of(before), shape_of(node)
    if name in _PERMUTE:
        table = torch.empty(old, device="meta").stride()
        # Strides of a fresh tensor tell where a dimension goes, but for those of size one.
        moved = node.target(torch.empty(old, device="meta"), *node.args[1:], **node.kwargs)  # type: ignore[operator]
        places = [i for i, s in enumerate(moved.stride()) if s == table[ending.axis]]
        places = [i for i in places if new[i] == old[ending.axis]]
        return replace(ending, axis=places[0]) if len(places) == 1 else None
    for block in blocks(old, new) or ():
        if block.inputs == (ending.axis,):
            return replace(ending, axis=block.outputs[0]) if len(block.outputs) == 1 else None
    return None


def _picked(node: Node, before: Node, name: str, ending: Ending) -> Ending | None:
    """Part of an output along an axis that isn't the classes', or a reduction over one element."""
    old, new = shape_of(before), shape_of(node)
    if name in _OVER_ONE:
        if old != new and [s for s in old if s != 1] != [s for s in new if s != 1]:
            return None
    elif ending.kind != "sigmoid":
        dim = node.args[1] if len(node.args) > 1 else 0
        if not isinstance(dim, int) or dim % len(old) == ending.axis:
            return None
    if ending.kind == "sigmoid":
        return ending
    gone = len(old) - len(new)
    if not gone:
        return ending
    dim = node.args[1] if name == "select" else None
    if isinstance(dim, int) and gone == 1:
        return replace(ending, axis=ending.axis - (dim % len(old) < ending.axis))
    return None


def _is_edge(node: Node, name: str) -> bool:
    """Whether probabilities are clamped at their ends alone."""
    bounds: list[Any] = [*node.args[1:], *node.kwargs.values()]
    low, high, *_ = [*bounds, None, None]
    if name == "clamp_max":
        low, high = None, low
    if not all(bound is None or isinstance(bound, (int, float)) for bound in (low, high)):
        return False
    return (low is None or low <= _EDGE) and (high is None or high >= 1 - _EDGE)
