# SPDX-License-Identifier: Apache-2.0
"""Views: the same elements under other dimensions."""

from math import prod
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from edgeprune.channels.atoms import Axis, Dims
from edgeprune.channels.op import Kept, Op, Rule, Value, set_argument
from edgeprune.channels.policy import feeds_attention, prunable_factor
from edgeprune.channels.shapes import Block, blocks

__all__ = ["RULES", "regroup"]

_LARGEST = 1 << 24
"""Elements of a merged axis beyond which it is left whole rather than laid out in memory."""


def reshape(op: Op) -> Value:
    """``view``, ``reshape``, ``flatten``, ``unflatten``: dimensions merge and split."""
    source = op.source
    out = regroup(op, op.dims(source), op.shape(source), op.shape())
    if op.name == "unflatten":
        start = op.argument("dim") % len(op.dims(source))
        op.edit_sizes("sizes", out[start : start + len(op.argument("sizes"))])
    elif op.name not in ("flatten", "ravel"):
        op.edit_sizes("shape" if op.name == "reshape" else "size", out)
    return out


def like_other(op: Op) -> Value:
    """``reshape_as``, ``view_as``, ``expand_as``: the sizes are those of another tensor, so its
    dimensions and the result's live together."""
    other = op.argument("other")
    dims, before = op.dims(op.source), op.shape(op.source)
    if op.name == "expand_as":
        lead = len(op.shape()) - len(before)
        out = tuple(
            dims[i - lead] if i >= lead and before[i - lead] == size else axis
            for i, (size, axis) in enumerate(zip(op.shape(), op.dims(other), strict=True))
        )
    else:
        out = regroup(op, dims, before, op.shape())
    for axis, its in zip(out, op.dims(other), strict=True):
        op.glue(axis, its)
    return tuple(a if b is not None else None for a, b in zip(out, op.dims(other), strict=True))


def regroup(op: Op, dims: Dims, before: tuple[int, ...], after: tuple[int, ...]) -> Dims:
    """Carry atoms through a reshape from sizes ``before`` to ``after``."""
    out: list[Axis | None] = [None] * len(after)
    parts = blocks(before, after)
    if parts is None:
        op.freeze_all("empty tensor")
        return tuple(out)
    for block in parts:
        flat = _merge(op, dims, before, block)
        if flat is None:
            continue
        if len(block.outputs) == 1:
            out[block.outputs[0]] = flat
        else:
            sizes = tuple(after[j] for j in block.outputs)
            place, axis = _split(op, flat, sizes)
            out[block.outputs[place]] = axis
    return tuple(out)


def _merge(op: Op, dims: Dims, before: tuple[int, ...], block: Block) -> Axis | None:
    tracked = [i for i in block.inputs if dims[i] is not None]
    if not tracked:
        return None
    # One factor of a flat axis can be pruned; where two could be, the longer one stays prunable.
    # Of a convolution's weight (standardised before its use) that is never the kernel.
    rows = [i for i in tracked if i < 2] if op.source in op.weights and len(dims) > 2 else []
    chosen = max(rows or tracked, key=lambda i: before[i])
    for i in tracked:
        if i != chosen:
            op.freeze(dims[i], "flattened with another prunable axis")
    axis = dims[chosen]
    assert axis is not None
    sizes = [before[i] for i in block.inputs]
    if prod(sizes) > _LARGEST:
        op.freeze(axis, "flattened into a very long axis")
        return None
    place = block.inputs.index(chosen)
    shape = [1] * len(sizes)
    shape[place] = sizes[place]
    return np.ascontiguousarray(np.broadcast_to(axis.reshape(shape), sizes)).reshape(-1)


