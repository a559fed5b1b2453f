# SPDX-License-Identifier: Apache-2.0
"""Shapes of a changed graph, from a run on tensors that hold no data.

Its batch is a large prime, so that a multiple of it is a multiple of the batch. Where that is
not so for all the sizes, and only those, that were multiples of the batch before, nothing is said.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import SymInt, Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx import Graph, Interpreter, Node
from torch.types import py_sym_types as SymTypes
from torch.utils import _pytree as pytree

__all__ = ["reshape"]

_BATCH = 10007
"""A prime that no network has as a factor of a size; one that has is refused."""
_META, _CPU = torch.device("meta"), torch.device("cpu")


@dataclass(frozen=True)
class _Layout:
    """All that a tensor without data has."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


def reshape(graph: Graph, state: Mapping[str, Tensor]) -> None:
    """Write the shape of each value of ``graph`` anew into its ``meta["val"]``, in place.

    Args:
        graph: A program's, with one free size at most: the batch. Its inputs keep their shapes.
        state: The tensors of the other placeholders, by the placeholders' names.

    Raises:
        ValueError: A size that isn't fixed where it was, or isn't a multiple of the batch where it
            was; one that is computed and changed.
        RuntimeError: An operator doesn't fit its inputs, or needs data to tell its shape; so do
            ``TypeError``, ``IndexError``, ``KeyError`` and ``AssertionError``.
    """
    batch = _batch(graph, state)
    found = _run(graph, state)
    renewed = _Renewed(batch, _mode(graph))
    for node in graph.nodes:
        if node.op != "output":
            node.meta["val"] = renewed.value(node.meta.get("val"), found[node])


def _batch(graph: Graph, state: Mapping[str, Tensor]) -> SymInt | None:
    """The one free size of the inputs.

    Raises:
        ValueError: There are several, or it is computed from others.
    """
    found: dict[str, SymInt] = {}
    for node in graph.find_nodes(op="placeholder"):
        if node.name not in state:
            for size in getattr(node.meta["val"], "shape", ()):
                if isinstance(size, SymInt):
                    found[str(size)] = size
    if len(found) > 1 or not all(size.node.expr.is_Symbol for size in found.values()):
        raise ValueError("inputs with more than one free size")
    return next(iter(found.values()), None)


def _mode(graph: Graph) -> FakeTensorMode:
    """The mode that the values of ``graph`` are of.

    Raises:
        ValueError: It has none.
    """
    for node in graph.find_nodes(op="placeholder"):
        if isinstance(value := node.meta["val"], FakeTensor):
            return value.fake_mode
    raise ValueError("a graph without tensors")


def _run(graph: Graph, state: Mapping[str, Tensor]) -> dict[Node, Any]:
    given = []
    for node in graph.find_nodes(op="placeholder"):
        value = state.get(node.name, node.meta["val"])
        if node.name in state:
            value = _empty(_layout(value))
        elif isinstance(value, Tensor):
            shape = [_BATCH if isinstance(size, SymInt) else size for size in value.shape]
            value = torch.empty(shape, dtype=value.dtype, device=_META)
        given.append(value)
    runner = _Runner(graph)
    with torch.no_grad():
        runner.run(*given)
    return runner.found


class _Runner(Interpreter):
    """Runs a graph on meta tensors. What an operator gave for some shapes, it gives for equal ones:
    there is no data to depend on."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(nn.Module(), garbage_collect_values=False, graph=graph)
        self.found: dict[Node, Any] = {}
        """Each node's value, a layout for a tensor, as it was before later nodes wrote to it."""
        self._known: dict[Any, Any] = {}

    def run_node(self, n: Node) -> Any:
        """One node of the graph."""
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op == "call_function" and not _mutates(n.target):
            result = _as_laid(result, n.meta.get("val"))
        self.found[n] = pytree.tree_map_only(Tensor, _layout, result)
        return result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """One operator, without the device that it was captured for."""
        leaves, form = pytree.tree_flatten((args, kwargs))
        leaves = [_META if isinstance(value, torch.device) else value for value in leaves]
        args, kwargs = pytree.tree_unflatten(leaves, form)
        if not isinstance(target, torch._ops.OpOverload) or _mutates(target):
            return super().call_function(target, args, kwargs)
        key = (target, form, *map(_said, leaves))
        if key in self._known:
            return pytree.tree_map_only(_Layout, _empty, self._known[key])
        result = super().call_function(target, args, kwargs)
        given = {id(value) for value in leaves}
        if not any(id(value) in given for value in pytree.tree_leaves(result)):
            self._known[key] = pytree.tree_map_only(Tensor, _layout, result)
        return result


