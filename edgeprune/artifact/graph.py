# SPDX-License-Identifier: Apache-2.0
"""What was read from a file, the same for every format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

__all__ = [
    "SIZES",
    "Artifact",
    "Attribute",
    "Dims",
    "Function",
    "Graph",
    "Operator",
    "Ref",
    "Tensor",
    "elements",
    "stored_bytes",
]

Dims: TypeAlias = tuple["int | str | None", ...]
"""Sizes; a string is a size with a name that the file leaves open, ``None`` one without."""

SIZES = {
    "bool": 8, "int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "int32": 32, "uint32": 32,
    "int64": 64, "uint64": 64, "float16": 16, "bfloat16": 16, "float32": 32, "float64": 64,
    "complex64": 64, "complex128": 128, "float8_e4m3fn": 8, "float8_e4m3fnuz": 8,
    "float8_e5m2": 8, "float8_e5m2fnuz": 8, "float8_e8m0": 8, "float4_e2m1": 4,
    "int4": 4, "uint4": 4, "int2": 2, "uint2": 2,
}  # fmt: skip
"""Bits of one element; a type that isn't here has no fixed size."""


class Tensor(NamedTuple):
    """A tensor of a graph."""

    name: str
    shape: Dims | None = None
    """``None``: not even the number of dimensions is known."""
    dtype: str = ""
    """As numpy names it (``float32``), or empty where it isn't known."""
    constant: bool = False
    """Whether the file holds its value."""
    bytes: int = 0
    """What the file holds of a constant, in bytes."""
    at: int = -1
    """Where in the file a constant lies: the same weight has the same place."""
    values: tuple[int | float | None, ...] | None = None
    """The elements where they are known and few; ``None`` is an element that isn't known."""
    fixed: bool = False
    """Whether it doesn't depend on the model's inputs, so that a runtime makes it once."""
    quantized: bool = False
    """TFLite: whether it has a scale."""
    variable: bool = False
    """TFLite: state that is kept from run to run."""


class Ref(NamedTuple):
    """An attribute that stands for one of the call's; only inside functions."""

    name: str


Row: TypeAlias = tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
Attribute: TypeAlias = int | float | str | Row | Tensor | Ref | None
"""``None``: of a kind, or a length, that nothing here needs."""


class Operator(NamedTuple):
    """An operator; an absent optional input is empty."""

    name: str
    """Unique in its file."""
    type: str
    """``Conv``, or ``com.microsoft.Gelu`` outside ONNX's own set; ``CONV_2D``."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    graphs: Mapping[str, Graph]
    """Sub-graphs by their role: ``then_branch``, ``body``."""
    version: int = 1
    """TFLite: the operator's own; ONNX: of the operator set."""

    def input(self, at: int) -> str:
        """A name; empty where there is none, as in a broken file even where one is due."""
        return self.inputs[at] if at < len(self.inputs) else ""

    def output(self, at: int) -> str:
        """A name; empty where there is none."""
        return self.outputs[at] if at < len(self.outputs) else ""


class Graph(NamedTuple):
    """Operators in the order in which they run."""

    name: str
    inputs: tuple[str, ...]
    """Without those that have a constant value."""
    outputs: tuple[str, ...]
    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]


class Function(NamedTuple):
    """An operator that the file itself defines by others."""

    graph: Graph
    defaults: Mapping[str, Attribute]


class Artifact(NamedTuple):
    """A file as read, nothing worked out yet."""

    path: Path
    format: Literal["onnx", "tflite"]
    graph: Graph
    functions: Mapping[str, Function]
    """By the type of the operators that call them."""
    opsets: Mapping[str, int]
    """ONNX: version of each operator set, by its domain."""
    files: Mapping[Path, int]
    """The file, and those with its weights: bytes of each."""
    signatures: Mapping[str, tuple[str, ...]]
    """TFLite: names of the inputs of each signature."""
    others: tuple[str, ...] = ()
    """TFLite: signatures that run a graph of their own, beside the main one."""
    aliases: Mapping[str, str] = {}
    """TFLite: what the only signature calls the inputs of the main graph, by their tensors."""

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(self.files.values())


def elements(dims: Iterable[int | str | None] | None) -> int | None:
    """How many elements a shape has, where that is known."""
    if dims is None:
        return None
    sizes = tuple(dims)
    known = [size for size in sizes if isinstance(size, int)]
    if 0 in known:
        return 0
    return prod(known) if len(known) == len(sizes) else None


def stored_bytes(tensor: Tensor) -> int | None:
    """Bytes that its elements take, packed; ``None`` where shape or type isn't known."""
    count, bits = elements(tensor.shape), SIZES.get(tensor.dtype)
    return None if count is None or bits is None else (count * bits + 7) // 8
