# SPDX-License-Identifier: Apache-2.0
"""Shapes in a TFLite file that leaves sizes open: a size of -1 in a shape signature.

A converter writes 1 for such a size of any tensor, which counts nothing. So they are worked out
from the inputs, operator by operator; what has no rule keeps the sizes that the file does tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

from edgeprune.artifact.call import (
    FAILURES,
    Call,
    Gap,
    Number,
    Shape,
    Unknown,
    axis_of,
    broadcast,
    closed,
    integers,
    possible,
)
from edgeprune.artifact.graph import Dims, Graph, Tensor, elements
from edgeprune.artifact.operators import ARITHMETIC
from edgeprune.artifact.shape_layout import LAYOUT
from edgeprune.artifact.shape_values import VALUES

__all__ = ["worked_out"]

Rule = Callable[[Call], Sequence[Shape]]


def worked_out(graph: Graph, inputs: Mapping[str, Dims]) -> tuple[Graph, tuple[Gap, ...]]:
    """The graph with the sizes that follow from those of its inputs, and where none do."""
    tensors = dict(graph.tensors)
    gaps = []
    for name, shape in inputs.items():
        tensors[name] = tensors[name]._replace(shape=shape)
    for operator in graph.operators:
        call = Call(
            operator, tuple(tensors.get(name) if name else None for name in operator.inputs)
        )
        declared = [tensors[name] for name in operator.outputs if name]
        shapes: list[Shape] = []
        try:
            rule = _RULES.get(operator.type)
            if rule is None:
                raise Unknown("there is no rule for its shape")
            shapes = [possible(shape) for shape in rule(call)]
        except FAILURES as error:
            if any(None in (tensor.shape or ()) for tensor in declared):
                gaps.append(Gap.of(operator, error))
        for at, tensor in enumerate(declared):
            found = shapes[at] if at < len(shapes) else None
            tensor = tensor._replace(shape=_joined(found, tensor.shape))
            tensors[tensor.name] = tensor._replace(values=None if at else _values(call, tensor))
    return graph._replace(tensors=tensors), tuple(gaps)


def _joined(found: Shape | None, declared: Dims | None) -> Dims | None:
    """A declared size is believed; only those that are open are taken from the rule."""
    if found is None or declared is None or len(found) != len(declared):
        return declared
    pairs = zip(found, declared, strict=True)
    return tuple(mine if size is None else size for mine, size in pairs)


def _values(call: Call, tensor: Tensor) -> tuple[Number, ...] | None:
    """The elements of a small tensor of sizes."""
    shape = closed(tensor.shape or ())
    try:
        if call.operator.type == "PACK":
            values = tuple(v for at in range(len(call.inputs)) for v in call.values(at))
        elif call.operator.type == "STRIDED_SLICE":
            values = _sliced(call)
        else:
            rule = VALUES.get(_AS_ONNX.get(call.operator.type, ""))
            if rule is None or tensor.dtype not in ("int32", "int64"):
                return None
            values = rule(_as_onnx(call), shape)
    except FAILURES:
        return None
    return values if len(values) == elements(shape) else None


_AS_ONNX = {
    "ADD": "Add",
    "CAST": "Identity",
    "CONCATENATION": "Concat",
    "DIV": "Div",
    "EXPAND_DIMS": "Identity",
    "FLOOR_DIV": "Div",
    "GATHER": "Gather",
    "MAXIMUM": "Max",
    "MINIMUM": "Min",
    "MUL": "Mul",
    "REDUCE_PROD": "ReduceProd",
    "RESHAPE": "Identity",
    "SHAPE": "Shape",
    "SQUEEZE": "Identity",
    "SUB": "Sub",
    "SUM": "ReduceSum",
}
"""Operators that calculate with sizes as ONNX's do."""


def _as_onnx(call: Call, kind: str = "") -> Call:
    """The same operator with ONNX's name."""
    operator = call.operator
    return call._replace(operator=operator._replace(type=kind or _AS_ONNX[operator.type]))


def _same(call: Call) -> tuple[Shape, ...]:
    return (call.shape(0),)


def _together(call: Call) -> tuple[Shape, ...]:
    return (broadcast([call.shape(at) for at in range(len(call.inputs))]),)


