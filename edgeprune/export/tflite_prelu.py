# SPDX-License-Identifier: Apache-2.0
"""PReLU in int8 as the one operator that LiteRT has for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from edgeprune.export.flatbuffer import Op, Tensor, op_code, schema, view

__all__ = ["fuse_prelus"]


class _Match(NamedTuple):
    source: Tensor
    alpha: Tensor
    result: Tensor
    last: int
    """The place of the operator that gives way to the new one."""


def fuse_prelus(model: Any) -> None:
    """Put ``PRELU`` in the place of the four float operators that the converter writes between a
    dequantization and a quantization, in place.

    The slopes become int8 with one symmetric scale.
    """
    graph, ops = model.subgraphs[0], view(model).ops
    maker = {tensor.index: op for op in ops for tensor in op.outputs}
    for place, op in enumerate(ops):
        found = _match(model, op, place, maker)
        if found is not None:
            _fuse(model, found)
    _drop_unread(graph)


def _match(model: Any, op: Op, place: int, maker: dict[int, Op]) -> _Match | None:
    """``QUANTIZE(relu(x) - alpha * relu(-1 * x))`` of an ``x`` that was int8."""
    difference = _maker(maker, op, "QUANTIZE", 0, "SUB")
    positive = _maker(maker, difference, "SUB", 0, "RELU")
    scaled = _maker(maker, difference, "SUB", 1, "MUL")
    negative = _maker(maker, scaled, "MUL", 0, "MUL")
    before = _maker(maker, positive, "RELU", 0, "DEQUANTIZE")
    if scaled is None or negative is None or before is None:
        return None
    (alpha, minus), source = (o.inputs[1] for o in (scaled, negative)), before.inputs[0]
    if alpha is None or minus is None or source is None or before.outputs[0] != negative.inputs[0]:
        return None
    constant = alpha.raw is not None and minus.raw is not None
    bent = constant and bool((minus.values() == -1).all()) and _has_relu(model, negative)
    integers = source.dtype == op.outputs[0].dtype == "int8" and source.raw is None
    return _Match(source, alpha, op.outputs[0], place) if bent and integers else None


def _maker(maker: dict[int, Op], op: Op | None, kind: str, place: int, wanted: str) -> Op | None:
    if op is None or op.kind != kind or len(op.inputs) <= place:
        return None
    tensor = op.inputs[place]
    made = None if tensor is None else maker.get(tensor.index)
    return made if made is not None and made.kind == wanted else None


def _has_relu(model: Any, op: Op) -> bool:
    raw = next(
        r for r in model.subgraphs[0].operators if r.outputs[0] == op.outputs[0].index
    ).builtinOptions
    return bool(raw.fusedActivationFunction == schema().ActivationFunctionType.RELU)


def _fuse(model: Any, found: _Match) -> None:
    bindings, graph = schema(), model.subgraphs[0]
    values = found.alpha.values()
    scale = np.float32(float(np.abs(values).max(initial=0.0)) / 127 or 1.0)
    stored, slopes = bindings.BufferT(), bindings.TensorT()
    stored.data = np.rint(values / scale).astype(np.int8).view(np.uint8).ravel()
    model.buffers.append(stored)
    slopes.name, slopes.shape = b"slopes", np.array(found.alpha.shape, np.int32)
    slopes.type, slopes.buffer = bindings.TensorType.INT8, len(model.buffers) - 1
    slopes.hasRank = True
    slopes.quantization = bindings.QuantizationParametersT()
    slopes.quantization.scale = np.array([scale], np.float32)
    slopes.quantization.zeroPoint = np.array([0], np.int64)
    graph.tensors.append(slopes)
    op = bindings.OperatorT()
    op.opcodeIndex = op_code(model, "PRELU", 1)
    op.inputs = np.array([found.source.index, len(graph.tensors) - 1], np.int32)
    op.outputs = np.array([found.result.index], np.int32)
    graph.operators[found.last] = op


def _drop_unread(graph: Any) -> None:
    """Drop operators none of whose results is read."""
    while True:
        read = {int(i) for op in graph.operators for i in op.inputs}
        read |= {int(i) for i in graph.outputs}
        kept = [op for op in graph.operators if any(int(i) in read for i in op.outputs)]
        if len(kept) == len(graph.operators):
            return
        graph.operators = kept