def _split(op: Op, flat: Axis, sizes: tuple[int, ...]) -> tuple[int, Axis]:
    table = flat.reshape(sizes)
    for place in range(len(sizes)):
        line = np.moveaxis(table, place, 0).reshape(sizes[place], -1)
        if sizes[place] > 1 and (line == line[:, :1]).all():
            return place, np.ascontiguousarray(line[:, 0])
    place = prunable_factor(sizes, feeds_attention(op.node), op.policy)
    return place, op.atoms.fold(flat, sizes, place)


def permute(op: Op) -> Value:
    """All reorderings of dimensions."""
    source = op.source
    dims = op.dims(source)
    order = _order(op, len(dims))
    return tuple(dims[i] for i in order)


def _order(op: Op, rank: int) -> list[int]:
    if op.name == "permute":
        return [d % rank for d in op.argument("dims")]
    order = list(range(rank))
    if op.name in ("transpose", "transpose_", "swapaxes", "swapdims"):
        names = ("dim0", "dim1") if op.argument("dim0") is not None else ("axis0", "axis1")
        a, b = (op.argument(n) % rank for n in names)
        order[a], order[b] = order[b], order[a]
        return order
    if op.name in ("movedim", "moveaxis"):
        source = [d % rank for d in np.atleast_1d(op.argument("source"))]
        goal = [d % rank for d in np.atleast_1d(op.argument("destination"))]
        rest = iter(i for i in range(rank) if i not in source)
        back = dict(zip(goal, source, strict=True))
        return [int(back[i]) if i in back else next(rest) for i in range(rank)]
    if rank >= 2:  # t, mT, numpy_T of a matrix
        order[-2], order[-1] = order[-1], order[-2]
    return order


def squeeze(op: Op) -> Value:
    """Dimensions of size one go; one that pruning leaves with a single index stays."""
    source = op.source
    dims, shape = op.dims(source), op.shape(source)
    chosen = op.argument("dim")
    over = range(len(dims)) if chosen is None else np.atleast_1d(chosen)
    gone = {int(d) % len(dims) for d in over if shape[int(d)] == 1}
    left = [dims[d] for d in over if shape[d] != 1]

    def change(node: Node, kept: Kept) -> None:
        if any(axis is not None and kept(axis) == 1 for axis in left):
            node.target = torch.ops.aten.squeeze.dims
            node.args, node.kwargs = (node.args[0], sorted(gone)), {}

    op.edit(change)
    return tuple(axis for i, axis in enumerate(dims) if i not in gone)


def unsqueeze(op: Op) -> Value:
    """A dimension of size one comes."""
    dims = op.dims(op.source)
    place = op.argument("dim") % (len(dims) + 1)
    return (*dims[:place], None, *dims[place:])


def expand(op: Op) -> Value:
    """Broadcast made explicit: a size written as a literal can follow its neighbours."""
    source = op.source
    dims, before, after = op.dims(source), op.shape(source), op.shape()
    sizes = op.argument("size")
    lead = len(after) - len(before)
    out: list[Axis | None] = []
    for place, size in enumerate(after):
        old = place - lead
        if old >= 0 and before[old] == size:
            out.append(dims[old])
        else:
            literal = isinstance(sizes[place], int) and size > 1
            out.append(op.atoms.fresh(size) if literal else None)
    op.edit_sizes("size", tuple(out))
    return tuple(out)


