# SPDX-License-Identifier: Apache-2.0
"""Shapes of what only moves values: reshape, transpose, cut, join, pad, gather."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from edgeprune.artifact.call import Call, Rule, Shape, Unknown, axis_of, broadcast, integers

__all__ = ["LAYOUT"]


def _reshape(call: Call) -> tuple[Shape, ...]:
    wanted = call.values(1) if call.has(1) else call.row("shape")
    if wanted is None:
        raise Unknown("its new shape isn't known")
    sizes: list[int | None] = []
    for at, size in enumerate(wanted):
        copied = size == 0 and not call.integer("allowzero", 0)
        sizes.append(call.shape(0)[at] if copied else None if size is None else int(size))
    if sizes.count(-1) == 1:
        rest = prod(integers(size for size in sizes if size != -1))
        sizes[sizes.index(-1)] = prod(call.sizes(0)) // rest if rest else 0
    return (tuple(sizes),)


def _flatten(call: Call) -> tuple[Shape, ...]:
    shape, axis = call.sizes(0), call.integer("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return ((prod(shape[:axis]), prod(shape[axis:])),)


def _transpose(call: Call) -> tuple[Shape, ...]:
    shape = call.shape(0)
    order = call.row("perm") or tuple(reversed(range(len(shape))))
    return (tuple(shape[axis_of(axis, len(shape))] for axis in order),)


def _squeeze(call: Call) -> tuple[Shape, ...]:
    shape, axes = call.shape(0), call.listed("axes", 1)
    if axes is None:
        return (tuple(size for size in call.sizes(0) if size != 1),)
    gone = {axis_of(axis, len(shape)) for axis in axes}
    return (tuple(size for at, size in enumerate(shape) if at not in gone),)


def _unsqueeze(call: Call) -> tuple[Shape, ...]:
    shape, axes = list(call.shape(0)), call.listed("axes", 1) or ()
    for axis in sorted(axis_of(a, len(shape) + len(axes)) for a in axes):
        shape.insert(axis, 1)
    return (tuple(shape),)


def _concat(call: Call, indices: range | None = None) -> tuple[Shape, ...]:
    shapes = [call.shape(index) for index in indices or range(len(call.inputs))]
    axis = axis_of(call.integer("axis", 1), len(shapes[0]))
    along = [shape[axis] for shape in shapes]
    joined = None if None in along else sum(integers(along))
    return ((*shapes[0][:axis], joined, *shapes[0][axis + 1 :]),)


def _qconcat(call: Call) -> tuple[Shape, ...]:
    return _concat(call, range(2, len(call.inputs), 3))


def _split(call: Call) -> tuple[Shape, ...]:
    shape, parts = call.shape(0), call.listed("split", 1)
    axis = axis_of(call.integer("axis", 0), len(shape))
    if parts is None:
        count, size = len(call.operator.outputs), call.sizes(0)[axis]
        whole = -(-size // count)
        parts = tuple(min(whole, size - whole * at) for at in range(count))
    return tuple((*shape[:axis], part, *shape[axis + 1 :]) for part in parts)


def _slice(call: Call) -> tuple[Shape, ...]:
    shape = list(call.shape(0))
    starts, ends = call.listed("starts", 1), call.listed("ends", 2)
    if starts is None or ends is None:
        raise Unknown("where it cuts isn't known")
    axes = call.listed("axes", 3) or tuple(range(len(starts)))
    steps = call.numbers(4) if call.has(4) else (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = axis_of(axis, len(shape))
        size = shape[at]
        if size is not None:
            shape[at] = len(range(*slice(start, end, step).indices(size)))
        elif (start, end, step) != (0, 2**63 - 1, 1):
            shape[at] = None
    return (tuple(shape),)


def _gather(call: Call) -> tuple[Shape, ...]:
    shape, picked = call.shape(0), call.shape(1)
    axis = axis_of(call.integer("axis", 0), len(shape))
    return ((*shape[:axis], *picked, *shape[axis + 1 :]),)


def _gather_nd(call: Call) -> tuple[Shape, ...]:
    shape, picked = call.shape(0), call.shape(1)
    depth = integers(picked[-1:])[0] + call.integer("batch_dims", 0)
    return ((*picked[:-1], *shape[depth:]),)


def _like_second(call: Call) -> tuple[Shape, ...]:
    return (call.shape(1),)


def _expand(call: Call) -> tuple[Shape, ...]:
    return (broadcast([call.shape(0), integers(call.values(1))]),)


def _tile(call: Call) -> tuple[Shape, ...]:
    return (tuple(a * b for a, b in zip(call.sizes(0), call.numbers(1), strict=True)),)


def _pad(call: Call) -> tuple[Shape, ...]:
    shape = list(call.shape(0))
    pads = call.listed("pads", 1)
    if pads is None:
        raise Unknown("its padding isn't known")
    axes = call.numbers(3) if call.has(3) else tuple(range(len(shape)))
    for at, axis in enumerate(axes):
        place = axis_of(axis, len(shape))
        size = shape[place]
        shape[place] = None if size is None else size + pads[at] + pads[at + len(axes)]
    return (tuple(shape),)


def _resize(call: Call) -> tuple[Shape, ...]:
    shape, sizes_at = call.sizes(0), 3
    axes = call.row("axes") or tuple(range(len(shape)))
    result = list(shape)
    if call.has(sizes_at):
        if call.text("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise Unknown("it keeps the aspect ratio")
        for axis, size in zip(axes, call.numbers(sizes_at), strict=True):
            result[axis] = size
        return (tuple(result),)
    at = 1 if call.version < 11 or call.operator.type == "Upsample" else 2
    listed = call.attribute("scales")
    scales = call.values(at) if call.has(at) else listed if isinstance(listed, tuple) else ()
    for axis, scale in zip(axes, scales, strict=True):
        if not isinstance(scale, int | float):
            raise Unknown("its scales aren't known")
        result[axis] = int(shape[axis] * scale)
    return (tuple(result),)


def _depth_to_space(call: Call) -> tuple[Shape, ...]:
    (n, c, h, w), block = call.sizes(0), call.integer("blocksize")
    return ((n, c // block**2, h * block, w * block),)


def _space_to_depth(call: Call) -> tuple[Shape, ...]:
    (n, c, h, w), block = call.sizes(0), call.integer("blocksize")
    return ((n, c * block**2, h // block, w // block),)


def _grid_sample(call: Call) -> tuple[Shape, ...]:
    return ((*call.shape(0)[:2], *call.shape(1)[1:-1]),)


LAYOUT: Mapping[str, Rule] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _like_second,
    "GatherND": _gather_nd,
    "GridSample": _grid_sample,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _resize,
    "com.microsoft.QLinearConcat": _qconcat,
}
