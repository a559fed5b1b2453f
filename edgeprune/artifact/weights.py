# SPDX-License-Identifier: Apache-2.0
"""Which of a file's constants are weights, and what each operator holds of them.

A weight is a constant that an operator calculates with: kernels, matrices, biases, tables of
embeddings. No weights are shapes, axes and indices, scales and zero points of quantization, the
limits of a clip, running statistics (as in PyTorch), first states of recurrent layers, and single
numbers in arithmetic. What a runtime works out once from constants (a dequantized kernel) counts by
the constants. Each is counted once, whoever reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from edgeprune.artifact.graph import Graph, Operator, Tensor, elements
from edgeprune.artifact.kinds import Links
from edgeprune.artifact.operators import ARITHMETIC, LITE_PRODUCTS, ONNX_PRODUCTS, SETTINGS, bare

__all__ = ["Held", "Weights"]

_NEVER = frozenset({"", "bool", "string", "resource", "variant", "uint32", "uint64"})
_SUMS = frozenset({"int32", "int64"})
"""Types of biases in integer layers, and of shapes and indices everywhere else."""


class Held(NamedTuple):
    """What an operator is the first to read."""

    parameters: int
    bytes: int


class Weights:
    """Goes through the operators of a file, all graphs, in order."""

    def __init__(self) -> None:
        self._parameters: set[object] = set()
        self._bytes: set[object] = set()
        self._walked: set[tuple[int, str, bool]] = set()
        self._graphs: list[Graph] = []  # keeps their ids from being used again

    def held(self, operator: Operator, graph: Graph, found: Links) -> Held:
        """The parameters of an operator, and the bytes of all constants behind it."""
        parameters = held = 0
        for tensor, counts in self._roots(operator, graph, found):
            key: object = tensor.at if tensor.at >= 0 else tensor.name
            if key not in self._bytes:
                self._bytes.add(key)
                held += tensor.bytes
            if counts and key not in self._parameters:
                self._parameters.add(key)
                parameters += _size(operator, tensor)
        return Held(parameters, held)

    def _roots(
        self, operator: Operator, graph: Graph, found: Links
    ) -> Iterator[tuple[Tensor, bool]]:
        """The constants behind an operator, each with whether it is a weight there."""
        if not self._graphs or self._graphs[-1] is not graph:
            self._graphs.append(graph)
        pending = [(operator, True, False)]
        while pending:
            reader, weight, dequantized = pending.pop()
            kind = bare(reader.type)
            settings = SETTINGS.get(kind, frozenset())
            scaled = dequantized or kind in ("DequantizeLinear", "DEQUANTIZE")
            for at, name in enumerate(reader.inputs):
                tensor = graph.tensors.get(name) if name else None
                if tensor is None or not tensor.fixed:
                    continue
                here = weight and at not in settings
                if tensor.constant:
                    yield tensor, here and _is_weight(operator, tensor, scaled)
                    continue
                step = (id(graph), name, here)
                maker = found.maker.get(name)
                if maker is not None and step not in self._walked:
                    self._walked.add(step)
                    pending.append((graph.operators[maker], here, scaled))


def _is_weight(operator: Operator, tensor: Tensor, dequantized: bool) -> bool:
    kind = bare(operator.type)
    if tensor.dtype in _NEVER:
        return False
    if tensor.dtype in _SUMS:
        return dequantized or kind in ONNX_PRODUCTS or kind in LITE_PRODUCTS
    return kind not in ARITHMETIC or (elements(tensor.shape) or 0) > 1


def _size(operator: Operator, tensor: Tensor) -> int:
    if bare(operator.type) == "MatMulNBits" and tensor.name == operator.input(1):
        attributes: Mapping[str, object] = operator.attributes
        rows, columns = attributes.get("N"), attributes.get("K")
        if isinstance(rows, int) and isinstance(columns, int):
            return max(rows, 0) * max(columns, 0)  # the tensor itself is packed bytes
    return elements(tensor.shape) or 0
