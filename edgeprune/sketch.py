# SPDX-License-Identifier: Apache-2.0
"""From a model and its channel groups to what ``inspect --svg`` draws.

A box is a layer with parameters, a product of activations, a join or split of several, or an
operator that freezes a parameter. All else is folded into the lines. A normalisation behind the one
layer that feeds it shares that layer's box, and so does a chain of element-wise joins.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import getitem
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from edgeprune.channels import Frozen, Groups
from edgeprune.model import Model
from edgeprune.report.drawing import Box, Drawing, Entry
from edgeprune.report.text import count

__all__ = ["sketch"]

_PRODUCTS = {"matmul", "mm", "bmm", "addmm", "baddbmm", "einsum"}
_SPLITS = {"split", "split_with_sizes", "chunk", "tensor_split", "unbind"}
_APART = {"cat", "concat", "concatenate", "stack", "scaled_dot_product_attention"}
"""Joins that keep a box of their own: what goes in differs from what comes out."""


@dataclass
class _Part:
    """A box while the graph is walked."""

    nodes: list[Node]
    states: list[str]
    """What it uses first hand, or through nodes that use nothing else."""
    sources: list[int]
    out: list[int]
    """The groups of its output channels."""
    macs: int = 0
    frozen: list[Frozen] = field(default_factory=list)
    end: str = ""
    """The name of an input or output."""
    main: Node | None = None
    """Its layer's node; none for a join."""


def sketch(model: Model, groups: Groups, title: str) -> Drawing:
    """The network as boxes and lines, coloured by ``groups``; nothing is run."""
    parts = _Walker(model, groups).parts()
    into = _merged(parts)
    order = [i for i in range(len(parts)) if into[i] == i]
    number = {part: i for i, part in enumerate(order)}
    edges = {
        (number[into[source]], number[into[i]])
        for i, part in enumerate(parts)
        for source in part.sources
        if into[source] != into[i]
    }
    feeds: dict[int, list[int]] = defaultdict(list)
    for a, b in sorted(edges):
        feeds[b] += [g for g in parts[order[a]].out if g not in feeds[b]]
    facts = _Facts(model, groups)
    boxes = tuple(facts.box(parts[part], feeds[i]) for i, part in enumerate(order))
    entries = tuple(Entry(g.name, g.size, g.macs) for g in groups.groups)
    return Drawing(title, boxes, tuple(sorted(edges)), entries)


