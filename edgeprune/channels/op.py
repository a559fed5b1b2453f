# SPDX-License-Identifier: Apache-2.0
"""What a rule sees of one node, and what it may say."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from math import gcd
from typing import Any, TypeAlias

import torch
from torch.fx import Node

from edgeprune.channels.atoms import Atoms, Axis, Dims
from edgeprune.channels.policy import STANDARD, Policy
from edgeprune.channels.shapes import per_sample, shape_of

__all__ = ["Edit", "Kept", "Op", "Product", "Rule", "Value", "set_argument"]

Value: TypeAlias = "Dims | list[Dims]"
"""The dimensions of a tensor, or of each tensor of a list."""

Kept: TypeAlias = Callable[[Axis], int]
"""How many indices of an axis are left after a removal."""


@dataclass(frozen=True)
class Edit:
    """A literal of the graph that depends on sizes: ``change(node, kept)`` rewrites it."""

    node: str
    change: Callable[[Node, Kept], None]


@dataclass(frozen=True)
class Product:
    """Multiply-accumulates of one node for one sample: ``total``, in proportion to the kept share
    of each of ``axes``."""

    node: str
    total: int
    axes: tuple[Axis, ...]


@dataclass
class Op:
    """One call in the graph, its arguments by their schema names, and the atoms so far."""

    node: Node
    atoms: Atoms
    values: dict[Node, Value]
    policy: Policy = STANDARD
    reads: frozenset[Node] = frozenset()
    """The inputs of the network."""
    weights: frozenset[Node] | set[Node] = frozenset()
    """Nodes computed from parameters and buffers alone."""
    edits: list[Edit] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The operator without namespace and overload: ``conv2d``."""
        target = self.node.target
        if isinstance(target, torch._ops.OpOverload):
            return str(target._schema.name).split("::")[-1]
        return str(getattr(target, "__name__", target))

    @property
    def source(self) -> Node:
        """The first argument, where it is a tensor.

        Raises:
            TypeError: It is none.
        """
        first = self.node.args[0]
        if not isinstance(first, Node):
            raise TypeError(f"{self.node.name} has no tensor in front")
        return first

    def argument(self, name: str, default: Any = None) -> Any:
        """An argument by its schema name; ``default`` where the operator has none such."""
        schema = self.node.target._schema  # type: ignore[union-attr]
        for position, argument in enumerate(schema.arguments):
            if argument.name == name:
                if position < len(self.node.args) and not argument.kwarg_only:
                    return self.node.args[position]
                return self.node.kwargs.get(name, argument.default_value)
        return default

    def dims(self, node: Any) -> Dims:
        """The dimensions of an argument that is one tensor; empty for a number."""
        if not isinstance(node, Node):
            return ()
        value = self.values.get(node, ())
        return value if isinstance(value, tuple) else ()

    def shape(self, node: Node | None = None) -> tuple[int, ...]:
        """The concrete shape of ``node``, or of this op's own result."""
        return shape_of(node or self.node)

    def sizes(self, node: Node | None = None) -> tuple[int, ...]:
        """As ``shape``, for a batch of one."""
        return tuple(per_sample(s) for s in (node or self.node).meta["val"].shape)

    def glue(self, a: Axis | None, b: Axis | None, cause: str | None = None) -> None:
        """Tie two dimensions; see ``Atoms.glue``."""
        self.atoms.glue(a, b, cause or self._fixed(), self.node.name)

    def _fixed(self) -> str:
        """Why a dimension that meets an untracked one stays."""
        if any(node in self.reads for node in self.node.all_input_nodes):
            return "input"
        return f"{self.name} with a fixed size"

    def freeze(self, axis: Axis | None, cause: str) -> None:
        """Keep all of ``axis``."""
        self.atoms.freeze(axis, cause, self.node.name)

    def freeze_all(self, cause: str) -> None:
        """Keep everything that this node touches."""
        for argument in self.node.all_input_nodes:
            value = self.values.get(argument, ())
            for dims in [value] if isinstance(value, tuple) else value:
                for axis in dims:
                    self.freeze(axis, cause)

    def edit(self, change: Callable[[Node, Kept], None]) -> None:
        """Rewrite this node after a removal."""
        self.edits.append(Edit(self.node.name, change))

    def product(self, total: int, *axes: Axis | None) -> None:
        """Count ``total`` multiply-accumulates, in proportion to the kept part of ``axes``."""
        self.products.append(
            Product(self.node.name, total, tuple(a for a in axes if a is not None))
        )

    def untracked(self) -> Value:
        """A result in which nothing can be pruned."""
        value = self.node.meta.get("val")
        if isinstance(value, torch.Tensor):
            return (None,) * value.dim()
        if isinstance(value, (list, tuple)):
            return [(None,) * v.dim() if isinstance(v, torch.Tensor) else () for v in value]
        return ()

    def edit_sizes(self, name: str, dims: Dims) -> None:
        """Let the list argument ``name`` follow the kept sizes of ``dims``.

        Where an entry is computed in the graph from a symbolic size (batch times heads), it
        becomes -1, or, where another entry is -1 already, it is scaled by the kept share.
        """

        def change(node: Node, kept: Kept) -> None:
            new = sizes_of(node, name)
            inferred = any(isinstance(size, int) and size == -1 for size in new)
            for place, (axis, size) in enumerate(zip(dims, new, strict=True)):
                if axis is None or size == -1 or kept(axis) == axis.size:
                    continue
                if isinstance(size, int):
                    new[place] = kept(axis)
                elif inferred:
                    new[place] = _scaled(node, size, kept(axis), axis.size)
                else:
                    new[place], inferred = -1, True
            set_argument(node, name, new)

        self.edit(change)


def _scaled(node: Node, size: Node, part: int, whole: int) -> Node:
    """``size * part // whole`` as nodes before ``node``."""
    common = gcd(part, whole)
    with node.graph.inserting_before(node):
        times = node.graph.call_function(operator.mul, (size, part // common))
        return node.graph.call_function(operator.floordiv, (times, whole // common))


Rule: TypeAlias = Callable[[Op], Value]


def sizes_of(node: Node, name: str) -> list[Any]:
    """A list argument of a node, by its schema name."""
    position = _position(node, name)
    if position < len(node.args):
        return list(node.args[position])  # type: ignore[arg-type]
    return list(node.kwargs[name])  # type: ignore[arg-type]


def set_argument(node: Node, name: str, value: Any) -> None:
    """Set an argument by its schema name, wherever it stands."""
    position = _position(node, name)
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)


def _position(node: Node, name: str) -> int:
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    return next(i for i, a in enumerate(arguments) if a.name == name)
