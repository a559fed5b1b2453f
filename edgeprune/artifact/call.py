# SPDX-License-Identifier: Apache-2.0
"""What a rule sees of one operator. Whatever isn't known raises, and the engine says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from edgeprune.artifact import limits
from edgeprune.artifact.graph import Attribute, Dims, Operator, Ref, Tensor, elements
from edgeprune.artifact.source import shown

__all__ = [
    "FAILURES",
    "Call",
    "Gap",
    "Number",
    "Rule",
    "Shape",
    "Unknown",
    "axis_of",
    "broadcast",
    "closed",
    "integers",
    "possible",
]

Number: TypeAlias = "int | float | None"
Shape: TypeAlias = tuple["int | None", ...]


class Unknown(Exception):
    """Something isn't told by the file, or the operator contradicts itself; the text says what."""


# A rule that meets what no real operator has (axis 9 of 4, a division by a stride of 0) fails in
# one of these ways; its outputs are then unknown.
FAILURES = (Unknown, ArithmeticError, LookupError, ValueError, TypeError)


class Gap(NamedTuple):
    """An operator whose outputs have no known shape, and why."""

    operator: str
    type: str
    reason: str

    @staticmethod
    def of(operator: Operator, error: Exception) -> Gap:
        """Tell of a rule that failed in one of ``FAILURES``."""
        known = isinstance(error, Unknown)
        reason = str(error) if known else "its inputs or attributes contradict each other"
        return Gap(operator.name, operator.type, reason)


class Call(NamedTuple):
    """An operator with its tensors as far as they are known so far."""

    operator: Operator
    inputs: tuple[Tensor | None, ...]

    @property
    def version(self) -> int:
        """Of the operator set."""
        return self.operator.version

    def has(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def tensor(self, index: int) -> Tensor:
        """An input."""
        tensor = self.inputs[index] if index < len(self.inputs) else None
        if tensor is None:
            raise Unknown(f"it has no input {index}")
        return tensor

    def shape(self, index: int) -> Shape:
        """The shape of an input; single sizes may be unknown."""
        tensor = self.tensor(index)
        if tensor.shape is None:
            raise Unknown(f"the shape of '{tensor.name}' isn't known")
        return closed(tensor.shape)

    def sizes(self, index: int) -> tuple[int, ...]:
        """The shape of an input, all of it known."""
        shape = self.shape(index)
        if None in shape:
            raise Unknown(f"a size of '{self.tensor(index).name}' isn't known")
        return integers(shape)

    def values(self, index: int) -> tuple[Number, ...]:
        """The elements of an input; single ones may be unknown."""
        tensor = self.tensor(index)
        if tensor.values is None:
            raise Unknown(f"the values of '{tensor.name}' aren't known")
        return tensor.values

    def numbers(self, index: int) -> tuple[int, ...]:
        """The elements of an input as integers, all of them known."""
        return integers(self.values(index))

    def attribute(self, name: str) -> Attribute:
        """An attribute, ``None`` where it isn't set."""
        return self.operator.attributes.get(name)

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer attribute."""
        value = self.attribute(name)
        if isinstance(value, int):
            return value
        if default is None:
            raise Unknown(f"its attribute '{name}' isn't known")
        return default

    def row(self, name: str) -> tuple[int, ...] | None:
        """An attribute that is a list of integers."""
        value = self.attribute(name)
        if isinstance(value, tuple) and not isinstance(value, Tensor | Ref):
            return integers(value)
        return None

    def text(self, name: str, default: str = "") -> str:
        """A text attribute."""
        value = self.attribute(name)
        return value if isinstance(value, str) else default

    def listed(self, name: str, index: int) -> tuple[int, ...] | None:
        """What was an attribute in older operator sets and is an input in newer ones."""
        return self.numbers(index) if self.has(index) else self.row(name)


Rule: TypeAlias = Callable[[Call], tuple[Shape, ...]]


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the end, as one counted from the start."""
    if not -rank <= axis < rank:
        raise Unknown(f"there is no axis {axis} in {rank} dimensions")
    return axis % rank


def possible(shape: Shape) -> Shape:
    """The shape, unless no memory holds it."""
    if any(size is not None and not 0 <= size <= limits.DIMENSION for size in shape):
        raise Unknown(f"its output would have the shape {shown(str(list(shape[:8])))}")
    if len(shape) > limits.RANK or (elements(s or 0 for s in shape) or 0) > limits.ELEMENTS:
        raise Unknown("its output would be larger than any memory")
    return shape


def closed(dims: Dims) -> Shape:
    """Sizes with a name are as unknown as those without."""
    return tuple(size if isinstance(size, int) else None for size in dims)


def integers(values: Iterable[object]) -> tuple[int, ...]:
    """The values, all of which must be whole numbers."""
    numbers = []
    for value in values:
        if not isinstance(value, int):
            raise Unknown("a size isn't known")
        numbers.append(value)
    return tuple(numbers)


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape that several have together, as numpy has it."""
    rank = max(map(len, shapes), default=0)
    result: list[int | None] = []
    for back in range(rank, 0, -1):
        sizes = {shape[-back] for shape in shapes if len(shape) >= back} - {1}
        known = sizes - {None}
        if len(known) > 1:
            raise Unknown(f"sizes {sorted(map(str, known))} don't go together")
        result.append(known.pop() if known else None if sizes else 1)
    return tuple(result)
