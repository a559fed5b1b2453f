# SPDX-License-Identifier: Apache-2.0
"""Tensors laid end to end, cut, and picked from."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from edgeprune.channels.atoms import Axis, Dims
from edgeprune.channels.op import Kept, Op, Rule, Value

__all__ = ["RULES"]


def cat(op: Op) -> Value:
    """Atoms end to end along one dimension, glued along the others."""
    nodes = op.argument("tensors")
    parts = [op.dims(n) for n in nodes]
    rank = max(len(p) for p in parts)
    place = (op.argument("dim") or 0) % rank
    kept = [(n, p) for n, p in zip(nodes, parts, strict=True) if len(p) == rank]
    out = list(_glued(op, [p for _, p in kept], skip=place))
    if any(_wide(p[place]) for _, p in kept):
        pieces = [_tracked(op, p[place], op.shape(n)[place]) for n, p in kept]
        out[place] = np.concatenate(pieces)
    return tuple(out)


def _wide(axis: Axis | None) -> bool:
    return axis is not None and axis.size > 1


def _tracked(op: Op, axis: Axis | None, size: int) -> Axis:
    if axis is not None:
        return axis
    fixed = op.atoms.fresh(size)
    op.freeze(fixed, "an input of cat")
    return fixed


def _glued(op: Op, parts: list[Dims], skip: int | None) -> Dims:
    out: list[Axis | None] = list(parts[0])
    for part in parts[1:]:
        for i, axis in enumerate(part):
            if i != skip:
                op.glue(out[i], axis)
                out[i] = out[i] if axis is not None else None
    if skip is not None:
        out[skip] = None
    return tuple(out)


def stack(op: Op) -> Value:
    """As ``cat`` along a new dimension."""
    parts = [op.dims(n) for n in op.argument("tensors")]
    out = _glued(op, parts, skip=None)
    place = (op.argument("dim") or 0) % (len(out) + 1)
    return (*out[:place], None, *out[place:])


def split(op: Op) -> Value:
    """``split``, ``chunk`` and their kin; sizes follow what is left of each part."""
    source = op.source
    dims = op.dims(source)
    place = _split_place(op, len(dims))
    values = op.node.meta["val"]
    axis = dims[place]
    if axis is None:
        return [dims for _ in values]
    bounds = np.cumsum([0, *(int(v.shape[place]) for v in values)])
    parts = [axis[a:b] for a, b in pairwise(bounds)]
    op.atoms.pieces.extend(parts)

    def change(node: Node, kept: Kept) -> None:
        sizes = [kept(part) for part in parts]
        node.target = torch.ops.aten.split_with_sizes.default
        node.args, node.kwargs = (node.args[0], sizes, place), {}

    op.edit(change)
    return [(*dims[:place], part, *dims[place + 1 :]) for part in parts]


def _split_place(op: Op, rank: int) -> int:
    named = {"hsplit": 0 if rank == 1 else 1, "vsplit": 0, "dsplit": 2}
    return named.get(op.name, int(op.argument("dim") or 0) % rank)


def unbind(op: Op) -> Value:
    """One tensor for each index."""
    dims = op.dims(op.source)
    place = (op.argument("dim") or 0) % len(dims)
    op.freeze(dims[place], "literal")
    return [(*dims[:place], *dims[place + 1 :]) for _ in op.node.meta["val"]]


def getitem(op: Op) -> Value:
    """One tensor of a list."""
    source, index = op.node.args
    value = op.values.get(source) if isinstance(source, Node) else None
    if isinstance(value, list) and isinstance(index, int):
        return value[index]
    op.freeze_all("literal")
    return op.untracked()


def slice_(op: Op) -> Value:
    """A range of indices."""
    step = op.argument("step") or 1
    return _range(op, op.argument("start"), op.argument("end"), step)


def narrow(op: Op) -> Value:
    """``narrow``: a range by start and length."""
    start, length = op.argument("start"), op.argument("length")
    known = isinstance(start, int) and isinstance(length, int)
    return _range(op, start, start + length if known and start + length else None)


def _range(op: Op, start: Any, end: Any, step: int = 1) -> Value:
    """The bounds of a range follow what is left before and in it."""
    source = op.source
    dims = op.dims(source)
    place = (op.argument("dim") or 0) % len(dims)
    axis = dims[place]
    if axis is None or (op.shape() == op.shape(source) and step == 1):
        return dims
    if step != 1 or not all(b is None or isinstance(b, int) for b in (start, end)):
        op.freeze(axis, "literal")
        return (*dims[:place], None, *dims[place + 1 :])
    first, last, _ = slice(start, end).indices(axis.size)
    part, before = axis[first:last], axis[:first]
    op.atoms.pieces.append(part)

    def change(node: Node, kept: Kept) -> None:
        node.target = torch.ops.aten.slice.Tensor
        node.args = (node.args[0], place, kept(before), kept(before) + kept(part))
        node.kwargs = {}

    op.edit(change)
    return (*dims[:place], part, *dims[place + 1 :])


RULES: dict[str, Rule] = {
    "cat": cat,
    "concat": cat,
    "concatenate": cat,
    "stack": stack,
    **dict.fromkeys(
        [
            "split",
            "split_with_sizes",
            "chunk",
            "tensor_split",
            "hsplit",
            "vsplit",
            "dsplit",
            "unsafe_split",
            "unsafe_chunk",
            "unsafe_split_with_sizes",
        ],
        split,
    ),
    "unbind": unbind,
    "getitem": getitem,
    "slice": slice_,
    "narrow": narrow,
    "narrow_copy": narrow,
}