def _mutates(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and bool(target._schema.is_mutable)


def _as_laid(result: Tensor, old: Any) -> Tensor:
    """``result`` with its dimensions in the order in memory that they had: attention and
    convolution choose it by the device's kernel, which a device without data doesn't have."""
    if not isinstance(old, Tensor) or result.ndim != old.ndim:
        return result
    before = _order(old)
    if _order(result) == before or not _is_dense(old) or not _is_dense(result):
        return result
    stride = [1] * result.ndim
    step = 1
    for dim in reversed(before):
        stride[dim] = step
        step *= max(result.shape[dim], 1)
    return result.as_strided(result.shape, stride)


def _order(tensor: Tensor) -> list[int]:
    """The dimensions, from that with the largest step in memory to that with the smallest."""
    steps = _numbers(tensor.stride())
    return sorted(range(tensor.ndim), key=lambda dim: -steps[dim])


def _is_dense(tensor: Tensor) -> bool:
    """Whether it fills a piece of memory, each place once."""
    step = 1
    for stride, size in sorted(zip(_numbers(tensor.stride()), _numbers(tensor.shape), strict=True)):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


def _numbers(sizes: Sequence[Any]) -> list[int]:
    """Sizes as they are in the example batch."""
    return [size if isinstance(size, int) else size.node.hint for size in sizes]


def _layout(tensor: Tensor) -> _Layout:
    return _Layout(tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _empty(layout: _Layout) -> Tensor:
    return torch.empty_strided(layout.shape, layout.stride, dtype=layout.dtype, device=_META)


def _said(value: Any) -> Any:
    """What of an argument tells it from others: 1, 1.0 and True are three."""
    return _layout(value) if isinstance(value, Tensor) else (type(value), value)


class _Renewed:
    """New values for old ones, from what the run found."""

    def __init__(self, batch: SymInt | None, mode: FakeTensorMode) -> None:
        self._batch = batch
        self._mode = mode
        self._multiples: dict[int, Any] = {}

    def value(self, old: Any, found: Any) -> Any:
        """What a node's ``val`` is to be.

        Raises:
            ValueError: See ``reshape``.
        """
        if isinstance(found, _Layout):
            return self._tensor(old, found)
        if isinstance(found, list | tuple):
            before = old if isinstance(old, list | tuple) else [None] * len(found)
            pairs = zip(before, found, strict=True)
            return type(found)(self.value(*pair) for pair in pairs)
        if found is not None and self._at(old) != found:
            raise ValueError(f"a computed size changed: {old}")
        return old

    def _tensor(self, old: Any, found: _Layout) -> Tensor:
        shape = [self._size(size) for size in found.shape]
        stride = [self._size(size) for size in found.stride]
        if not isinstance(old, Tensor):
            return self._fake(shape, stride, found.dtype)
        if old.dtype != found.dtype or [*map(_is_free, old.shape)] != [*map(_is_free, shape)]:
            raise ValueError(f"{tuple(old.shape)} became {tuple(shape)}")
        if _same(old.shape, shape) and _same(old.stride(), stride):
            return old
        return self._fake(shape, stride, found.dtype).requires_grad_(old.requires_grad)

    def _fake(self, shape: Sequence[Any], stride: Sequence[Any], dtype: torch.dtype) -> Tensor:
        with self._mode.shape_env.suppress_guards() if self._mode.shape_env else nullcontext():
            empty = torch.empty_strided(shape, stride, dtype=dtype, device=_META)
        return FakeTensor(self._mode, empty, _CPU)

    def _size(self, size: int) -> Any:
        """A number, or a multiple of the batch."""
        factor, rest = divmod(size, _BATCH)
        if self._batch is None or rest or not factor:
            return size
        if factor not in self._multiples:
            self._multiples[factor] = factor * self._batch
        return self._multiples[factor]

    def _at(self, old: Any) -> Any:
        """A size that is computed in the graph, for the batch of the run."""
        if self._batch is None or not isinstance(old, SymTypes):
            return old
        return int(old.node.expr.subs(self._batch.node.expr, _BATCH))


def _is_free(size: Any) -> bool:
    return isinstance(size, SymInt)


def _same(old: Sequence[Any], new: Sequence[Any]) -> bool:
    """Whether sizes are the same expressions; asking with == would be noted as a guard."""
    return all(
        a == b if isinstance(a, int) and isinstance(b, int) else str(a) == str(b)
        for a, b in zip(old, new, strict=True)
    )
