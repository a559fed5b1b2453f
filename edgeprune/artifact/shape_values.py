# SPDX-License-Identifier: Apache-2.0
"""Values of the small integer tensors that shapes are computed with: Shape, Gather, Concat ...

A rule gives the elements of the first output; ``None`` is an element that isn't known.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

from edgeprune.artifact import limits
from edgeprune.artifact.call import Call, Number, Shape, Unknown, axis_of
from edgeprune.artifact.graph import Tensor, elements

__all__ = ["VALUES"]

Values = tuple[Number, ...]


def _shape_of(call: Call, out: Shape) -> Values:
    shape = call.shape(0)
    return shape[slice(call.integer("start", 0), call.integer("end", len(shape)))]


def _size(call: Call, out: Shape) -> Values:
    return (elements(call.shape(0)),)


def _pass(call: Call, out: Shape) -> Values:
    return call.values(0)


def _cast(call: Call, out: Shape) -> Values:
    whole = call.integer("to", 7) in (2, 3, 4, 5, 6, 7, 12, 13)
    return tuple(None if v is None else int(v) if whole else float(v) for v in call.values(0))


def _constant(call: Call, out: Shape) -> Values:
    count, fill = _count(out), call.attribute("value")
    values = fill.values if isinstance(fill, Tensor) else (0.0,)
    return (values[0] if values else None,) * count


def _count(shape: Shape) -> int:
    count = elements(shape)
    if count is None or count > limits.VALUES:
        raise Unknown("it has too many elements to follow")
    return count


def _grid(call: Call, index: int) -> tuple[Values, tuple[int, ...]]:
    return call.values(index), call.sizes(index)


def _pairs(call: Call, out: Shape, function: Callable[..., Any]) -> Values:
    """Element by element; both inputs as large as the output, or of one element."""
    count = _count(out)
    rows = []
    for index in range(len(call.inputs)):
        values = call.values(index)
        if len(values) not in (1, count):
            raise Unknown("its inputs differ in size")
        rows.append(values * count if len(values) == 1 else values)
    return tuple(None if None in row else _kept(function(*row)) for row in zip(*rows, strict=True))


def _kept(value: Any) -> Number:
    if isinstance(value, int) and abs(value) > 2**63:
        raise Unknown("a value of more than 64 bits")
    return value if isinstance(value, int | float) else None


def _divide(a: Any, b: Any) -> Any:
    """As C divides: integers towards zero."""
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _each(function: Callable[..., Any]) -> Callable[[Call, Shape], Values]:
    return lambda call, out: _pairs(call, out, function)


def _where(call: Call, out: Shape) -> Values:
    return _pairs(call, out, lambda test, yes, no: yes if test else no)


def _concat(call: Call, out: Shape) -> Values:
    if len(out) != 1:
        raise Unknown("only rows are followed")
    joined = tuple(v for index in range(len(call.inputs)) for v in call.values(index))
    _count((len(joined),))
    return joined


def _gather(call: Call, out: Shape) -> Values:
    values, sizes = _grid(call, 0)
    if len(sizes) != 1:
        raise Unknown("only rows are followed")
    return tuple(values[axis_of(index, len(values))] for index in call.numbers(1))


def _slice(call: Call, out: Shape) -> Values:
    values, sizes = _grid(call, 0)
    starts, ends = call.listed("starts", 1), call.listed("ends", 2)
    if starts is None or ends is None:
        raise Unknown("where it cuts isn't known")
    axes = call.listed("axes", 3) or tuple(range(len(starts)))
    steps = call.numbers(4) if call.has(4) else (1,) * len(starts)
    picked = [range(size) for size in sizes]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at = axis_of(axis, len(sizes))
        picked[at] = picked[at][slice(start, end, step)]
    return tuple(values[_flat(place, sizes)] for place in product(*picked))


def _transpose(call: Call, out: Shape) -> Values:
    values, sizes = _grid(call, 0)
    order = call.row("perm") or tuple(reversed(range(len(sizes))))
    back = [order.index(axis) for axis in range(len(sizes))]
    places = product(*(range(sizes[axis]) for axis in order))
    return tuple(values[_flat([place[at] for at in back], sizes)] for place in places)


def _flat(place: Sequence[int], sizes: tuple[int, ...]) -> int:
    """Where an element lies in the row of all elements."""
    index = 0
    for at, size in zip(place, sizes, strict=True):
        index = index * size + at
    return index


def _split(call: Call, out: Shape) -> Values:
    values, _ = _grid(call, 0)
    return values[: _count(out)]


def _range(call: Call, out: Shape) -> Values:
    _count(out)
    start, stop, step = (call.numbers(at)[0] for at in range(3))
    return tuple(range(start, stop, step))


def _expand(call: Call, out: Shape) -> Values:
    values, count = call.values(0), _count(out)
    if len(values) not in (1, count):
        raise Unknown("only single values are followed")
    return values * count if len(values) == 1 else values


def _reduce(function: Callable[[Sequence[Any]], Any]) -> Callable[[Call, Shape], Values]:
    def rule(call: Call, out: Shape) -> Values:
        values = call.values(0)
        if _count(out) != 1 or None in values:
            raise Unknown("only whole rows are followed")
        return (_kept(function(values)),)

    return rule


def _rounded(function: Callable[[Any], Any]) -> Callable[[Call, Shape], Values]:
    return lambda call, out: tuple(
        None if v is None else v if isinstance(v, int) else float(function(v))
        for v in call.values(0)
    )


VALUES: Mapping[str, Callable[[Call, Shape], Values]] = {
    **dict.fromkeys(("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"), _pass),
    "Add": _each(operator.add),
    "And": _each(lambda a, b: bool(a and b)),
    "Cast": _cast,
    "Ceil": _rounded(lambda v: -(-v // 1)),
    "Concat": _concat,
    "ConstantOfShape": _constant,
    "Div": _each(_divide),
    "Equal": _each(operator.eq),
    "Expand": _expand,
    "Floor": _rounded(lambda v: v // 1),
    "Gather": _gather,
    "Greater": _each(operator.gt),
    "GreaterOrEqual": _each(operator.ge),
    "Less": _each(operator.lt),
    "LessOrEqual": _each(operator.le),
    "Max": _each(max),
    "Min": _each(min),
    "Mod": _each(operator.mod),
    "Mul": _each(operator.mul),
    "Neg": lambda call, out: tuple(None if v is None else -v for v in call.values(0)),
    "Not": lambda call, out: tuple(None if v is None else not v for v in call.values(0)),
    "Or": _each(lambda a, b: bool(a or b)),
    "Range": _range,
    "ReduceMax": _reduce(max),
    "ReduceMin": _reduce(min),
    "ReduceProd": _reduce(prod),
    "ReduceSum": _reduce(sum),
    "Shape": _shape_of,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Sub": _each(operator.sub),
    "Transpose": _transpose,
    "Where": _where,
}