class _Walker:
    """Finds the boxes of a graph, and which feed which."""

    def __init__(self, model: Model, groups: Groups) -> None:
        self._graph = model.program.graph
        self._states = _states(model, groups)
        self._trainable = groups.trainable
        self._labels = groups.labels
        self._channel_of = groups.channel_of
        sizes = [group.size for group in groups.groups]
        self._group_of = np.repeat(np.arange(len(sizes)), sizes)
        self._axes: dict[str, list[Any]] = defaultdict(list)
        self._macs: dict[str, int] = defaultdict(int)
        for product in groups.walk.products:
            self._macs[product.node] += product.total
            self._axes[product.node] = list(product.axes)
        self._frozen: dict[str, list[Frozen]] = defaultdict(list)
        for frozen in groups.frozen:
            self._frozen[frozen.node].append(frozen)
        self._parts: list[_Part] = []
        self._from: dict[Node, list[int]] = {}
        """The boxes that a node's value comes from."""
        self._uses: dict[Node, list[str]] = {}
        """The states of nodes that come from states alone."""

    def parts(self) -> list[_Part]:
        """The boxes in the order of the graph, before any are merged."""
        for node in self._graph.nodes:
            if node.op == "placeholder":
                state = self._states.get(node.name)
                self._uses[node] = [state] if state is not None else []
                if state is None and isinstance(node.meta.get("val"), torch.Tensor):
                    self._add(node, _Part([node], [], [], [], end=node.name))
            elif node.op == "call_function" and _holds_tensors(node):
                self._call(node)
            elif node.op == "output":
                self._output(node)
        return self._parts

    def _add(self, node: Node, part: _Part) -> None:
        self._from[node] = [len(self._parts)]
        self._parts.append(part)

    def _call(self, node: Node) -> None:
        inputs = [n for n in node.all_input_nodes if n in self._uses or n in self._from]
        sources = _unique(i for n in inputs for i in self._from.get(n, ()))
        states = _unique(s for n in inputs for s in self._uses.get(n, ()))
        stops = [f for f in self._frozen.get(node.name, ()) if f.cause != "output"]
        own = any(name in self._trainable for name in states) or self._macs.get(node.name)
        if not sources:
            self._uses[node] = states
        elif own or len(sources) > 1 or stops or _splits(node):
            part = _Part([node], states, sources, [], self._macs.get(node.name, 0), stops)
            part.out = self._out(node, part)
            part.main = node if own or stops else None
            self._add(node, part)
        else:
            self._from[node] = sources

    def _output(self, node: Node) -> None:
        for place, value in enumerate(node.all_input_nodes, 1):
            name = "output" if len(node.all_input_nodes) == 1 else f"output {place}"
            sources = self._from.get(value, [])
            self._add(node, _Part([value], [], sources, [], end=name))

    def _out(self, node: Node, part: _Part) -> list[int]:
        """The groups of a box's output channels."""
        name = _name(node)
        before = _unique(g for i in part.sources for g in self._parts[i].out)
        if name in ("linear", "embedding") or name.startswith("conv"):
            return self._of_weight(node, name)
        within = _unique(g for axis in self._axes[node.name] for g in self._groups(axis))
        if name == "scaled_dot_product_attention":
            return within
        if name in _PRODUCTS:
            # Of a product with a parameter the inner dimension is the input's, and ends there.
            return [g for g in within if g not in before] if part.states else within
        own = (self._of_state(s) for s in part.states if s in self._trainable)
        return _unique([*before, *(g for groups in own for g in groups)])

    def _of_weight(self, node: Node, name: str) -> list[int]:
        weight = node.args[0] if name == "embedding" else node.args[1]
        turned = name.startswith("conv_transpose") or (
            name == "convolution" and len(node.args) > 6 and bool(node.args[6])
        )
        dim = 1 if turned or name == "embedding" else 0
        while isinstance(weight, Node) and weight.name not in self._states:
            weight = next(iter(weight.all_input_nodes), None)  # past a reparametrisation
        state = self._states.get(weight.name, "") if isinstance(weight, Node) else ""
        labels = self._labels.get((state, dim))
        return [] if labels is None else self._of_channels(labels)

    def _of_state(self, state: str) -> list[int]:
        dims = (labels for (name, _), labels in self._labels.items() if name == state)
        return _unique(g for labels in dims for g in self._of_channels(labels))

    def _groups(self, axis: Any) -> list[int]:
        return self._of_channels(self._channel_of[axis])

    def _of_channels(self, channels: Any) -> list[int]:
        found = self._group_of[channels[channels >= 0]]
        first = np.unique(found, return_index=True)[1]
        return [int(found[i]) for i in np.sort(first)]


class _Facts:
    """Says in words what a part is."""

    def __init__(self, model: Model, groups: Groups) -> None:
        self._groups = groups
        self._states = model.program.state_dict
        self._counted: set[str] = set()
        self._causes: dict[str, list[Frozen]] = defaultdict(list)
        for frozen in groups.frozen:
            self._causes[frozen.name].append(frozen)

    def box(self, part: _Part, feeds: Iterable[int]) -> Box:
        """The box of ``part``, which reads channels of the groups ``feeds``."""
        if part.end:
            return Box(part.end, "", (), (), (f"{part.end}: {_shape(part.nodes[0])}",), "end")
        takes = tuple(g for g in feeds if g not in part.out)
        owners = _unique(s.rpartition(".")[0] or s for s in part.states if s in self._trained)
        ops = _unique(map(_name, part.nodes))
        before = [] if part.main in part.nodes[:1] else ops[:1]
        main = part.main or part.nodes[-1]
        label = " + ".join([*before, *_shared(owners)] if owners else ops)
        what = [_shape(part.nodes[-1]).removeprefix("batchx")]
        return Box(
            label,
            " ".join([_name(main), *what] if owners else what) + self._why(part),
            tuple(part.out),
            takes,
            (*owners, *self._notes(part, " + ".join(ops), takes)),
            "join" if part.main is None else "layer",
        )

    def _why(self, part: _Part) -> str:
        """The cause, where it is this box or the output that freezes channels."""
        fixed = [f for s in part.states for f in self._causes[s] if f.node == "output"]
        causes = _unique(f.cause for f in [*part.frozen, *fixed])
        return f", frozen: {causes[0]}" if causes and not part.out else ""

    @property
    def _trained(self) -> frozenset[str]:
        return self._groups.trainable

    def _notes(self, part: _Part, ops: str, takes: tuple[int, ...]) -> Iterator[str]:
        yield f"{ops} ({', '.join(n.name for n in part.nodes)}), output {_shape(part.nodes[-1])}"
        new = [s for s in part.states if s in self._trained and s not in self._counted]
        self._counted.update(new)
        parameters = sum(self._states[name].numel() for name in new)
        if parameters or part.macs:
            yield f"{count(parameters)} parameters, {count(part.macs)} MACs"
        for word, groups in (("gives", part.out), ("takes", takes)):
            for place in groups:
                group = self._groups.groups[place]
                yield f"{word} group {place + 1}: {group.name}, {group.size} channels"
        if not part.out:
            yield "its output channels are frozen"
        causes = _unique([*part.frozen, *(f for s in part.states for f in self._causes[s])])
        for frozen in causes:
            yield f"frozen: {frozen.name}[{frozen.dim}]: {frozen.cause} ({frozen.node})"


