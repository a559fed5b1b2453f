# SPDX-License-Identifier: Apache-2.0
"""What in a graph is of use to what: the dead nodes and the unused state behind a cut edge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from torch import Tensor
from torch.fx import Node

from edgeprune.channels.groups import Groups
from edgeprune.channels.memory import roots, written
from edgeprune.model import Model
from edgeprune.model.program import identity

__all__ = ["Reach"]

Adds = Mapping[Node, int]
"""Additions, each with the side (0 or 1) that is cut off."""


class Reach:
    """One graph, indexed."""

    def __init__(self, model: Model, groups: Groups) -> None:
        signature = model.program.graph_signature
        names = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        self.nodes: list[Node] = list(model.program.graph.nodes)
        self.order = {node: place for place, node in enumerate(self.nodes)}
        self.named = {node.name: node for node in self.nodes}
        self.states = {node: names[node.name] for node in self.nodes if node.name in names}
        self.inputs = {
            n for n in self.nodes if n.op == "placeholder" and n not in self.states and n.users
        }
        self.macs: dict[str, int] = defaultdict(int)
        for product in groups.walk.products:
            self.macs[product.node] += product.total
        self.groups_on: dict[str, list[int]] = defaultdict(list)
        for index, group in enumerate(groups.groups):
            for name in dict.fromkeys(name for name, _ in group.members):
                self.groups_on[name].append(index)
        self._trainable = groups.trainable
        self._tensors = {
            name: tensor
            for name, tensor in {**model.program.state_dict, **model.program.constants}.items()
            if isinstance(tensor, Tensor)
        }
        self._idle = self._unneeded()
        self._index_states()
        self._index_memory()
        self._follow()

    def _unneeded(self) -> set[Node]:
        """Nodes that neither an output nor a write needs: code without use, and assertions."""
        needed: set[Node] = set()
        for node in reversed(self.nodes):
            if node.op in ("output", "placeholder") or written(node) or node in needed:
                needed.add(node)
                needed.update(node.all_input_nodes)
        return set(self.nodes) - needed

    def _index_states(self) -> None:
        """Names of one tensor, its users, and the states that stand in one module."""
        self._aliases: dict[object, list[str]] = defaultdict(list)
        self._beside: dict[str, list[str]] = defaultdict(list)
        self._users: dict[object, list[Node]] = defaultdict(list)
        for name, tensor in self._tensors.items():
            self._aliases[identity(tensor)].append(name)
            self._beside[name.rpartition(".")[0]].append(name)
        for node, name in self.states.items():
            self._users[self._key(name)] += node.users

    def _index_memory(self) -> None:
        """All that shares the memory of a node, where an operator writes to it and gives nothing
        on: such a write is of use only as long as what it writes to is read."""
        families: dict[Node, set[Node]] = defaultdict(set)
        for node in self.nodes:
            for root in roots(node):
                families[root].add(node)
        silent = {r for n in self.nodes if not n.users for w in written(n) for r in roots(w)}
        self._written = {root: families[root] for root in silent if root.op == "call_function"}

    def _key(self, name: str) -> object:
        return identity(self._tensors[name])

    def _follow(self) -> None:
        """One pass: what depends on no input, which products have weights, and what lies behind
        one of these."""
        self._static: set[Node] = set()
        self._learned: set[Node] = set()
        self.weighted: set[Node] = set()
        """Nodes that multiply with parameters."""
        self.layered: set[Node] = set()
        """They, and all that depends on them."""
        for node in self.nodes:
            behind = node.all_input_nodes
            if node in self.states:
                self._static.add(node)
                if self.states[node] in self._trainable:
                    self._learned.add(node)
            elif node.op != "placeholder" and all(n in self._static for n in behind):
                self._static.add(node)
                if any(n in self._learned for n in behind):
                    self._learned.add(node)
            elif node.name in self.macs and any(n in self._learned for n in behind):
                self.weighted.add(node)
            if node in self.weighted or any(n in self.layered for n in behind):
                self.layered.add(node)

    def place(self, name: str) -> int:
        """The position of a node."""
        return self.order[self.named[name]]

    def only_input(self, node: Node) -> Node | None:
        """The one tensor that ``node`` makes its result of, besides parameters and constants;
        ``None`` where there are several, and for a layer with weights or a list."""
        if node.op != "call_function" or node in self.weighted:
            return None
        moving = [
            n
            for n in node.all_input_nodes
            if n not in self._static and isinstance(n.meta.get("val"), Tensor)
        ]
        return moving[0] if len(moving) == 1 else None

    def dead(self, adds: Adds) -> set[Node]:
        """The nodes that nothing uses once these sides are cut off, in-place operators on memory
        that others read excepted."""
        kept: set[Node] = set()
        while True:
            gone = self._dying(adds, kept)
            outside = {
                node for node in gone if any(not roots(value) <= gone for value in written(node))
            }
            if not outside:
                return gone
            kept |= outside

    def _dying(self, adds: Adds, kept: set[Node]) -> set[Node]:
        gone: set[Node] = set()
        stack = [add.all_input_nodes[side] for add, side in adds.items()]
        while stack:
            value = stack.pop()
            if value in gone or value in kept or value.op == "placeholder":
                continue
            new = self._falls(value, gone, adds)
            if not new & kept:
                gone |= new
                stack += [n for node in new for n in node.all_input_nodes]
        return gone

    def _falls(self, value: Node, gone: set[Node], adds: Adds) -> set[Node]:
        """What is dead with ``value`` where only ``gone`` uses it: itself, code without use behind
        it, and what writes in place to its memory. Empty where something else uses it."""
        family = {value}.union(*(self._written.get(root, ()) for root in roots(value)))
        for member in family:
            for user in member.users:
                useless = user in gone or user in self._idle or user in family
                if not (useless or self._cut_off(member, user, adds)):
                    return set()
        return family.union(*(self._idle_behind(member) for member in family))

    def _idle_behind(self, value: Node) -> set[Node]:
        found: set[Node] = set()
        stack = [user for user in value.users if user in self._idle]
        while stack:
            node = stack.pop()
            if node not in found:
                found.add(node)
                stack += node.users
        return found

    @staticmethod
    def _cut_off(value: Node, user: Node, adds: Adds) -> bool:
        return user in adds and user.all_input_nodes[adds[user]] is value

    def states_of(self, dead: Iterable[Node]) -> frozenset[str]:
        """The parameters and buffers, by all of their names, that only ``dead`` uses. A buffer that
        nothing ever used (a batch norm's counter) goes with the module that it stands in."""
        dead = set(dead)
        names = {self.states[n] for node in dead for n in node.all_input_nodes if n in self.states}
        gone = {
            alias
            for name in names
            if all(user in dead for user in self._users[self._key(name)])
            for alias in self._aliases[self._key(name)]
        }
        for path in {name.rpartition(".")[0] for name in gone}:
            beside = self._beside[path]
            used = [name for name in beside if self._users[self._key(name)]]
            if path and all(name in gone for name in used):
                gone.update(beside)
        return frozenset(gone)

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Tensors by their first names: one with several counts once."""
        first = {self._aliases[self._key(name)][0] for name in names}
        return {name: self._tensors[name] for name in sorted(first)}

    def parameters_of(self, layer: Node) -> list[str]:
        """The parameters of a layer with weights; they may pass operators before they reach it."""
        found, stack = [], [n for n in layer.all_input_nodes if n in self._learned]
        while stack:
            node = stack.pop(0)
            if node in self.states:
                found.append(self.states[node])
            stack += [n for n in node.all_input_nodes if n in self._learned]
        return found

    def severed(self, adds: Adds, dead: set[Node]) -> str | None:
        """What would be wrong with the network without ``dead``; ``None`` if nothing."""
        (output,) = (node for node in self.nodes if node.op == "output")
        before = self._needed([output], {})
        left = self._needed([output], adds)
        lost = [node for node in self.inputs if node in before and node not in left]
        if lost:
            return f"the input {min(node.name for node in lost)} would be of no use"
        for result in output.all_input_nodes:
            if result in self.layered and not self.weighted & self._needed([result], adds):
                return f"no layer would be left before the output {result.name}"
        return None

    def _needed(self, ends: list[Node], adds: Adds) -> set[Node]:
        found = set(ends)
        stack = list(ends)
        while stack:
            node = stack.pop()
            behind = node.all_input_nodes
            if node in adds:
                behind = [behind[1 - adds[node]]]
            new = [n for n in behind if n not in found]
            found.update(new)
            stack += new
        return found