def _window(call: Call, kernel: tuple[int, int], channels: int | None) -> tuple[Shape, ...]:
    """NHWC; SAME is 0, VALID is 1."""
    shape = call.shape(0)
    out: list[int | None] = [shape[0]]
    for size, span, side in zip(shape[1:3], kernel, "hw", strict=True):
        stride = call.integer(f"stride_{side}")
        reach = (span - 1) * call.integer(f"dilation_{side}", 1) + 1
        if size is None:
            out.append(None)
        elif call.integer("padding"):
            out.append((size - reach) // stride + 1)
        else:
            out.append(-(-size // stride))
    return ((*out, channels),)


def _conv(call: Call) -> tuple[Shape, ...]:
    weight = call.sizes(1)
    return _window(call, (weight[1], weight[2]), weight[0])


def _depthwise(call: Call) -> tuple[Shape, ...]:
    weight = call.sizes(1)
    return _window(call, (weight[1], weight[2]), weight[3])


def _pool(call: Call) -> tuple[Shape, ...]:
    window = (call.integer("filter_h"), call.integer("filter_w"))
    return _window(call, window, call.shape(0)[-1])


def _linear(call: Call) -> tuple[Shape, ...]:
    shape, (units, depth) = call.shape(0), call.sizes(1)
    if call.integer("keep_dims", 0):
        return ((*shape[:-1], units),)
    return ((prod(call.sizes(0)) // depth, units),)


def _batched(call: Call) -> tuple[Shape, ...]:
    left, right = list(call.shape(0)), list(call.shape(1))
    rows = left[-1 if call.integer("adj_x", 0) else -2]
    columns = right[-2 if call.integer("adj_y", 0) else -1]
    return ((*broadcast([tuple(left[:-2]), tuple(right[:-2])]), rows, columns),)


def _reduced(call: Call) -> tuple[Shape, ...]:
    shape, axes = call.shape(0), call.numbers(1)
    gone = {axis_of(axis, len(shape)) for axis in axes}
    if call.integer("keep_dims", 0):
        return (tuple(1 if at in gone else size for at, size in enumerate(shape)),)
    return (tuple(size for at, size in enumerate(shape) if at not in gone),)


def _reshape(call: Call) -> tuple[Shape, ...]:
    wanted = call.values(1) if call.has(1) else call.row("shape")
    if wanted is None:
        raise Unknown("its new shape isn't known")
    sizes = [None if size is None else int(size) for size in wanted]
    if sizes.count(-1) == 1:
        rest = prod(integers(size for size in sizes if size != -1))
        sizes[sizes.index(-1)] = prod(call.sizes(0)) // rest if rest else 0
    return (tuple(sizes),)


def _to_values(at: int) -> Rule:
    """The output's shape is the value of an input."""

    def rule(call: Call) -> tuple[Shape, ...]:
        return (tuple(None if size is None else int(size) for size in call.values(at)),)

    return rule


def _resized(call: Call) -> tuple[Shape, ...]:
    shape, size = call.shape(0), call.values(1)
    return ((shape[0], *(None if s is None else int(s) for s in size), shape[-1]),)


def _padded(call: Call) -> tuple[Shape, ...]:
    shape, pads = call.shape(0), call.numbers(1)
    pairs = zip(shape, pads[::2], pads[1::2], strict=True)
    return (tuple(None if size is None else size + a + b for size, a, b in pairs),)


def _transposed(call: Call) -> tuple[Shape, ...]:
    shape = call.shape(0)
    return (tuple(shape[axis_of(axis, len(shape))] for axis in call.numbers(1)),)


def _squeezed(call: Call) -> tuple[Shape, ...]:
    shape, axes = call.shape(0), call.row("axes")
    gone = {axis_of(axis, len(shape)) for axis in axes or ()}
    if not axes:
        gone = {at for at, size in enumerate(call.sizes(0)) if size == 1}
    return (tuple(size for at, size in enumerate(shape) if at not in gone),)


def _expanded(call: Call) -> tuple[Shape, ...]:
    shape = list(call.shape(0))
    shape.insert(axis_of(call.numbers(1)[0], len(shape) + 1), 1)
    return (tuple(shape),)


def _packed(call: Call) -> tuple[Shape, ...]:
    shape = list(call.shape(0))
    shape.insert(axis_of(call.integer("axis"), len(shape) + 1), len(call.inputs))
    return (tuple(shape),)


def _unpacked(call: Call) -> tuple[Shape, ...]:
    shape = list(call.shape(0))
    del shape[axis_of(call.integer("axis"), len(shape))]
    return (tuple(shape),) * len(call.operator.outputs)


def _split(call: Call) -> tuple[Shape, ...]:
    """The axis comes first; equal parts."""
    shape, count = list(call.shape(1)), len(call.operator.outputs)
    axis = axis_of(call.numbers(0)[0], len(shape))
    size = shape[axis]
    shape[axis] = None if size is None else size // count
    return (tuple(shape),) * count


def _split_by(call: Call) -> tuple[Shape, ...]:
    """The parts, one of which may be -1, and then the axis."""
    shape, parts = call.shape(0), call.numbers(1)
    axis = axis_of(call.numbers(2)[0], len(shape))
    size = shape[axis]
    rest = None if size is None else size - sum(part for part in parts if part >= 0)
    return tuple((*shape[:axis], rest if part < 0 else part, *shape[axis + 1 :]) for part in parts)


def _cut(call: Call) -> tuple[Shape, ...]:
    shape, begin, size = call.shape(0), call.numbers(1), call.numbers(2)
    triples = zip(shape, begin, size, strict=True)
    return (
        tuple(
            length if length >= 0 else None if whole is None else whole - start
            for whole, start, length in triples
        ),
    )


def _ranges(call: Call) -> tuple[list[slice], tuple[bool, ...]]:
    """What a strided slice takes of each axis, and which axes go."""
    if call.integer("ellipsis", 0) or call.integer("new_axis", 0):
        raise Unknown("only slices of the axes in their order are followed")
    shape = call.shape(0)
    begin, end, step = (call.numbers(at) for at in (1, 2, 3))
    taken, gone = [slice(None)] * len(shape), [False] * len(shape)
    for at, (first, last, stride) in enumerate(zip(begin, end, step, strict=True)):
        if call.integer("shrink", 0) >> at & 1:
            taken[at], gone[at] = slice(first, first + 1 or None), True
            continue
        start = None if call.integer("begin", 0) >> at & 1 else first
        stop = None if call.integer("end", 0) >> at & 1 else last
        taken[at] = slice(start, stop, stride)
    return taken, tuple(gone)


def _strided(call: Call) -> tuple[Shape, ...]:
    taken, gone = _ranges(call)
    out: list[int | None] = []
    for size, part, left_out in zip(call.shape(0), taken, gone, strict=True):
        if not left_out:
            out.append(None if size is None else len(range(*part.indices(size))))
    return (tuple(out),)


def _sliced(call: Call) -> tuple[Number, ...]:
    if len(call.sizes(0)) != 1:
        raise Unknown("only rows are followed")
    return call.values(0)[_ranges(call)[0][0]]


def _blocks(call: Call) -> tuple[Shape, ...]:
    """A block of places becomes channels, or the other way round."""
    batch, *sides, channels = call.sizes(0)
    block = call.integer("block")
    if call.operator.type == "SPACE_TO_DEPTH":
        return ((batch, *(side // block for side in sides), channels * block**2),)
    return ((batch, *(side * block for side in sides), channels // block**2),)


def _gathered(call: Call) -> tuple[Shape, ...]:
    if call.integer("batch_dims", 0):
        raise Unknown("only a gather without batch dimensions is followed")
    return LAYOUT["Gather"](_as_onnx(call, "Gather"))


def _joined_along(call: Call) -> tuple[Shape, ...]:
    return LAYOUT["Concat"](_as_onnx(call, "Concat"))


def _tiled(call: Call) -> tuple[Shape, ...]:
    pairs = zip(call.shape(0), call.numbers(1), strict=True)
    return (tuple(None if size is None else size * times for size, times in pairs),)


def _rank(call: Call) -> tuple[Shape, ...]:
    return ((len(call.shape(0)),),)


_SAME = """ABS CAST CEIL COS CUMSUM DEQUANTIZE ELU EXP FAKE_QUANT FLOOR GELU HARD_SWISH
    L2_NORMALIZATION LEAKY_RELU LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_NOT LOGISTIC LOG_SOFTMAX
    NEG PRELU QUANTIZE RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 REVERSE_V2 ROUND RSQRT SIGN SIN SOFTMAX
    SQRT SQUARE TANH ZEROS_LIKE"""
_TOGETHER = {"LOGICAL_AND", "LOGICAL_OR"} | {name for name in ARITHMETIC if name.isupper()}

_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_SAME.split(), _same),
    **dict.fromkeys(_TOGETHER, _together),
    **dict.fromkeys(
        ("MEAN", "REDUCE_ALL", "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"),
        _reduced,
    ),
    "AVERAGE_POOL_2D": _pool,
    "BATCH_MATMUL": _batched,
    "BROADCAST_TO": _to_values(1),
    "CONCATENATION": _joined_along,
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "DEPTH_TO_SPACE": _blocks,
    "EXPAND_DIMS": _expanded,
    "FILL": _to_values(0),
    "FULLY_CONNECTED": _linear,
    "GATHER": _gathered,
    "L2_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "MIRROR_PAD": _padded,
    "PACK": _packed,
    "PAD": _padded,
    "PADV2": _padded,
    "RESHAPE": _reshape,
    "RESIZE_BILINEAR": _resized,
    "RESIZE_NEAREST_NEIGHBOR": _resized,
    "SHAPE": _rank,
    "SLICE": _cut,
    "SPACE_TO_DEPTH": _blocks,
    "SPLIT": _split,
    "SPLIT_V": _split_by,
    "SQUEEZE": _squeezed,
    "STRIDED_SLICE": _strided,
    "TILE": _tiled,
    "TRANSPOSE": _transposed,
    "TRANSPOSE_CONV": _to_values(0),
    "UNPACK": _unpacked,
}
