# SPDX-License-Identifier: Apache-2.0
"""The weights that a mask may cover: those that multiply, in the order of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any

from torch.fx import Node

from edgeprune.channels import analyse
from edgeprune.channels.memory import operator_name
from edgeprune.errors import InputError, nearest
from edgeprune.model import Model

__all__ = ["Layer", "Network", "look"]

_VIEWS = frozenset(
    {"alias", "clone", "contiguous", "expand", "permute", "reshape", "squeeze", "t", "to"}
    | {"transpose", "unflatten", "unsqueeze", "view"}
)
"""Operators that show a weight in another form without mixing its values."""
_RECURRENT = frozenset({"gru", "gru_cell", "lstm", "lstm_cell", "rnn_relu", "rnn_relu_cell"})
_RECURRENT_TOO = frozenset({"rnn_tanh", "rnn_tanh_cell"})


@dataclass(frozen=True)
class Layer:
    """A weight of two dimensions or more that is an operand of multiply-accumulates."""

    name: str
    """As in the state dict."""
    shape: tuple[int, ...]
    op: str
    """The operator that uses it first: ``conv2d``, ``linear``, ``matmul``, ``lstm`` ..."""
    out_dim: int
    """The dimension of the weight that counts outputs."""
    in_dim: int
    """The dimension of the weight that counts inputs (of one group, where there are groups)."""
    macs: int
    """Multiply-accumulates of one sample with all weights, summed over all uses."""
    nodes: tuple[str, ...]
    """The nodes that use it."""

    @property
    def size(self) -> int:
        """How many weights there are."""
        return prod(self.shape)


@dataclass(frozen=True)
class Network:
    """What a mask and its costs need to know of a model."""

    layers: tuple[Layer, ...]
    """In the order of the graph; a weight that is used twice stands once."""
    fixed: int
    """Multiply-accumulates of one sample that no mask can save: products of two activations, or
    with a weight that is computed or excluded."""

    @property
    def size(self) -> int:
        """All weights that a mask may cover."""
        return sum(layer.size for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample, all weights kept."""
        return self.fixed + sum(layer.macs for layer in self.layers)

    def __getitem__(self, name: str) -> Layer:
        """The layer of a weight.

        Raises:
            KeyError: There is none of that name.
        """
        return {layer.name: layer for layer in self.layers}[name]


def look(model: Model, exclude: Sequence[str] = ()) -> Network:
    """Find the weights that a mask may cover.

    Those are the parameters, as they are or transposed, that a convolution, a linear layer, a
    matrix product or a recurrent layer multiplies with. Norms, biases and embedding tables aren't
    among them.

    Args:
        model: Any float model.
        exclude: Shell patterns over names of weights that stay dense.

    Raises:
        InputError: A pattern fits no weight, or no weight is left.
    """
    products: dict[str, int] = {}
    for product in analyse(model).walk.products:
        products[product.node] = products.get(product.node, 0) + product.total
    found: dict[str, Layer] = {}
    for node in model.program.graph.nodes:
        if node.name in products:
            for layer in _used(model, node, products[node.name]):
                found[layer.name] = _joined(found.get(layer.name), layer)
    if not found:
        raise InputError("the model has no weights that a mask could cover")
    kept = [layer for layer in found.values() if not _matches(layer.name, exclude)]
    _check_patterns(exclude, found)
    if not kept:
        raise InputError(f"--exclude {' '.join(exclude)}: no weight is left for a mask")
    layers = tuple(kept)
    return Network(layers, sum(products.values()) - sum(layer.macs for layer in layers))


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _check_patterns(patterns: Sequence[str], names: Iterable[str]) -> None:
    names = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"--exclude {pattern}: fits no weight{nearest(pattern, names)}")


def _joined(before: Layer | None, layer: Layer) -> Layer:
    if before is None:
        return layer
    return Layer(
        before.name,
        before.shape,
        before.op,
        before.out_dim,
        before.in_dim,
        before.macs + layer.macs,
        (*before.nodes, *layer.nodes),
    )