def repeat(op: Op) -> Value:
    """``repeat``: an axis laid end to end with itself; one entry repeated follows its neighbours,
    as in ``expand``."""
    source = op.source
    dims, before, after = op.dims(source), op.shape(source), op.shape()
    lead = len(after) - len(before)
    name = "repeats" if op.name == "repeat" else "dims"
    times = op.argument(name)
    skip = len(after) - len(times)
    out: list[Axis | None] = []
    for place, size in enumerate(after):
        axis = dims[place - lead] if place >= lead else None
        once = place < lead or before[place - lead] == 1
        if once and place >= skip and isinstance(times[place - skip], int):
            out.append(op.atoms.fresh(size) if size > 1 else axis)
        else:
            out.append(None if axis is None else np.tile(axis, size // axis.size))
    single = [place >= lead and before[place - lead] != 1 for place in range(len(after))]
    op.edit_sizes(name, tuple(None if s else a for s, a in zip(single, out, strict=True))[skip:])
    return tuple(out)


def repeat_interleave(op: Op) -> Value:
    """Each index several times in a row.

    Raises:
        ValueError: The count is a tensor, or all dimensions are flattened.
    """
    dims = list(op.dims(op.source))
    times, place = op.argument("repeats"), op.argument("dim")
    if place is None or not isinstance(times, int):
        raise ValueError("counts by value")
    axis = dims[place]
    if axis is not None:
        dims[place] = np.repeat(axis, times)
        op.edit(lambda node, _: node.update_kwarg("output_size", None))
    return tuple(dims)


def as_complex(op: Op) -> Value:
    """Pairs become complex numbers."""
    dims = op.dims(op.source)
    op.freeze(dims[-1], "real and imaginary part")
    return dims[:-1]


def as_real(op: Op) -> Value:
    """Complex numbers become pairs."""
    return (*op.dims(op.source), None)


def flip(op: Op) -> Value:
    """Reversed dimensions."""
    dims = list(op.dims(op.source))
    for d in op.argument("dims"):
        axis = dims[d]
        dims[d] = None if axis is None else np.ascontiguousarray(axis[::-1])
    return tuple(dims)


def filled(op: Op) -> Value:
    """Tensors made from a literal size and one value."""
    sizes = op.argument("size")
    out = tuple(
        op.atoms.fresh(size) if isinstance(size, int) and size > 1 else None for size in sizes
    )
    op.edit_sizes("size", out)
    return out


def pad(op: Op) -> Value:
    """Constant padding; on a prunable axis the padded places are atoms of their own, so a
    zero-padded shortcut prunes with the channels that it is added to."""
    source = op.source
    dims = list(op.dims(source))
    amounts: list[Any] = list(op.argument("pad"))
    constant = op.argument("mode", "constant") == "constant"
    edited: list[tuple[int, Axis, Axis]] = []
    for pair in range(len(amounts) // 2):
        place = len(dims) - 1 - pair
        axis, before, after = dims[place], amounts[2 * pair], amounts[2 * pair + 1]
        if axis is None or (before == 0 and after == 0):
            continue
        if not constant or not all(isinstance(a, int) and a >= 0 for a in (before, after)):
            op.freeze(axis, "padding that isn't constant")
            dims[place] = None
            continue
        left, right = op.atoms.fresh(before), op.atoms.fresh(after)
        dims[place] = np.concatenate([left, axis, right])
        edited.append((pair, left, right))

    def change(node: Node, kept: Kept) -> None:
        new = list(amounts)
        for pair, left, right in edited:
            new[2 * pair : 2 * pair + 2] = [kept(left), kept(right)]
        set_argument(node, "pad", new)

    if edited:
        op.edit(change)
    return tuple(dims)


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ["view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_copy", "ravel"], reshape
    ),
    **dict.fromkeys(["reshape_as", "view_as", "expand_as"], like_other),
    **dict.fromkeys(
        ["permute", "transpose", "transpose_", "t", "mT", "numpy_T", "swapaxes", "swapdims",
         "movedim", "moveaxis"],
        permute,
    ),
    "squeeze": squeeze,
    "squeeze_": squeeze,
    "unsqueeze": unsqueeze,
    "unsqueeze_": unsqueeze,
    "expand": expand,
    "repeat": repeat,
    "tile": repeat,
    "repeat_interleave": repeat_interleave,
    "view_as_complex": as_complex,
    "view_as_real": as_real,
    "flip": flip,
    **dict.fromkeys(
        ["zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty", "rand",
         "randn"],
        filled,
    ),
    "pad": pad,
    "constant_pad_nd": pad,
}  # fmt: skip