def _states(model: Model, groups: Groups) -> dict[str, str]:
    """The states by the names of their nodes; tied ones all by the name that ``groups`` knows."""
    tensors = {**model.program.state_dict, **model.program.constants}
    known = {
        (tensors[name].data_ptr(), tensors[name].shape): name
        for name in groups.walk.states
        if tensors[name].numel()
    }
    signature = model.program.graph_signature
    named = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    return {
        node: known.get((tensors[name].data_ptr(), tensors[name].shape), name)
        for node, name in named.items()
    }


def _merged(parts: list[_Part]) -> list[int]:
    """For each part the one that it is drawn in; what it holds goes over to that one."""
    readers: dict[int, set[int]] = defaultdict(set)
    for i, part in enumerate(parts):
        for source in part.sources:
            readers[source].add(i)
    into = list(range(len(parts)))
    for i, part in enumerate(parts):
        if part.end:
            continue
        for source in part.sources:
            host = parts[into[source]]
            if readers[source] != {i} or host.end:
                continue
            if _follows(part, host):
                _pour(part, host)
                into[i] = into[source]
                # What reads the follower now reads its host.
                readers[into[i]] = readers[source] = readers[i]
            elif into[i] == i and _adds_to(part, host) and into[source] == source:
                part.nodes = [*host.nodes, *part.nodes]
                into[source] = i
    return [_root(into, i) for i in range(len(parts))]


def _follows(part: _Part, host: _Part) -> bool:
    """Whether a part is a normalisation, bias or scale of the one part before it."""
    alone = len(part.sources) == 1 and bool(part.states) and not part.macs
    return alone and set(part.out) == set(host.out)


def _adds_to(part: _Part, host: _Part) -> bool:
    plain = not any((part.states, part.macs, part.frozen, host.states, host.macs, host.frozen))
    names = {_name(n) for n in (*part.nodes, *host.nodes)}
    return plain and set(part.out) == set(host.out) and not names & (_APART | _SPLITS)


def _pour(part: _Part, host: _Part) -> None:
    host.main = host.main or part.main
    host.nodes += part.nodes
    host.states += [s for s in part.states if s not in host.states]
    host.frozen += part.frozen


def _root(into: list[int], i: int) -> int:
    while into[i] != i:
        i = into[i]
    return i


def _shared(names: list[str]) -> list[str]:
    """Names after the first without the path that they share with it."""
    if len(names) < 2:
        return names
    path = names[0].rpartition(".")[0] + "."
    return [names[0], *(n.removeprefix(path) if path != "." else n for n in names[1:])]


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _name(node: Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).split("::")[-1].rstrip("_")  # in place or not
    return str(getattr(target, "__name__", target))


def _holds_tensors(node: Node) -> bool:
    value = node.meta.get("val")
    several = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(v, torch.Tensor) for v in several)


def _splits(node: Node) -> bool:
    return _name(node) in _SPLITS and sum(user.target is getitem for user in node.users) > 1


def _shape(node: Node) -> str:
    value = node.meta.get("val")
    if isinstance(value, (list, tuple)):
        value = next((v for v in value if isinstance(v, torch.Tensor)), None)
    if not isinstance(value, torch.Tensor):
        return ""
    sizes = (str(s) if isinstance(s, int) else "batch" for s in value.shape)
    return "x".join(sizes)