def _used(model: Model, node: Node, macs: int) -> Iterator[Layer]:
    """The weights that a node multiplies with, its cost shared among them by their sizes."""
    op = _op(node)
    recurrent = op in _RECURRENT | _RECURRENT_TOO
    weights: dict[str, tuple[int, ...] | None] = {}
    operands = list(node.all_input_nodes) if recurrent else _operands(node, op)
    for operand in operands:
        traced = _trace(model, operand)
        if traced is not None and len(_shape(model, traced[0])) > 1:
            weights[traced[0]] = traced[1]
    total = sum(prod(_shape(model, name)) for name in weights)
    for name, order in weights.items():
        shape = _shape(model, name)
        out, inner = _dims(op, len(shape), order)
        yield Layer(name, shape, op, out, inner, round(macs * prod(shape) / total), (node.name,))


def _operands(node: Node, op: str) -> list[Node]:
    """The arguments that are multiplied; an addend of ``addmm`` isn't."""
    given = [a for a in node.args if isinstance(a, Node)]
    if op in ("addmm", "baddbmm", "addbmm", "addmv"):
        return given[1:3]
    if op == "einsum":
        return list(node.all_input_nodes)
    return given[:2]


def _trace(model: Model, node: Node) -> tuple[str, tuple[int, ...] | None] | None:
    """The parameter behind views of it, and the order in which its last form has its dimensions
    (``None``: it was reshaped)."""
    steps: list[Node] = []
    while node.op == "call_function":
        if _op(node) not in _VIEWS:
            return None
        steps.append(node)
        source = node.args[0]
        if not isinstance(source, Node):
            return None
        node = source
    signature = model.program.graph_signature
    name = signature.inputs_to_parameters.get(node.name)
    if name is None:
        return None
    order: tuple[int, ...] | None = tuple(range(len(_shape(model, name))))
    for step in reversed(steps):
        order = _reordered(step, order)
    return name, order


def _reordered(step: Node, order: tuple[int, ...] | None) -> tuple[int, ...] | None:
    op = _op(step)
    if order is None or op in ("alias", "clone", "contiguous", "to"):
        return order
    if op == "t":
        return order[::-1]
    if op == "transpose":
        one, two = (int(d) % len(order) for d in step.args[1:3])  # type: ignore[arg-type]
        swapped = list(order)
        swapped[one], swapped[two] = order[two], order[one]
        return tuple(swapped)
    if op == "permute":
        return tuple(order[int(d) % len(order)] for d in step.args[1])  # type: ignore[union-attr, arg-type]
    if op in ("unsqueeze", "expand"):
        return _lengthened(op, step.args[1], order)
    return None


def _lengthened(op: str, given: Any, order: tuple[int, ...]) -> tuple[int, ...]:
    """``order`` with -1 for the dimensions that a view adds."""
    if op == "expand":
        return (-1,) * (len(given) - len(order)) + order
    place = given % (len(order) + 1)
    return (*order[:place], -1, *order[place:])


def _dims(op: str, rank: int, order: tuple[int, ...] | None) -> tuple[int, int]:
    """Which dimensions of the stored weight count outputs and inputs."""
    if op.startswith("conv_transpose"):
        return 1, 0
    if order is None:
        return 0, 1
    if op.startswith("conv") or op == "linear":
        return (order[0], order[1]) if -1 not in order[:2] else (0, 1)
    if op in ("addmm", "bmm", "matmul", "mm", "baddbmm", "mv") and -1 not in order[-2:]:
        return order[-1], order[-2]
    return (0, 1) if rank == len(order) else (0, rank - 1)


def _op(node: Node) -> str:
    """The operator, in place or not."""
    return operator_name(node).rstrip("_")


def _shape(model: Model, name: str) -> tuple[int, ...]:
    state = {**model.program.state_dict, **model.program.constants}
    return tuple(state[name].shape)
