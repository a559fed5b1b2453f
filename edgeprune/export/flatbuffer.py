# SPDX-License-Identifier: Apache-2.0
"""TFLite files as data: read, look at, pack.

The schema is that of github.com/google-ai-edge/LiteRT (tflite/schema/schema.fbs), in the bindings
that ai-edge-litert ships. They trust what they read, so this is for files that edgeprune has made
itself; ``edgeprune.artifact`` reads those of others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.errors import InputError, MissingExtra
from edgeprune.export.quiet import quiet

__all__ = ["Graph", "Op", "Tensor", "load", "op_code", "pack", "read", "schema", "view"]

Array = np.ndarray[Any, Any]
_ALIGNMENT = 16
_MAGIC = b"TFL3"


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph."""

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    """As TFLite names it, in lower case: ``float32``, ``int8``, ``string``."""
    scale: Array | None
    """One value, or one for each index of ``axis``; absent where it isn't quantized."""
    zero_point: Array | None
    axis: int
    raw: Array | None
    """The bytes of a constant."""

    @property
    def quantized(self) -> bool:
        """Whether it has a scale."""
        return self.scale is not None

    @property
    def per_channel(self) -> bool:
        """Whether it has several scales."""
        return self.scale is not None and len(self.scale) > 1

    def values(self) -> Array:
        """The constant as float64, dequantized; shape as ``shape``.

        Raises:
            ValueError: It is no constant, or of a type that numpy doesn't have.
        """
        if self.raw is None:
            raise ValueError(f"{self.name} is no constant")
        stored = self.raw.view(np.dtype(self.dtype)).reshape(self.shape).astype(np.float64)
        if self.scale is None or self.zero_point is None:
            return stored
        wide = [1] * len(self.shape)
        if self.per_channel:
            wide[self.axis] = -1
        scale = self.scale.astype(np.float64).reshape(wide)
        return np.asarray((stored - self.zero_point.reshape(wide)) * scale)


@dataclass(frozen=True)
class Op:
    """An operator with its tensors; an absent optional input is ``None``."""

    kind: str
    """The builtin's name, ``CONV_2D``, or a custom operator's own."""
    version: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Graph:
    """The main graph of a model."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ops: tuple[Op, ...]


@cache
def schema() -> Any:
    """The bindings.

    Raises:
        MissingExtra: ai-edge-litert isn't installed.
    """
    try:
        with quiet():
            from ai_edge_litert import schema_py_generated
    except ImportError:
        raise MissingExtra("ai-edge-litert", "compress") from None
    return schema_py_generated


def load(content: bytes, name: str) -> Any:
    """Unpack a file's ``content`` into the schema's ``ModelT``.

    Buffers that lie behind the flatbuffer are brought inside, where every runtime finds them.

    Raises:
        InputError: It is no TFLite file; ``name`` is how the message calls it.
    """
    if content[4:8] != _MAGIC:
        raise InputError(f"{name}: no TFLite file")
    model = schema().ModelT.InitFromPackedBuf(content, 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            end = buffer.offset + buffer.size
            buffer.data = np.frombuffer(content[buffer.offset : end], np.uint8)
            buffer.offset = buffer.size = 0
    return model


def read(path: Path) -> Graph:
    """The main graph of a file.

    Raises:
        InputError: It can't be read, or is no TFLite file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror}") from None
    return view(load(content, str(path)))


def view(model: Any) -> Graph:
    """The main graph of an unpacked model."""
    graph = model.subgraphs[0]
    tensors = [_tensor(model, index, tensor) for index, tensor in enumerate(graph.tensors)]
    ops = []
    for op in graph.operators or ():
        code = model.operatorCodes[op.opcodeIndex]
        inputs = tuple(None if i < 0 else tensors[i] for i in _list(op.inputs))
        outputs = tuple(tensors[i] for i in _list(op.outputs))
        ops.append(Op(_kind(code), int(code.version), inputs, outputs))
    return Graph(
        tuple(tensors[i] for i in _list(graph.inputs)),
        tuple(tensors[i] for i in _list(graph.outputs)),
        tuple(ops),
    )


def op_code(model: Any, kind: str, version: int) -> int:
    """The index of an operator code in ``model``, which gets it where it isn't there."""
    builtin = getattr(schema().BuiltinOperator, kind)
    for index, code in enumerate(model.operatorCodes):
        if _builtin(code) == builtin and code.version == version:
            return index
    code = schema().OperatorCodeT()
    code.builtinCode, code.version = builtin, version
    # Runtimes from before the field was widened read the old one, which ends at 127.
    code.deprecatedBuiltinCode = min(builtin, 127)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def pack(model: Any) -> bytes:
    """A file's content; the same for equal models.

    Constants are aligned to 16 bytes, as the schema asks and microcontrollers need (the bindings
    alone would put them anywhere).
    """
    buffers = model.buffers
    model.buffers = [_Aligned(buffer) for buffer in buffers]
    try:
        builder = schema().flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=_MAGIC)
        return bytes(builder.Output())
    finally:
        model.buffers = buffers


class _Aligned:
    """Packs one buffer as the bindings' ``BufferT`` does, but for the alignment of its data."""

    def __init__(self, buffer: Any) -> None:
        self._data = None if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the bindings call it by this name
        bindings, data = schema(), None
        if self._data:
            builder.StartVector(1, len(self._data), _ALIGNMENT)
            builder.head -= len(self._data)
            builder.Bytes[builder.head : builder.head + len(self._data)] = self._data
            data = builder.EndVector()
        bindings.BufferStart(builder)
        if data is not None:
            bindings.BufferAddData(builder, data)
        return int(bindings.BufferEnd(builder))


def _tensor(model: Any, index: int, tensor: Any) -> Tensor:
    quantization = tensor.quantization
    scale = None if quantization is None else quantization.scale
    if scale is None or len(scale) == 0:
        scale = zero = None
    else:
        zero = quantization.zeroPoint
        zero = np.zeros(len(scale), np.int64) if zero is None else np.asarray(zero)
        scale = np.asarray(scale)
    data = model.buffers[tensor.buffer].data
    return Tensor(
        index=index,
        name=tensor.name.decode() if tensor.name else f"tensor_{index}",
        shape=tuple(int(size) for size in _list(tensor.shape)),
        dtype=_types()[tensor.type].lower(),
        scale=scale,
        zero_point=zero,
        axis=0 if quantization is None else int(quantization.quantizedDimension),
        raw=None if data is None or len(data) == 0 else np.asarray(data, np.uint8),
    )


def _kind(code: Any) -> str:
    builtin = _builtin(code)
    if builtin == schema().BuiltinOperator.CUSTOM:
        return str(code.customCode.decode())
    return _builtins()[builtin]


def _builtin(code: Any) -> int:
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


@cache
def _builtins() -> dict[int, str]:
    return _names(schema().BuiltinOperator)


@cache
def _types() -> dict[int, str]:
    return _names(schema().TensorType)


def _names(enumeration: Any) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}


def _list(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]
